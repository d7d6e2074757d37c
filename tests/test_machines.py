"""More than one clone, more than one process: the same bytes, one dvc.lock, nothing twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Workspace, clone, merge_driver, outputs, stages_run
from dvc.utils.serialize import dumps_yaml

from normlab.cli import lockfile
from normlab.utils import files
from normlab.utils.errors import NormlabError

CHAIN = ("train", "evaluate", "features")


def test_git_leaves_line_ends_as_dvc_hashed_them(workspace: Workspace, tmp_path: Path) -> None:
    """core.autocrlf, which Git for Windows sets, would make every file another."""
    workspace.commit("all")
    other = tmp_path / "other"
    workspace.run("git", "clone", "--quiet", "-c", "core.autocrlf=true", ".", str(other))
    for name in ("params.yaml", "src/normlab/training/loop.py", "data/repeats/README.md"):
        assert (other / name).read_bytes() == (workspace.path / name).read_bytes()


@pytest.mark.slow
def test_figures_do_not_depend_on_the_users_settings(restored: Workspace, tmp_path: Path) -> None:
    """A notebook's backend that is not installed here, TeX that is not, another size of text."""
    before = {p.name: p.read_bytes() for p in (restored.path / "results/figures").iterdir()}
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\n")
    other = Workspace(restored.path)
    other.environment |= {
        "MPLBACKEND": "module://not_installed.backend_inline", "MPLCONFIGDIR": str(tmp_path)
    }  # fmt: skip
    other.run("python", "-m", "stages.plots")
    after = {p.name: p.read_bytes() for p in (restored.path / "results/figures").iterdir()}
    assert after == before


@pytest.mark.slow
def test_of_two_repros_at_once_one_may_be_killed(with_data: Workspace, tmp_path: Path) -> None:
    """The other's results stand, and the next `dvc repro` completes the lock."""
    workspace = with_data
    workspace.set(train__epochs=6)
    reference = workspace.copy(tmp_path / "reference")
    reference.run("dvc", "repro", *(f"{stage}@{run}" for run in ("main", "bn") for stage in CHAIN))

    def start(run: str) -> subprocess.Popen[bytes]:
        targets = [f"{stage}@{run}" for stage in CHAIN]
        return subprocess.Popen(
            ["dvc", "--wait-for-lock", "repro", "--single-item", *targets], start_new_session=True,
            cwd=workspace.path, env=workspace.environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip

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
    assert outputs(workspace).items() <= expected.items()

    ran = workspace.run("dvc", "repro").stdout
    assert "main: resumes after epoch " in ran
    assert "train@bn' didn't change" in ran
    assert outputs(workspace).items() >= expected.items()
    assert "up to date" in workspace.run("dvc", "status").stdout


@pytest.mark.slow
def test_a_fleet_shares_the_work_and_trains_nothing_twice(
    finished: Workspace, tmp_path: Path
) -> None:
    """Three clones and one remote: one prepares the data, two train at once, the first plots."""
    hub, remote = tmp_path / "hub.git", tmp_path / "remote"
    seed = clone(finished.path, tmp_path / "seed")
    seed.run("git", "rm", "--quiet", "-r", "dvc.lock", "results")
    seed.set(repeat__seeds=[2])
    seed.run("git", "commit", "--quiet", "-am", "nothing is trained")
    subprocess.run(["git", "clone", "--quiet", "--bare", str(seed.path), str(hub)], check=True)

    first = clone(hub, tmp_path / "first", remote)
    first.run("dvc", "repro", "split")
    share(first)

    repetitions = {"main": "repeat@bn-128-2", "gn": "repeat-small@bn-8-2"}
    workers = {run: clone(hub, tmp_path / run, remote) for run in repetitions}
    for worker in workers.values():
        worker.run("dvc", "repro", "split")  # the images are not on the remote
    targets = {
        run: [*(f"{stage}@{run}" for stage in CHAIN), repetition]
        for run, repetition in repetitions.items()
    }
    processes = {
        run: subprocess.Popen(
            ["dvc", "repro", "--pull", "--allow-missing", *targets[run]],
            cwd=worker.path, env=worker.environment, stdout=subprocess.PIPE, text=True,
        )
        for run, worker in workers.items()
    }  # fmt: skip
    for run, process in processes.items():
        ran, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert sorted(stages_run(ran)) == sorted(targets[run])
    for worker in workers.values():
        share(worker)

    first.run("git", "pull", "--quiet", "--rebase")
    ran = first.run("dvc", "repro", "--pull", "--allow-missing").stdout
    assert stages_run(ran) == ["plots"]
    made, expected = outputs(first), outputs(finished)
    assert len(expected) > 10
    del made["results"], expected["results"]  # they differ by the repetitions
    for size in (8, 128):
        del made[f"data/repeats/bn-{size}-2.json"]
    assert made == expected


def share(worker: Workspace) -> None:
    """What a machine of a fleet does when its targets are done."""
    worker.run("dvc", "push")
    worker.run("git", "add", "dvc.lock", "data/repeats")
    worker.run("git", "commit", "--quiet", "-m", "trained")
    worker.run("git", "pull", "--quiet", "--rebase")
    worker.run("git", "push", "--quiet")


def lock(**stages: object) -> dict[str, object]:
    """The content of a dvc.lock; each stage has a command besides what is given."""
    return {"schema": "2.0", "stages": {n: {"cmd": "true", "md5": v} for n, v in stages.items()}}


@pytest.fixture
def locks(tmp_path: Path) -> Callable[..., list[Path]]:
    """Makes the files base, ours and theirs; of None an empty one, as where both sides add it."""

    def make(*contents: object) -> list[Path]:
        paths = [tmp_path / name for name in ("base", "ours", "theirs")]
        for path, content in zip(paths, contents, strict=True):
            path.write_text(dumps_yaml(content) if content else "")
        return paths

    return make


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        (lock(), lock(a=1), lock(b=2), lock(a=1, b=2)),
        (lock(a=1, b=1), lock(a=2, b=1), lock(a=1, b=2), lock(a=2, b=2)),
        (lock(a=1), lock(a=2), lock(a=2), lock(a=2)),
        (lock(a=1, b=1), lock(b=1), lock(a=1, b=1, c=1), lock(b=1, c=1)),
        (None, lock(a=1), lock(b=2), lock(a=1, b=2)),
        (lock(), lock(a="12e4567"), lock(b="on"), lock(a="12e4567", b="on")),
    ],
    ids=["both add", "both change", "the same change", "one removes", "both made the file",
         "texts that YAML 1.1 or 1.2 takes for others"],
)  # fmt: skip
def test_locks_merge_stage_by_stage(
    base: object, ours: object, theirs: object, merged: object, locks: Callable[..., list[Path]]
) -> None:
    paths = locks(base, ours, theirs)
    lockfile.merge(*paths)
    assert paths[1].read_text() == dumps_yaml(merged)  # as DVC writes it


def test_what_is_no_lock_is_refused_and_nothing_is_written(
    locks: Callable[..., list[Path]],
) -> None:
    paths = locks(lock(a=1), lock(a=1), lock(a=2))
    for content in ("<<<<<<< a conflict", "a", "3", "stages: {}", "schema: '3.0'\nstages: {}"):
        paths[2].write_text(content)
        before = paths[1].read_bytes()
        with pytest.raises(NormlabError, match=r"is not a dvc\.lock|is not YAML"):
            lockfile.merge(*paths)
        assert paths[1].read_bytes() == before


@pytest.fixture
def merge(workspace: Workspace) -> Callable[..., tuple[int, str]]:
    """Merges branches with these dvc.lock in Git; returns the exit code and what was printed."""

    def run(python: str, base: object, ours: object, theirs: object) -> tuple[int, str]:
        workspace.run("git", "config", "merge.dvc-lock.driver", merge_driver(python))
        for content, branch in ((base, "base"), (ours, "ours"), (theirs, "theirs")):
            start = [] if branch == "base" else ["base"]
            workspace.run("git", "checkout", "--quiet", "-b", branch, *start)
            (workspace.path / "dvc.lock").write_text(dumps_yaml(content))
            workspace.commit(branch)
        workspace.run("git", "checkout", "--quiet", "ours")
        done = workspace.run("git", "merge", "--quiet", "theirs", check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_git_merges_locks_by_stages(
    workspace: Workspace, merge: Callable[..., tuple[int, str]]
) -> None:
    code, printed = merge(sys.executable, lock(a=1, b=1), lock(a=1, b=2), lock(a=2, b=1))
    assert (code, printed) == (0, "Auto-merging dvc.lock\n")
    assert files.read_yaml(workspace.path / "dvc.lock") == lock(a=2, b=2)


def test_without_its_python_a_merge_is_an_open_conflict(
    workspace: Workspace, merge: Callable[..., tuple[int, str]]
) -> None:
    """As after `git clean -xfd`. Once .venv is there again, Git can try the same merge again."""
    code, printed = merge(".venv/bin/python", lock(a=1, b=1), lock(a=1, b=2), lock(a=2, b=1))
    text = (workspace.path / "dvc.lock").read_text()
    assert code == 1
    assert "CONFLICT" in printed
    assert "<<<<<<< ours" in text and ">>>>>>> theirs" in text
    workspace.run("git", "config", "merge.dvc-lock.driver", merge_driver(sys.executable))
    workspace.run("git", "checkout", "--merge", "dvc.lock")
    assert files.read_yaml(workspace.path / "dvc.lock") == lock(a=2, b=2)


def test_only_a_stage_that_both_changed_is_marked(
    workspace: Workspace, merge: Callable[..., tuple[int, str]]
) -> None:
    workspace.run("git", "config", "merge.conflictStyle", "diff3")  # which would mark all
    code, printed = merge(sys.executable, lock(a=1, b=1), lock(a=2, b=1), lock(a=3, b=2))
    assert code == 1
    assert "error: dvc.lock: both sides changed a; choose" in printed
    ours, theirs = "<<<<<<< ours\n    md5: 2\n", "=======\n    md5: 3\n>>>>>>> theirs\n"
    path = workspace.path / "dvc.lock"
    text = path.read_text()
    assert text.count("<<<<<<<") == 1
    for taken, dropped, value in ((ours, theirs, 2), (theirs, ours, 3)):
        lines = text.replace(dropped, "").splitlines(keepends=True)
        path.write_text("".join(line for line in lines if line[0] not in "<=>"))
        assert taken in text
        assert files.read_yaml(path) == lock(a=value, b=2)
