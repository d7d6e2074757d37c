"""Files that are either whole or absent."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from normlab.utils.errors import NormlabError


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary file next to `path`; rename it to `path` when the block succeeds.

    When the block fails, the temporary file is removed, and what was at `path` is untouched. The
    permissions of a replaced file are kept; a pipe or a device is yielded itself, to be written
    to. Raises `OSError` before the block where no file can be made, as for a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        yield path
        return
    with _temporary(path) as temporary:
        temporary.touch()
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave the new name on an empty file
        if path.is_file() and not path.is_symlink():
            shutil.copymode(path, temporary)
        temporary.replace(path)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder, which becomes `path` when the block succeeds.

    It replaces an existing folder and all its contents: `path` is one of the program's own, never
    one that a user chose. A link to a folder stays. Raises `OSError` as `atomic` does.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    with _temporary(path) as temporary:
        temporary.mkdir()
        yield temporary
        old = temporary.with_suffix(".old")
        if path.exists():  # moved first: whatever fails, one of the two is whole
            path.rename(old)
        temporary.rename(path)
        _remove(old)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A path next to `path`, where nothing is before and after the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """Write UTF-8; in it, names of files that are not keep their bytes."""
    write_bytes(path, content.encode(errors="surrogateescape"))


def write_json(path: Path | str, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def csv_bytes(rows: Sequence[Mapping[str, Any]], fields: Sequence[str] = ()) -> bytes:
    """`rows` as CSV; floats keep every digit they need. Without `fields` the first row names them.

    The text is UTF-8; file names that are not keep their bytes.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fields or tuple(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")


def write_csv(
    path: Path | str, rows: Sequence[Mapping[str, Any]], fields: Sequence[str] = ()
) -> None:
    """Write `rows` to `path` as `csv_bytes`."""
    write_bytes(path, csv_bytes(rows, fields))


def append_csv(path: Path | str, row: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Add `row` to what `write_csv` wrote, in place, so that `tail -f` shows it."""
    with Path(path).open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, fields, lineterminator="\n").writerow(row)


def read_yaml(path: Path | str) -> Any:
    """The content of a YAML file as DVC reads it: by YAML 1.2, where 010 is ten and 1e-3 a number.

    Raises `NormlabError` for a file that is not YAML, or that gives one key twice.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise NormlabError(f"{path}: is not YAML: {place}{error.problem}") from None
    except (
        YAMLError,
        ValueError,
        IndexError,
        RecursionError,
    ) as error:  # 2020-13-45, [[[[..., \xff
        raise NormlabError(f"{path}: is not YAML: {error}") from None


def read_csv(path: Path | str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def sha256(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
