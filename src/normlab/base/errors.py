"""One kind of error for everything a user can put right, and one place that prints it."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class NormlabError(Exception):
    """Something the user can put right. Its text is one line: what is wrong, what to do next."""

    def __init__(self, line: str) -> None:
        # Reasons come from other libraries, which break their lines (YAML shows the place).
        super().__init__(" ".join(part.strip() for part in line.splitlines()))


def run_command(command: Callable[..., Any]) -> None:
    """Run `command` as a typer command.

    A `NormlabError` becomes one line on stderr and exit code 1, and so does an `OSError` (disk
    full, no permission), which is the user's to put right as well. Anything else is a bug and
    keeps its traceback.
    """
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)


def run_app(app: Callable[[], Any]) -> None:
    """Call `app`; see `run_command` for what becomes of its errors."""
    try:
        app()
    except NormlabError as error:
        fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = os.strerror(error.errno) if error.errno else error
        fail(f"{where}{reason}; check that path, its permissions and the space left on its disk")


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
