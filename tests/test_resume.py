"""The folder of a training's state: one training holds it, and only its own is removed."""

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from normlab.config.paths import SCRATCH, scratch_root
from normlab.training import resume
from normlab.training.resume import Scratch
from normlab.utils.errors import NormlabError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user named."""
    monkeypatch.setenv("NORMLAB_SCRATCH", str(tmp_path / "mine"))
    return tmp_path / "mine"


def test_a_second_training_of_the_same_run_works_beside_the_first() -> None:
    with Scratch("bn", "key") as first, Scratch("bn", "key") as second:
        assert first.path.name == "bn-key"
        assert second.path.name == "bn-key-2"
    with Scratch("bn", "key") as third:
        assert third.path == first.path


def test_the_folder_that_the_user_named_stays(root: Path) -> None:
    with Scratch("bn", "key") as scratch:
        scratch.save({"epoch": 1})
        scratch.remove()
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_one_line_with_advice(
    number: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(NormlabError) as error, Scratch("bn", "key"):
        pass
    assert str(error.value) == (
        f"{root}/bn-key/lock: cannot be locked ({os.strerror(number)}), as on some network file "
        "systems; set NORMLAB_SCRATCH to a folder on a local disk"
    )


def test_states_are_kept_in_the_repository_also_by_experiments_in_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc exp run --temp` deletes its copy when it has been interrupted."""
    monkeypatch.delenv(SCRATCH, raising=False)
    for name in ("", ".dvc/tmp/exps/tmpabc", ".dvc/tmp/exps/standalone/tmpabc"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        assert scratch_root() == tmp_path / ".scratch"
    monkeypatch.setenv(SCRATCH, "/elsewhere")
    assert scratch_root() == Path("/elsewhere")


def test_a_folder_that_is_removed_before_its_lock_is_made_is_made_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, folder = Path.open, root / "bn-key"

    def late(path: Path, mode: str) -> object:
        monkeypatch.setattr(Path, "open", real)
        folder.rmdir()  # by a holder that has finished
        return path.open(mode)

    monkeypatch.setattr(Path, "open", late)
    with resume.lock(folder):
        assert (folder / "lock").exists()


@pytest.mark.parametrize("another", [False, True])
def test_the_lock_of_a_folder_that_was_removed_meanwhile_is_none(
    another: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder finished between opening and locking, and `another` has made the folder anew."""
    flock, folder = fcntl.flock, root / "bn-key"
    made: list[object] = []

    def late(file: object, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        shutil.rmtree(folder)
        if another:
            made.append(resume.lock(folder))
        flock(file, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", late)
    with Scratch("bn", "key") as scratch:
        assert scratch.path == (root / "bn-key-2" if another else folder)
        assert (scratch.path / "lock").exists()
