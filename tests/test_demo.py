"""`make demo`: the pipeline beside the user's own work, without Git."""

import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Workspace, copy_repository, refused, summary
from dvc.config import Config
from dvc.utils.hydra import apply_overrides

from normlab.cli import demo, study
from normlab.config import params
from normlab.training.resume import lock
from normlab.utils import files
from normlab.utils.errors import NormlabError
from normlab.utils.progress import EpochLine


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The repository without `.git`, as a downloaded archive has it; it is the working folder."""
    made = copy_repository(tmp_path / "Zoë's download")
    shutil.rmtree(made.path / "results", ignore_errors=True)
    shutil.rmtree(made.path / ".git")
    monkeypatch.chdir(made.path)
    monkeypatch.delenv("NORMLAB_SCRATCH", raising=False)
    return made


def test_results_replace_those_of_the_demo_before(
    download: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(".scratch/demo").absolute()
    content = "first"

    def run(jobs: int, root: Path) -> None:
        assert root == copy
        assert params.load(root / "params.yaml").dataset == "digits"
        files.write_text(root / "results/summary.md", content)

    monkeypatch.setattr(study, "run", run)
    before = Path("params.yaml").read_bytes()
    demo.run(2)
    files.write_text("demo-results/results/old.md", "of the first")
    files.write_text(copy / "src/normlab/renamed.py", "# of the first")
    files.write_text(copy / "data/runs/main/log.csv", "kept")
    content = "second"
    demo.run(2)
    assert [path.name for path in Path("demo-results/results").iterdir()] == ["summary.md"]
    assert Path("demo-results/results/summary.md").read_text() == "second"
    assert not (copy / "src/normlab/renamed.py").exists()
    assert (copy / "data/runs/main/log.csv").exists()
    assert Path("params.yaml").read_bytes() == before
    out = capsys.readouterr().out
    assert "demo-results/results/report.html" in out
    assert all(len(line) <= 80 for line in out.splitlines())

    def fail(jobs: int, root: Path) -> None:
        raise NormlabError("one run failed")

    monkeypatch.setattr(study, "run", fail)
    assert refused(lambda: demo.run(2)) == "one run failed"
    assert Path("demo-results/results/summary.md").read_text() == "second"


def test_results_behind_a_link_replace_nothing_else(
    download: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    Path("demo-results").symlink_to(disk)
    files.write_text(disk / "thesis", "years of work")
    monkeypatch.setattr(study, "run", lambda _, root: files.write_text(root / "results/x", "new"))
    demo.run(1)
    assert sorted(path.relative_to(disk).as_posix() for path in disk.rglob("*")) == [
        "results", "results/x", "thesis",
    ]  # fmt: skip
    assert Path("demo-results").is_symlink()


def test_where_no_results_can_be_put_no_training_starts(
    download: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path("demo-results")
    place.touch()
    monkeypatch.setattr(study, "run", lambda *_: pytest.fail("a training started"))
    with pytest.raises(OSError) as raised:
        demo.run(1)
    assert raised.value.filename == str(place.absolute())
    assert place.is_file()


def test_a_folder_of_other_files_is_no_demo(
    download: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMLAB_SCRATCH", "projects")
    files.write_text("projects/demo/src/thesis", "years of work")
    line = refused(lambda: demo.run(1))
    assert line.startswith("projects/demo: contains other files; set NORMLAB_")
    assert [path.name for path in Path("projects/demo").rglob("*")] == ["src", "thesis"]


def test_two_demos_at_once_are_refused(download: Workspace) -> None:
    with lock(Path(".scratch/demo")):
        assert refused(lambda: demo.run(1)).startswith("another demo is running in ")


@pytest.mark.parametrize("setting", ["", "[cache]\n    dir = /shared/cache\n"])
def test_the_copy_uses_the_cache_of_the_workspace(download: Workspace, setting: str) -> None:
    Path(".dvc/config.local").write_text(setting)
    demo.copy_pipeline(Path("copy"))
    config = Config(str(Path("copy/.dvc").absolute()))
    assert config["core"]["no_scm"] is True
    expected = "/shared/cache" if setting else str(download.path / ".dvc/cache")
    assert config["cache"]["dir"] == expected


def test_settings_of_the_demo_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    others = ["split.val_size=10000", "compute.devices=2", "repeat.seeds=[2,3]", "norm=bn"]
    apply_overrides(path, [*others, *demo.OVERRIDES])
    demonstrated = params.load(path)
    assert (demonstrated.split.val_size, demonstrated.compute.devices) == (0.2, 1)
    before = yaml.safe_load((ROOT / "params.yaml").read_text())
    after = yaml.safe_load(path.read_text())
    assert after["train"]["momentum"] == before["train"]["momentum"]
    assert after["train"]["flip"] is False


@pytest.mark.slow
def test_it_needs_no_git_learns_and_does_nothing_twice(download: Workspace) -> None:
    download.keep_runs("main")
    download.set(norm="ln")  # which learns slowest
    pythons = ":".join(download.environment["PATH"].split(":")[:2])
    download.environment |= {"PATH": pythons, "SHELL": "/bin/false", "PYTHONSAFEPATH": "1"}
    first, second = (download.run("python", "-m", "normlab", "demo").stdout for _ in range(2))
    for out in (first, second):
        assert min(summary(out)["main"]) > 90
        assert all(len(line) <= 80 for line in out.splitlines() if not EpochLine.parse(line))
    assert "main: epoch 1/" in first
    assert "everything is up to date" in second.splitlines()
    assert Path("demo-results/results/report.html").exists()
    assert not Path("results").exists()
