"""The whole pipeline with its runs side by side, each by a `dvc repro` of its own.

DVC itself runs stages one after the other. It does allow several `dvc repro` at once, each on
other targets; this module starts them, shares the cores out between them, and shows how far they
all are. dvc.lock ends as one `dvc repro` would have left it.
"""

import os
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from rich.live import Live
from rich.table import Table

from normlab.base import params, pipeline
from normlab.base.errors import NormlabError

STAGES = ("train", "evaluate", "features")  #: of each run, in their order
DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")


def run(jobs: int, root: Path | str = ".") -> None:
    """Bring the pipeline in the repository `root` up to date, `jobs` runs at a time.

    Raises `NormlabError` naming the runs that failed; the others are finished first.
    """
    try:
        _run(jobs, Path(root))
    except KeyboardInterrupt:
        raise NormlabError("interrupted; the same command goes on where it stood") from None


def _run(jobs: int, root: Path) -> None:
    names = by_duration(root)
    if jobs < 1:
        raise NormlabError(f"jobs = {jobs}: must be at least 1")
    threads = max(1, cores() // min(jobs, len(names)))
    board = Board(names)
    preparation = Repro(["split"], root, board, "data")
    if not preparation.finish():
        raise NormlabError(f"the data could not be prepared: {preparation.reason}")
    # --single-item: a stage that another `dvc repro` is reading the outputs of cannot even be
    # checked, DVC's lock on them refuses; the stages above the runs are done already.
    started = {
        name: Repro(["--single-item", *(f"{stage}@{name}" for stage in STAGES)], root, board, name)
        for name in names
    }
    with board, ThreadPoolExecutor(jobs) as pool:
        done = {n: pool.submit(repro.finish, threads) for n, repro in started.items()}
        try:
            failed = [name for name, result in done.items() if not result.result()]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for repro in started.values():
                repro.stop()
            raise
    if failed:
        reasons = "; ".join(f"{name}: {started[name].reason}" for name in failed)
        raise NormlabError(f"{len(failed)} of {len(names)} runs failed: {reasons}")
    last = Repro([], root, board, "plots")
    if not last.finish():
        raise NormlabError(f"plots failed: {last.reason}")


def cores() -> int:
    """Cores that this process may use: a batch system can allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def by_duration(root: Path) -> list[str]:
    """The runs, those of small batches first: they take longest, and should not start last."""
    names = pipeline.runs(root / "dvc.yaml")
    table = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["train"]["foreach"]
    default = params.load(root / "params.yaml").batch_size

    def size(name: str) -> int:
        value = table[name]["batch_size"]
        return value if isinstance(value, int) else default

    return sorted(names, key=size)


class Repro:
    """One `dvc repro` of some targets (all, if none are named), its output shown on a board."""

    def __init__(self, targets: list[str], root: Path, board: "Board", name: str) -> None:
        self.targets, self.root, self.board, self.name = targets, root, board, name
        self._process: subprocess.Popen[str] | None = None
        self._tail: deque[str] = deque(maxlen=20)

    def finish(self, threads: int | None = None) -> bool:
        """Run it to its end with `threads` threads a process; returns whether it succeeded."""
        environment = dict(os.environ)
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        self._process = subprocess.Popen(
            [*DVC, "repro", *self.targets],
            cwd=self.root,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout  # it is a pipe
        for line in self._process.stdout:
            if line.strip():
                self._tail.append(line.strip())
                self.board.show(self.name, line.rstrip())
        succeeded = self._process.wait() == 0
        self.board.show(self.name, "finished" if succeeded else f"failed: {self.reason}")
        return succeeded

    @property
    def reason(self) -> str:
        """The line that says why it failed: the stage's own error, or else the last one."""
        own = [line for line in self._tail if line.startswith("error: ")]
        return (own or list(self._tail) or ["no output"])[-1].removeprefix("error: ")

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()


class Board:
    """The newest line of each run: in place in a terminal, one after the other elsewhere."""

    #: what DVC says about its own work, of no interest beside several runs' progress
    NOISE = ("Running stage", "> ", "Updating lock", "Stage '", "To track", "git add", "dvc config",
             "To enable", "Use `dvc push`", "Generating lock", "Data and pipelines")  # fmt: skip

    def __init__(self, names: list[str]) -> None:
        self._lines = dict.fromkeys(names, "waiting")
        self._lock = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> "Board":
        if sys.stdout.isatty():
            self._live = Live(get_renderable=self._table, refresh_per_second=2)
            self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.__exit__(None, None, None)
            self._live = None

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, line in self._lines.items():
            table.add_row(name, line)
        return table

    def show(self, name: str, line: str) -> None:
        if line.strip().startswith(self.NOISE):
            return
        with self._lock:
            text = line.removeprefix(f"{name}: ")
            if name in self._lines:
                self._lines[name] = text
            if not self._live:
                print(f"{name}: {text}" if name != "plots" else text, flush=True)
