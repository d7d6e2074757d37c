"""dvc.yaml: what depends on what, seen by DVC itself and by the code that really runs."""

import ast
import os
import re
import shutil
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Workspace

from normlab.config import pipeline
from normlab.norms.names import NORMS
from normlab.utils.errors import NormlabError
from stages import repeat

STAGES = ("download", "split", "train", "evaluate", "features", "repeat", "plots")
#: packages that check, name and write: what they hold decides no output
INDECISIVE = ("config", "utils")


def definition(stage: str) -> dict:
    """The stage as dvc.yaml has it; of one with several runs, what is done for each."""
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    return content.get("do", content)


def imports(path: Path) -> Iterator[str]:
    """Modules, packages and names in them that the code in `path` imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imported(path: Path, seen: set[str]) -> Iterator[str]:
    """Modules of normlab that the code in `path` imports, and those import in turn."""
    for name in imports(path):
        if name.partition(".")[0] != "normlab" or name in seen:
            continue
        place = ROOT / "src" / name.replace(".", "/")
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if not file.is_file():
            continue
        seen.add(name)
        if name.split(".")[1:2] == [] or name.split(".")[1] in INDECISIVE:
            continue
        if len(ast.parse(file.read_text()).body) > 1:  # more than a docstring
            yield str(file.relative_to(ROOT / "src/normlab").with_suffix(""))
        yield from imported(file, seen)


@pytest.mark.parametrize("stage", STAGES)
def test_declared_code_is_what_is_imported(stage: str) -> None:
    """Every module that a stage imports is declared, and every file and package that is, used."""
    used = set(imported(ROOT / f"stages/{stage}.py", set()))
    if "norms/base" in used:
        used.add("norms/${item.norm}")  # make_norm imports it by name
    declared = {
        dependency.removeprefix("src/normlab/").removesuffix(".py")
        for dependency in definition(stage)["deps"]
        if dependency.startswith("src/")
    }
    covers = {d: {n for n in used if n == d or n.startswith(f"{d}/")} for d in declared}
    assert used == set().union(*covers.values())
    assert all(covers.values()), covers


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_imports_only_declared_modules(norm: str) -> None:
    used = set(imported(ROOT / f"src/normlab/norms/{norm}.py", set()))
    assert used <= {"norms/base", "compute/distributed"}


#: the packages of src/normlab; each imports only from those that follow it
PACKAGES = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/contributing.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    """Never into `stages`, only to packages after this one in PACKAGES, in no circle within it."""
    allowed = {*PACKAGES[PACKAGES.index(package) :]}
    inside: dict[str, set[str]] = {}
    for path in (ROOT / "src/normlab" / package).rglob("*.py"):
        names = [name.split(".") for name in imports(path)]
        assert not any(name[0] == "stages" for name in names), path
        ours = [name[1:] for name in names if name[0] == "normlab" and name[1:]]
        assert {name[0] for name in ours} <= allowed, path
        inside[path.stem] = {name[1] for name in ours if name[0] == package and name[1:]}
    TopologicalSorter(inside).prepare()  # raises CycleError


def test_every_module_is_in_a_package() -> None:
    found = {path.name for path in (ROOT / "src/normlab").iterdir() if path.name != "__pycache__"}
    assert found == {*PACKAGES, "__init__.py", "__main__.py"}


CONFIGURED = dict.fromkeys(STAGES, ()) | {
    "train": ("training/loop.py",),
    "repeat": ("training/loop.py",),
    "plots": ("report/results.py", "report/report.html.j2"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_declares_its_own_file_and_all_params_it_reads(stage: str) -> None:
    declared = definition(stage)
    assert f"stages/{stage}.py" in declared["deps"]
    code = (ROOT / f"stages/{stage}.py").read_text()
    for name in CONFIGURED[stage]:  # what the stage hands its params to
        code += (ROOT / "src/normlab" / name).read_text()
    read = set(re.findall(r"(?<![\w.])(?:config|params\.load\(\))\.([a-z]\w*(?:\.\w+)?)", code))
    read = {key for key in read if key.split(".")[0] != "compute"}
    names = [name.replace("${item.norm}", "groups") for name in declared.get("params", [])]
    for key in read:
        assert any(key == name or key.startswith(f"{name}.") for name in names), key
    for name in names:
        assert any(key == name or key.startswith(f"{name}.") for key in read), name


def test_no_stage_before_evaluate_depends_on_test_images() -> None:
    for stage in ("split", "train", "features"):
        assert not any("test" in dependency for dependency in definition(stage)["deps"])


@pytest.mark.parametrize("file", ["log.csv", "scores.json", "predictions.csv", "quantiles.csv"])
def test_a_file_that_plots_does_not_depend_on_is_named(file: str, tmp_path: Path) -> None:
    text, path = (ROOT / "dvc.yaml").read_text(), tmp_path / "dvc.yaml"
    path.write_text(text.replace(f"data/runs/gn-small/{file},", ""))
    with pytest.raises(NormlabError, match=f"run gn-small: data/runs/gn-small/{file} is missing"):
        pipeline.runs(path)


def test_the_name_of_a_run_may_be_a_number(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.path)
    text = (ROOT / "dvc.yaml").read_text().replace("data/runs/bn/", "data/runs/8/")
    content = yaml.safe_load(text)
    runs = content["stages"]["train"]["foreach"]
    runs[8] = runs.pop("bn")
    Path("dvc.yaml").write_text(yaml.safe_dump(content))
    assert "8" in pipeline.runs()
    assert "src/normlab/norms/bn.py" in pipeline.inputs(*pipeline.parse("train@8"))


def test_a_stage_of_a_matrix_has_the_params_of_its_norm(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.path)
    workspace.set(repeat__seeds=[2, 3], repeat__batch_sizes=[32])
    for stage in ("repeat@gn-128-3", "repeat-small@gn-8-2", "batch-size@gn-32-1"):
        found = pipeline.inputs(*pipeline.parse(stage))
        assert found["params.yaml: norms.gn"] == {"groups": 8}
        assert "src/normlab/norms/gn.py" in found
        assert "src/normlab/norms/bn.py" not in found


def changed(workspace: Workspace) -> set[str]:
    """The stages that an edit affects itself; `dvc repro` reruns those and what follows them."""
    from dvc.repo import Repo

    with Repo(str(workspace.path)) as repo:
        return {name.rpartition(":")[2] for name in repo.status()}


#: what a user edits, and the stages it affects itself
EDITS: dict[str, tuple[dict[str, object], str, set[str]]] = {
    "data set": ({"dataset": "cifar10"}, "", {"download", "plots"}),
    "norm": ({"norm": "ln"}, "", {"train@main", "evaluate@main"}),
    "batch size": ({"batch_size": 64}, "", {"train@main"}),
    "quantiles": ({"features__quantiles": [0.5]}, "", {"features@main", "features@gn"}),
    "plot option": ({"plots__dpi": 80}, "", {"plots"}),
    "epochs": ({"train__epochs": 3}, "", {"train@main", "train@gn", "plots"}),
    "groups": ({"norms__gn__groups": 4}, "", {"train@gn", "plots"}),
    "number of processes": ({"compute__devices": 2}, "", set()),
    "a comment": ({}, "params.yaml", set()),
    "a seed": ({"repeat__seeds": [2]}, "", {"repeat@bn-128-2", "repeat-small@bn-8-2", "plots"}),
    "a batch size": ({"repeat__batch_sizes": [64]}, "", {"batch-size@bn-64-1", "plots"}),
    "depth": ({"model__n": 2}, "", {"train@main", "train@gn", "plots"}),
    "seed": ({"seed": 2}, "", {"split", "train@main", "train@gn", "plots"}),
    "validation size": ({"split__val_size": 0.5}, "", {"split"}),
    "the report's text": ({}, "src/normlab/report/report.html.j2", {"plots"}),
    "figures' code": ({}, "src/normlab/report/figures.py", {"plots"}),
    "tables' code": ({}, "src/normlab/report/results.py", {"plots"}),
    "another norm's code": ({}, "src/normlab/norms/ln.py", set()),
    "a norm's code": ({}, "src/normlab/norms/gn.py", {"train@gn", "evaluate@gn"}),
    "training's code": ({}, "src/normlab/training/loop.py", {"train@main", "train@gn"}),
    "evaluation's code": ({}, "src/normlab/evaluation/scores.py", {"evaluate@main", "evaluate@gn"}),
    "distributions' code": (
        {},
        "src/normlab/data/distribution.py",
        {"train@main", "train@gn", "features@main", "features@gn"},
    ),
    "features' code": ({}, "src/normlab/evaluation/features.py", {"features@main", "features@gn"}),
    "progress bars": ({}, "src/normlab/utils/progress.py", set()),
    "params' schema": ({}, "src/normlab/config/params.py", set()),
    "a new norm's name": ({}, "src/normlab/norms/names.py", {"plots"}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("params", "file", "expected"), EDITS.values(), ids=EDITS)
def test_an_edit_affects_exactly(
    finished: Workspace, params: dict[str, object], file: str, expected: set[str]
) -> None:
    try:
        if params:
            finished.set(**params)
        if file:
            with (finished.path / file).open("r+") as code:  # a file that is there
                code.seek(0, os.SEEK_END)
                code.write("\n# an edit\n")
        assert changed(finished) == expected
    finally:
        finished.run("git", "checkout", "--quiet", ".")


@pytest.mark.slow
def test_going_back_to_an_earlier_norm_restores_it_with_no_training(restored: Workspace) -> None:
    command = ("dvc", "exp", "run", "evaluate@main", "features@main", "-S")
    first = restored.run(*command, "norm=ln").stdout
    assert re.findall(r"> python -m stages\.(\w+)", first) == ["train", "evaluate", "features"]
    difference = restored.run("dvc", "metrics", "diff", "--all").stdout
    names = re.findall(r"data/runs/main/metrics\.json\s+(\S+)", difference)
    assert names == ["f1", "test", "val"]
    for norm in ("torch_bn", "ln"):
        back = restored.run(*command, f"norm={norm}").stdout
        assert not re.findall(r"> python -m stages\.(\w+)", back)


@pytest.mark.slow
def test_the_readmes_undo_brings_everything_back(restored: Workspace) -> None:
    [undo] = re.findall(r"Undo it with `(.*?)`", (ROOT / "README.md").read_text())
    restored.set(norm="ln")
    for path in (*(restored.path / "data/repeats").glob("*.json"), restored.path / "dvc.lock"):
        path.write_text("{}\n")
    shutil.rmtree(restored.path / "results")
    shutil.rmtree(restored.path / "data/runs/main")
    restored.run("bash", "-c", undo)
    assert not restored.run("git", "diff").stdout
    assert not changed(restored)


@pytest.mark.slow
def test_a_wrong_param_stops_the_pipeline_and_nothing_is_lost(restored: Workspace) -> None:
    """DVC deletes the outputs of the stage that refuses it; `dvc checkout` brings them back."""
    before = {p: p.read_bytes() for p in (restored.path / "data").rglob("*") if p.is_file()}
    restored.set(batch_size=0)
    done = restored.run("dvc", "repro", check=False)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "batch_size = 0" in errors[0]
    assert "Traceback" not in done.stderr
    restored.run("git", "checkout", "--quiet", ".")
    restored.run("dvc", "checkout")
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.slow
def test_an_edit_while_a_stage_runs_does_not_pass_for_what_ran(restored: Workspace) -> None:
    """DVC notes dependencies when a stage has ended (its issue 11058)."""
    quantiles = restored.path / "data/runs/gn/quantiles.csv"
    stage = restored.path / "stages/features.py"
    edits = 'Path("src/normlab/evaluation/features.py").open("a").write("# an edit\\n")'
    head = "def main(run: str) -> None:\n"
    assert head in stage.read_text()
    text = stage.read_text().replace(head, f"{head}    from pathlib import Path\n    {edits}\n")
    stage.write_text(text)
    done = restored.run("dvc", "repro", "--single-item", "features@gn", check=False)
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "src/normlab/evaluation/features.py changed while features@gn ran" in line
    assert "features@gn" in changed(restored)
    assert quantiles.exists()
    restored.run("git", "checkout", "--quiet", "src")  # as the line says
    restored.run("dvc", "commit", "--force", "features@gn")
    assert "features@gn" not in changed(restored)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "file", "noticed"),
    [
        ("train__lr", "", "params.yaml: train"),
        ("model__n", "", "params.yaml: model"),
        ("compute__devices", "", ""),
        ("plots__dpi", "", ""),
        ("", "src/normlab/norms/bn.py", "src/normlab/norms/bn.py"),
        ("", "src/normlab/norms/ln.py", ""),
        ("", "src/normlab/report/report.html.j2", ""),
    ],
)
def test_only_what_a_stage_depends_on_must_stay(
    key: str, file: str, noticed: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.path)

    def stage() -> None:
        with pipeline.unchanged("../dvc.yaml:train@bn"):
            if key:
                workspace.set(**{key: 77})
            if file:
                (workspace.path / file).open("a").write("\n")

    if noticed:
        with pytest.raises(NormlabError, match=f"^{re.escape(noticed)} changed while"):
            stage()
    else:
        stage()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wrong", "gone"])
def test_params_that_are_wrong_when_a_stage_has_ended_cost_no_outputs(
    kind: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.path)
    with pytest.raises(NormlabError) as caught, pipeline.unchanged("train@bn"):
        if kind == "wrong":
            workspace.set(plots__dpi=9999)
        else:
            (workspace.path / "params.yaml").unlink()
    line = str(caught.value)
    assert ("plots.dpi = 9999" if kind == "wrong" else "No such file") in line
    assert "to keep them, undo that change, then `dvc commit --force train@bn`" in line


@pytest.mark.slow
def test_a_repetition_resumes_whatever_the_test_images_and_the_scoring_are(
    with_data: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So test images are not read before its training has ended."""
    monkeypatch.chdir(with_data.path)
    (with_data.path / "data/images/test.safetensors").unlink()
    given: list[Any] = []
    monkeypatch.setattr(repeat.loop, "train", lambda *arguments: given.extend(arguments))
    repeat.main("bn", 8, 2)
    job, _, _, _, inputs, _ = given
    assert (job.seed, job.spec.batch_size) == (2, 8)
    assert {"src/normlab/training/loop.py", "data/images/train.safetensors"} <= {*inputs}
    assert not any("scores" in name for name in inputs)


def test_what_editors_leave_is_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (".dvcignore", "dvc.yaml", "params.yaml", "src", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    folder = tmp_path / "src"
    folder.unlink()
    shutil.copytree(ROOT / "src", folder)
    monkeypatch.chdir(tmp_path)
    before = pipeline.inputs("train", {"norm": "bn"})
    training = folder / "normlab/training"
    for name in (".loop.py.swp", "loop.py~", "#loop.py#", ".DS_Store", "__pycache__/loop.pyc",
                 ".ipynb_checkpoints/loop-checkpoint.py", ".mypy_cache/loop.json"):  # fmt: skip
        (training / name).parent.mkdir(parents=True, exist_ok=True)
        (training / name).touch()
    (training / "old.loop").mkdir()  # empty
    (training / ".#loop.py").symlink_to("nobody@nohost.1")
    assert pipeline.inputs("train", {"norm": "bn"}) == before
    (training / "more").touch()
    assert pipeline.inputs("train", {"norm": "bn"}) != before
