"""What a user reads when something is wrong outside this code: one line that fits, or nothing."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from normlab.utils import files
from normlab.utils.errors import NormlabError, run_app


def error_of(app: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that `run_app` leaves of what `app` raises."""
    with pytest.raises(SystemExit) as left:
        run_app(app)
    assert left.value.code == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line.removeprefix("error: ").rstrip("\n")


def raises(error: Exception) -> Callable[[], None]:
    def app() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOENT, "; check the path, and run from the repository's root"),
        (errno.ENOSPC, "; free some space on its disk"),
        (errno.EDQUOT, "; free some of your quota on its disk"),
        (errno.EACCES, "; check the permissions there"),
        (errno.EROFS, "; its disk is read-only; use another"),
        (errno.ENOTDIR, "; a file is where a folder is needed; move it away"),
        (errno.EEXIST, "; it exists already; move it away"),
        (errno.ELOOP, ""),
    ],
)
def test_an_error_of_the_system_names_the_file_and_fits(
    number: int, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = raises(OSError(number, os.strerror(number), "data/x"))
    assert error_of(app, capsys) == f"data/x: {os.strerror(number)}{advice}"


def test_another_error_is_told_as_it_is_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for told, line in (
        (OSError("the device\nis gone"), "the device is gone"),
        (NormlabError("norm = 3:\n  must be one of bn, ln"), "norm = 3: must be one of bn, ln"),
    ):
        assert error_of(raises(told), capsys) == line


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_app(lambda: 1 / 0)


def test_on_a_full_disk_the_file_is_named_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system names no file then."""
    fail = raises(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    monkeypatch.setattr("os.fsync", lambda _: fail())
    path = tmp_path / "results.csv"
    path.write_text("old")
    line = error_of(lambda: files.write_text(path, "new"), capsys)
    assert line == f"{path}: No space left on device; free some space on its disk"
    assert [place.read_text() for place in tmp_path.iterdir()] == ["old"]


def test_the_temporary_file_is_not_what_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder/x").mkdir(parents=True)

    def app() -> None:
        with files.atomic(tmp_path / "file") as temporary:
            temporary.mkdir()

    assert error_of(app, capsys).startswith(f"{tmp_path}/file: File exists; ")


@pytest.mark.parametrize("link", [False, True])
def test_a_file_never_replaces_a_folder(link: bool, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    files.write_text(folder / "thesis", "years of work")
    path = folder
    if link:
        path = tmp_path / "link"
        path.symlink_to(folder)
    with pytest.raises(IsADirectoryError) as raised:
        files.write_text(path, "new")
    assert raised.value.filename == str(path)
    assert [file.name for file in folder.iterdir()] == ["thesis"]


def test_a_folder_never_replaces_a_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "file", "kept")
    with pytest.raises(NotADirectoryError), files.atomic_folder(tmp_path / "file"):
        raise AssertionError("no work before that is known")
    assert (tmp_path / "file").read_text() == "kept"


def test_where_no_file_can_be_made_it_is_said_before_the_work(tmp_path: Path) -> None:
    files.write_text(tmp_path / "file", "kept")
    with pytest.raises(OSError), files.atomic(tmp_path / "file/x"):
        raise AssertionError("no work before that is known")


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        files.write_csv(pipe, [{"a": 1}], ("a",))
        assert reader.communicate()[0] == "a\n1\n"
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]


def test_a_new_file_has_the_permissions_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.touch(0o600)
    files.write_text(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)


def test_a_csv_keeps_names_of_any_characters(tmp_path: Path) -> None:
    rows = [{"file": name} for name in ("é.png", "猫.png", os.fsdecode(b"\xff.png"))]
    files.write_csv(tmp_path / "x.csv", rows, ("file",))
    assert files.read_csv(tmp_path / "x.csv") == rows
    assert b"\n\xff.png\n" in (tmp_path / "x.csv").read_bytes()


PRINTS = """
from normlab.utils.errors import NormlabError, run_command

def main(lines: int, wrong: bool = False):
    for _ in range(lines):
        print("é 猫 \\udcff")
    if wrong:
        raise NormlabError("é: wrong")

run_command(main)
"""


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in bash; `$PRINTS` is a Python that runs the program above."""
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, errors="surrogateescape",
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PRINTS": PRINTS, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"PYTHONIOENCODING": "ascii"}, r"\xe9 \u732b \udcff"),
        ({"PYTHONIOENCODING": "latin-1"}, "\udce9 \\u732b \\udcff"),
        ({"PYTHONIOENCODING": "utf-8"}, "é 猫 \\udcff"),
    ],
)
def test_characters_that_cannot_be_shown_are_escaped(
    environment: dict[str, str], expected: str
) -> None:
    done = shell(f'{sys.executable} -c "$PRINTS" 1', **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{expected}\n", "")


@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_causes_no_message(lines: int, unbuffered: str) -> None:
    """Whether the output is written at once, by and by, or at the end."""
    done = shell(f'{sys.executable} -c "$PRINTS" {lines} | true', PYTHONUNBUFFERED=unbuffered)
    assert done.stderr == ""


def test_an_error_is_told_though_nobody_reads_the_output() -> None:
    done = shell(f'{sys.executable} -c "$PRINTS" 1 --wrong | true', PYTHONUNBUFFERED="")
    assert done.stderr == "error: é: wrong\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_an_error(unbuffered: str) -> None:
    done = shell(f'{sys.executable} -c "$PRINTS" 1 >/dev/full', PYTHONUNBUFFERED=unbuffered)
    assert done.stderr == "error: No space left on device; free some space on its disk\n"
    assert done.returncode == 1
