"""What the pages in docs/ tell to type works as typed, in clones of this repository."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Workspace, clone, copy_repository, outputs, served, stages_run

from normlab.config import pipeline
from normlab.config.paths import RunFiles

WEIGHTS = "data/weights/gn.safetensors"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """This repository, committed: what others clone."""
    made = copy_repository(tmp_path_factory.mktemp("origin") / "normlab")
    made.commit("all")
    return made


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """An empty Git repository that uses DVC: another project."""
    made = Workspace(tmp_path / "project")
    made.path.mkdir()
    made.run("git", "init", "--quiet")
    made.run("dvc", "init", "--quiet")
    return made


def documented(page: str, start: str) -> str:
    """The one command that begins with `start` in the page `docs/<page>`, without its remark."""
    text = (ROOT / "docs" / page).read_text()
    lines = rf"^    (?:\$ )?({re.escape(start)}.*(?:\n     .*)*)"
    [command] = re.findall(lines, text, re.MULTILINE)
    return command.partition("  #")[0].strip()


def shell(workspace: Workspace, command: str) -> subprocess.CompletedProcess[str]:
    return workspace.run("bash", "-ec", command, check=False)


@pytest.mark.slow
def test_a_pull_brings_all_but_the_images(origin: Workspace, tmp_path: Path) -> None:
    reader = clone(origin.path, tmp_path / "reader")
    done = shell(reader, documented("sharing.md", "dvc pull --allow-missing"))
    assert done.returncode == 0, done.stderr
    assert (reader.path / WEIGHTS).exists()
    done = reader.run("dvc", "pull", check=False)
    assert done.returncode != 0
    assert "data/images/train.safetensors" in done.stderr


def test_every_run_is_an_artifact() -> None:
    artifacts = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]
    assert {name: Path(a["path"]) for name, a in artifacts.items()} == {
        run: RunFiles(run).weights for run in pipeline.runs(ROOT / "dvc.yaml")
    }
    assert {artifact["type"] for artifact in artifacts.values()} == {"model"}


@pytest.mark.slow
def test_another_project_gets_weights_from_a_clone(origin: Workspace, project: Workspace) -> None:
    command = documented("sharing.md", "dvc get /path")
    done = shell(project, command.replace("/path/to/normlab", str(origin.path)))
    assert done.returncode == 0, done.stderr
    got = (project.path / "gn.safetensors").read_bytes()
    assert hashlib.md5(got).hexdigest() == outputs(origin)[WEIGHTS]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["get", "import"])
def test_another_project_gets_weights_from_a_server(
    verb: str, origin: Workspace, project: Workspace
) -> None:
    command = documented("sharing.md", "dvc get https").replace("dvc get", f"dvc {verb}")
    command = command.replace("https://HOST/normlab.git", origin.path.as_uri())
    got = project.path / "gn.safetensors"
    with served(origin.path) as address:
        done = shell(project, command.replace("https://HOST", address))
        assert done.returncode == 0, done.stderr
        assert hashlib.md5(got.read_bytes()).hexdigest() == outputs(origin)[WEIGHTS]
        if verb == "import":
            shutil.rmtree(project.path / ".dvc/cache")
            got.unlink()
            project.run("dvc", "pull")
            assert got.exists()


@pytest.mark.slow
def test_a_network_is_used_in_python(origin: Workspace, tmp_path: Path) -> None:
    reader = clone(origin.path, tmp_path / "reader")
    reader.run("dvc", "pull", WEIGHTS)
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/sharing.md").read_text(), re.DOTALL)
    check = "print(features.shape, torch.equal(model.head(features), logits), len(labels))"
    printed = reader.run("python", "-c", f"{code}\n{check}").stdout
    assert printed == "torch.Size([8, 64]) True 8\n"


PIPELINE = """
stages:
  evaluate:
    foreach: {main: "${batch_size}", bn: "${comparison.batch_size}"}
    do:
      cmd: |
        mkdir -p data/runs/${key} && echo '{"val": ${item}, "f1": 1}' >data/runs/${key}/metrics.json
      metrics: ["data/runs/${key}/metrics.json"]
"""


@pytest.fixture
def quick(origin: Workspace, tmp_path: Path) -> Workspace:
    """A clone whose runs take no time: their validation accuracy is their batch size."""
    made = clone(origin.path, tmp_path / "quick")
    (made.path / "dvc.yaml").write_text(PIPELINE)
    made.run("dvc", "repro")
    shutil.rmtree(made.path / "data/remote")
    made.run("dvc", "push")
    made.commit("quick")
    return made


@pytest.mark.slow
def test_experiments_are_shown_in_a_narrow_terminal_and_outlive_a_cleaning(
    quick: Workspace,
) -> None:
    for name, batch_size in (("small", 8), ("smaller", 4)):
        quick.run("dvc", "exp", "run", "-n", name, "-S", f"batch_size={batch_size}")
        quick.run("git", "restore", "params.yaml", "dvc.lock")
        quick.run("dvc", "checkout")
    table = shell(quick, f"COLUMNS=100 {documented('experiments.md', 'dvc exp show')}").stdout
    cells = [line.split() for line in table.splitlines()]
    assert ["Experiment", "data/runs/main/metrics.json:val", "batch_size"] in cells
    assert ["8", "8"] in [row[-2:] for row in cells if "[small]" in row]

    quick.run("dvc", "exp", "remove", "smaller")
    clean = documented("experiments.md", "dvc gc")
    assert "Removed 1 objects" in shell(quick, clean.replace("--dry", "--force")).stdout
    quick.run("dvc", "exp", "apply", "small")
    assert '"val": 8' in (quick.path / "data/runs/main/metrics.json").read_text()


@pytest.mark.slow
def test_a_pull_request_is_reported_on_where_nothing_was_run(
    quick: Workspace, tmp_path: Path
) -> None:
    """Each branch has only its own results in its remote."""
    quick.run("git", "checkout", "--quiet", "-b", "change")
    quick.set(batch_size=8)
    quick.run("dvc", "repro")
    shutil.rmtree(quick.path / "data/remote")
    quick.run("dvc", "push")
    quick.commit("change")
    reader = clone(quick.path, tmp_path / "reader")
    workflow = yaml.safe_load((ROOT / ".ci/report.yaml").read_text())
    commands = [step.get("run", "") for step in workflow["jobs"]["report"]["steps"]]
    [command] = [command for command in commands if command.startswith(".ci/")]
    reader.environment["GITHUB_BASE_REF"] = "main"
    done = shell(reader, command)
    assert done.returncode == 0, done.stderr
    rows = [re.split(r" *\| *", row) for row in (reader.path / "report.md").read_text().split("\n")]
    assert ["", "data/runs/main/metrics.json", "val", "128", "8", "-120", ""] in rows
    assert ["", "params.yaml", "batch_size", "128", "8", ""] in rows
    assert reader.run("git", "worktree", "list").stdout.count("\n") == 1


@pytest.mark.slow
def test_runs_train_side_by_side_without_make(workspace: Workspace) -> None:
    workspace.run("dvc", "repro", "split")
    done = shell(workspace, documented("sharing.md", "dvc stage list"))
    assert done.returncode == 0, done.stderr
    runs = pipeline.runs(workspace.path / "dvc.yaml")
    assert sorted(stages_run(done.stdout)) == sorted(f"train@{run}" for run in runs)
    assert not re.search("^train@", workspace.run("dvc", "status").stdout, re.MULTILINE)
