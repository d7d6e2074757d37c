"""More than one clone, more than one process: the same bytes, one dvc.lock, nothing twice."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Workspace, clone, outputs, stages_run

from normlab.cli import lockfile
from normlab.utils.errors import NormlabError

CHAIN = ("train", "evaluate", "features")


@pytest.mark.slow
def test_two_clones_come_to_the_same_lock(finished: Workspace, tmp_path: Path) -> None:
    other = clone(finished.path, tmp_path / "other")
    (other.path / "dvc.lock").unlink()
    shutil.rmtree(other.path / "results")
    ran = other.run("dvc", "repro").stdout
    assert [s for s in stages_run(ran) if s.startswith("train@")] == ["train@main", "train@gn"]
    assert len(outputs(finished)) > 10
    assert outputs(other) == outputs(finished)


def test_git_leaves_line_ends_as_dvc_hashed_them(workspace: Workspace, tmp_path: Path) -> None:
    """core.autocrlf, which Git for Windows sets, would make every file another."""
    workspace.run("git", "add", "--all")
    workspace.run("git", "commit", "--quiet", "-m", "all")
    other = tmp_path / "other"
    workspace.run("git", "clone", "--quiet", "-c", "core.autocrlf=true", ".", str(other))
    for name in ("params.yaml", "src/normlab/training/loop.py", "data/repeats/README.md"):
        assert (other / name).read_bytes() == (workspace.path / name).read_bytes()


@pytest.mark.slow
def test_figures_do_not_depend_on_the_users_settings(finished: Workspace, tmp_path: Path) -> None:
    """A notebook's backend that is not installed here, TeX that is not, another size of text."""
    before = {p.name: p.read_bytes() for p in (finished.path / "results/figures").iterdir()}
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\n")
    other = Workspace(finished.path)
    other.environment |= {
        "MPLBACKEND": "module://not_installed.backend_inline", "MPLCONFIGDIR": str(tmp_path)
    }  # fmt: skip
    other.run("python", "-m", "stages.plots")
    after = {p.name: p.read_bytes() for p in (finished.path / "results/figures").iterdir()}
    assert after == before


def test_the_folders_name_is_no_part_of_a_command(tmp_path: Path) -> None:
    place = tmp_path / "Zoë's $(false) [1]"
    place.mkdir()
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, place)
    command = ["make", "-n", "--no-print-directory", "install"]
    made = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert ".pth" in made.stdout
    subprocess.run(["bash", "-n"], input=made.stdout, text=True, check=True)
    assert "Zoë" not in made.stdout


@pytest.mark.slow
def test_of_two_repros_at_once_one_may_be_killed(workspace: Workspace, tmp_path: Path) -> None:
    """The other's results stand, and the next `dvc repro` completes the lock."""
    workspace.set(train__epochs=6)
    workspace.run("dvc", "repro", "split")
    reference = Workspace(tmp_path / "reference")
    shutil.copytree(workspace.path, reference.path)
    reference.run("dvc", "repro")

    def start(run: str) -> subprocess.Popen[bytes]:
        targets = [f"{stage}@{run}" for stage in CHAIN]
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item"]
        return subprocess.Popen(
            [*command, *targets],
            cwd=workspace.path,
            env=workspace.environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    killed, other = start("main"), start("bn")
    scratch = workspace.path / ".scratch"
    while not list(scratch.glob("main-*/state")):
        assert killed.poll() is None
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert other.wait(300) == 0
    lock = yaml.safe_load((workspace.path / "dvc.lock").read_text())
    assert {"train@bn", "evaluate@bn", "features@bn"} <= set(lock["stages"])
    assert "train@main" not in lock["stages"]
    expected = outputs(reference)
    found = outputs(workspace)
    assert found.items() <= expected.items()

    ran = workspace.run("dvc", "repro").stdout
    assert "main: going on after epoch " in ran
    assert "train@bn' didn't change" in ran
    assert outputs(workspace) == expected
    assert "up to date" in workspace.run("dvc", "status").stdout


@pytest.mark.slow
def test_a_fleet_shares_the_work_and_trains_nothing_twice(
    finished: Workspace, tmp_path: Path
) -> None:
    """Three clones and one remote: one prepares the data, two train at once, the first plots."""
    hub, remote = tmp_path / "hub.git", tmp_path / "remote"
    seed = clone(finished.path, tmp_path / "seed")
    seed.run("git", "rm", "--quiet", "-r", "dvc.lock", "results")
    seed.run("git", "commit", "--quiet", "-m", "nothing is trained")
    subprocess.run(["git", "clone", "--quiet", "--bare", str(seed.path), str(hub)], check=True)

    first = clone(hub, tmp_path / "first", remote)
    first.run("dvc", "repro", "split")
    share(first)

    workers = {run: clone(hub, tmp_path / run, remote) for run in ("main", "gn")}
    for worker in workers.values():
        worker.run("dvc", "repro", "split")  # the images are not on the remote
    processes = {
        run: subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "--pull", "--allow-missing",
             *(f"{stage}@{run}" for stage in CHAIN)],
            cwd=worker.path, env=worker.environment, stdout=subprocess.PIPE, text=True,
        )
        for run, worker in workers.items()
    }  # fmt: skip
    for run, process in processes.items():
        ran, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert [s for s in stages_run(ran) if s.startswith("train@")] == [f"train@{run}"]
    for worker in workers.values():
        share(worker)

    first.run("git", "pull", "--quiet", "--rebase")
    ran = first.run("dvc", "repro", "--pull", "--allow-missing").stdout
    assert stages_run(ran) == ["plots"]
    assert outputs(first) == outputs(finished)


def share(worker: Workspace) -> None:
    """What a machine of a fleet does when its targets are done."""
    worker.run("dvc", "push")
    worker.run("git", "add", "dvc.lock")
    worker.run("git", "commit", "--quiet", "-m", "trained")
    worker.run("git", "pull", "--quiet", "--rebase")
    worker.run("git", "push", "--quiet")


def lock(**stages: Any) -> dict[str, Any]:
    return {"schema": "2.0", "stages": stages}


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        (lock(), lock(a=1), lock(b=2), lock(a=1, b=2)),
        (lock(a=1, b=1), lock(a=2, b=1), lock(a=1, b=2), lock(a=2, b=2)),
        (lock(a=1), lock(a=2), lock(a=2), lock(a=2)),
        (lock(a=1, b=1), lock(b=1), lock(a=1, b=1, c=1), lock(b=1, c=1)),
        (None, lock(a=1), lock(b=2), lock(a=1, b=2)),
    ],
    ids=["both add", "both change", "the same change", "one removes", "both made the file"],
)
def test_locks_merge_stage_by_stage(
    base: object, ours: object, theirs: object, merged: object, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("base", "ours", "theirs")]
    for path, content in zip(paths, (base, ours, theirs), strict=True):
        path.write_text(yaml.safe_dump(content) if content else "")
    lockfile.merge(*paths)
    assert yaml.safe_load(paths[1].read_text()) == merged


def test_a_stage_that_both_changed_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("base", "ours", "theirs")]
    for path, value in zip(paths, (1, 2, 3), strict=True):
        path.write_text(yaml.safe_dump(lock(train=value)))
    before = paths[1].read_bytes()
    with pytest.raises(NormlabError, match="both sides changed the stage train; take one"):
        lockfile.merge(*paths)
    assert paths[1].read_bytes() == before
    paths[2].write_text("<<<<<<< a conflict")
    with pytest.raises(NormlabError, match=r"is no dvc\.lock"):
        lockfile.merge(*paths)
