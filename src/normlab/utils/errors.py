"""One kind of error for everything a user can fix, and one place that prints it."""

import errno
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: what to do about an `OSError`, by its errno
ADVICE = {
    errno.ENOENT: "check the path, and run from the repository's root",
    errno.EACCES: "check the permissions there",
    errno.EPERM: "check the permissions there",
    errno.EROFS: "its disk is read-only; use another",
    errno.ENOSPC: "free some space on its disk",
    errno.EDQUOT: "free some of your quota on its disk",
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`), or use another disk",
    errno.ENOTDIR: "a file is where a folder is needed; move it away",
    errno.EEXIST: "it exists already; move it away",
    errno.EISDIR: "a folder is where a file is needed; move it away",
    errno.EMFILE: "raise the limit on open files, `ulimit -n`",
    errno.EIO: "its disk may be failing",
}


class NormlabError(Exception):
    """Something the user can fix. Its text is one line: what is wrong, what to do next."""

    def __init__(self, line: str) -> None:
        # Reasons come from other libraries, which break their lines (YAML shows the place).
        super().__init__(" ".join(part.strip() for part in line.splitlines()))


def run_command(command: Callable[..., Any]) -> None:
    """Run `command` as a typer command; see `run_app` for what becomes of its errors."""
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)


def run_app(app: Callable[[], Any]) -> None:
    """Call `app`, a command line.

    A `NormlabError` becomes one line on stderr and exit code 1, and so does an `OSError` (disk
    full, no permission), which the user can fix as well. Anything else is a bug and keeps its
    traceback. A closed pipe (`| head -1`) is not an error, and a character that the terminal cannot
    show is shown escaped.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (NormlabError, OSError) as error:
        fail(one_line(error))
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own end
            if not isinstance(error, BrokenPipeError):
                fail(one_line(error))


def one_line(error: NormlabError | OSError) -> str:
    """What is wrong, where, and what to do about it."""
    if isinstance(error, NormlabError) or not error.errno:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    advice = f"; {ADVICE[error.errno]}" if error.errno in ADVICE else ""
    return f"{where}{os.strerror(error.errno)}{advice}"


def fail(line: str) -> None:
    """Print `line` as an error and leave with exit code 1.

    One of several processes that train together leaves the line where torchrun looks for it;
    what started them prints one for all (`normlab.compute.distributed.launch`).
    """
    line = " ".join(line.split())
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        whole = Path(f"{report}.tmp")
        whole.write_text(json.dumps({"message": line, "timestamp": int(time.time())}))
        whole.replace(report)
    else:
        print(f"error: {line}", file=sys.stderr, flush=True)
    sys.exit(1)
