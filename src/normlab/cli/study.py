"""The whole pipeline with its runs side by side, each by a `dvc repro` of its own.

DVC itself runs stages one after the other. It does allow several `dvc repro` at once, each on
other targets; this module starts them, shares cores and GPUs out between them, shows how far they
all are, and ends them all when it is told to stop. dvc.lock ends as one `dvc repro` would have left
it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from queue import SimpleQueue

import joblib
import psutil

from normlab.config import params, pipeline
from normlab.config.paths import RESULTS
from normlab.report.results import show_summary
from normlab.utils.errors import NormlabError
from normlab.utils.progress import EpochLine, Row, bars, is_terminal

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 8  #: from a signal to SIGKILL; `docker stop` waits for 10 s
POLL_S = 0.2
JOBS_ON_CPU = 2  #: trainings side by side; on a GPU one alone is faster
DATA = ("download", "split")  #: stages that all trainings follow
STAGES = ("train", "evaluate", "features")  #: of each run, in their order


def run(jobs: int | None, root: Path | str = ".") -> None:
    """Bring the pipeline in the repository `root` up to date, `jobs` trainings at a time.

    By default one per GPU, each on the next GPU that becomes free, or JOBS_ON_CPU. A training that
    itself takes several devices has all of them.

    Raises `NormlabError` naming those that failed, after the others have finished; and when one
    of SIGNALS came, after all processes have ended. Trainings keep their state then.
    """
    root = Path(root)
    require_git(root)
    config = params.load(root / "params.yaml")
    targets = trainings(config, root)
    stale = stale_stages(root)
    if not stale:
        print("everything is up to date")
        show_summary(root / RESULTS)
        return
    new_data = not stale.isdisjoint(DATA)
    # --single-item: a stage that another `dvc repro` is reading the outputs of cannot even be
    # checked, DVC's lock on them refuses; the stages above are done already.
    repros = [
        Repro(name, ["--single-item", *stages], root)
        for name, stages in targets.items()
        if new_data or not stale.isdisjoint(stages)
    ]
    with caught_signals() as caught:
        if new_data:
            finish([Repro("data", ["split"], root)], [{}], Board(), caught)
        with Board([Row(r.name, config.train.epochs, note="waiting") for r in repros]) as board:
            finish(repros, shares(jobs, len(repros), config.compute.devices), board, caught)
        finish([Repro("plots", [], root)], [{}], None, caught)
    show_summary(root / RESULTS)


def shares(jobs: int | None, trainings: int, devices: int) -> list[dict[str, str]]:
    """For each training that runs at a time, the variables that give it its GPU and cores."""
    gpu_ids = gpus() if devices == 1 else []
    jobs = jobs or (1 if devices > 1 else len(gpu_ids) or JOBS_ON_CPU)
    threads = max(1, joblib.cpu_count() // (max(1, min(jobs, trainings)) * devices))
    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    if not gpu_ids:
        return [share] * jobs
    return [{**share, "CUDA_VISIBLE_DEVICES": gpu} for gpu in islice(cycle(gpu_ids), jobs)]


def require_git(root: Path) -> None:
    """Raise `NormlabError` where DVC refuses to work: outside of Git, unless it is set not to."""
    whole = root.resolve()
    if any((place / ".git").exists() for place in (whole, *whole.parents)):
        return
    from dvc.config import Config

    if not Config(str(root / ".dvc"))["core"].get("no_scm"):
        raise NormlabError(
            "this folder is not in a Git repository, which DVC needs: run `git init`, or clone the "
            "project; `make demo` works without Git"
        )


def stale_stages(root: Path) -> set[str]:
    """The stages that DVC would run, but for those that only follow from others."""
    done = subprocess.run([*DVC, "status", "--json"], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise NormlabError(f"dvc status: {reason(done.stderr.splitlines())}")
    return set(json.loads(done.stdout))


def reason(lines: Sequence[str]) -> str:
    """That of `lines` which says why DVC failed: the stage's own error, DVC's, or the last one."""
    for start in ("error: ", "ERROR: "):
        if found := [line for line in lines if line.startswith(start)]:
            return found[-1].removeprefix(start)
    return lines[-1] if lines else "no output"


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


def trainings(config: params.Params, root: Path) -> dict[str, list[str]]:
    """The stages of each training by the name that it prints, in the order to start them.

    The study comes first, then its repetitions, seed by seed, then other batch sizes; within those
    the small batches: they take longest, and should not start last.
    """
    values = config.model_dump()
    found = []
    for name, run in pipeline.runs(root / "dvc.yaml").items():
        size = int(pipeline.resolve(run["batch_size"], values))
        found.append((-1, size, name, [f"{stage}@{name}" for stage in STAGES]))
    seeds = [*config.repeat.seeds, config.seed]  # with which other batch sizes are trained
    for (_, size, seed), stage in pipeline.repetitions(values, root / "dvc.yaml").items():
        found.append((seeds.index(seed), size, stage.partition("@")[2], [stage]))
    return {name: stages for *_, name, stages in sorted(found, key=lambda each: each[:2])}


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """The signals of SIGNALS that have come; those that are ignored, as under `nohup`, stay so."""
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: caught.append(number))
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(
    repros: Sequence["Repro"],
    shares: Sequence[Mapping[str, str]],
    board: "Board | None",
    caught: list[int],
) -> None:
    """Run `repros` to their end, or until a signal is `caught`.

    As many run at a time as there are `shares`: environment variables, which one that starts takes
    over from one that has ended. Raises `NormlabError` for those that failed, and for a signal.
    """
    free: SimpleQueue[Mapping[str, str]] = SimpleQueue()
    for share in shares:
        free.put(share)

    def work(repro: Repro) -> bool:
        share = free.get()
        try:
            return repro.finish(board, share)
        finally:
            free.put(share)

    with ThreadPoolExecutor(len(shares)) as pool:
        futures = [pool.submit(work, repro) for repro in repros]
        while wait(futures, POLL_S).not_done:
            # A future has an exception where its output cannot be shown: the terminal is closed.
            if caught or any(future.done() and future.exception() for future in futures):
                # The last first: those that wait must not take the place of one that ends.
                for repro in reversed(repros):
                    repro.stop(at_once=caught.count(signal.SIGINT) > 1)
    if caught:
        name = signal.Signals(caught[0]).name
        raise NormlabError(f"stopped by {name}; the same command resumes it")
    failed = [r for r, future in zip(repros, futures, strict=True) if not future.result()]
    if failed:
        names = ", ".join(repro.name for repro in failed)
        raise NormlabError(
            f"{len(failed)} of {len(repros)} failed: {names}; {failed[0].name}: "
            f"{reason(failed[0].tail)}"
        )


class Repro:
    """One `dvc repro` of some targets, all if none are named."""

    def __init__(self, name: str, targets: Sequence[str], root: Path) -> None:
        self.name, self._targets, self._root = name, targets, root
        self._process: subprocess.Popen[str] | None = None
        self.tail: deque[str] = deque(maxlen=40)  #: the last lines of its output
        self._ran = False  # any stage
        self._killed_at: float | None = None  # once it is to stop, by the monotonic clock
        self._told: set[psutil.Process] = set()  # to end

    def finish(self, board: "Board | None", environment: Mapping[str, str]) -> bool:
        """Run it to its end, its output on a `board` if any; returns whether it succeeded.

        `environment`: variables that it gets in addition to this process's.
        """
        if self._killed_at:
            return False
        # DVC runs stages in SHELL, which is nologin where a service starts this. They are found in
        # the folder where Python starts, unless PYTHONSAFEPATH is set.
        stages = {"SHELL": "/bin/sh", "PYTHONSAFEPATH": ""}
        # A session of its own: what the terminal sends to all, as on Ctrl-C, it gets by `stop`.
        # When this process is killed, the stage ends at its next line, for which there is no
        # reader then, and DVC with it.
        with subprocess.Popen(
            [*DVC, "repro", *self._targets],
            cwd=self._root,
            env={**os.environ, **stages, **environment},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as self._process:
            assert self._process.stdout  # it is a pipe
            for line in self._process.stdout:
                self._ran |= line.startswith("Running stage")
                if line.strip() and not self._killed_at:
                    self.tail.append(line.strip())
                    if board:
                        board.show(self.name, line.rstrip())
        if self._killed_at:
            return False
        failed = self._process.returncode != 0
        if board:
            done = "finished" if self._ran else "up to date"
            board.end(self.name, f"failed: {reason(self.tail)}" if failed else done)
        return not failed

    def stop(self, at_once: bool) -> None:
        """Stop it; to be called until `finish` returns.

        Only DVC's stage gets SIGTERM. DVC then exits by itself: killed at the wrong moment, it
        would leave half a dvc.lock. After GRACE_S, or `at_once`, all are killed.
        """
        now = time.monotonic()
        self._killed_at = self._killed_at or now + GRACE_S
        if not self._process or self._process.poll() is not None:
            return
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                if child not in self._told:  # torchrun takes a second signal for a failure
                    self._told.add(child)
                    child.terminate()
        if at_once or now > self._killed_at:
            for child in self._told:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


class Board:
    """Shows what runs print: in a terminal as bars, with other lines above, else line by line.

    Without rows, as for a single `dvc repro`, always line by line.
    """

    #: what DVC says about its own work
    NOISE = ("> ", "Running stage", "Updating lock", "Stage '", "To track", "git add",
             "dvc config", "To enable", "Use `dvc push`", "Generating lock",
             "Data and pipelines")  # fmt: skip

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self._rows = {row.run: row for row in rows}
        self._live = bars(rows) if rows and is_terminal(sys.stdout) else None

    def __enter__(self) -> "Board":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, name: str, line: str) -> None:
        """Show `line`, which `name` printed."""
        text = line.removeprefix(f"{name}: ")
        noise = line.lstrip().startswith(self.NOISE)
        if self._live:
            row = self._rows[name]
            if line.startswith("Running stage '"):
                row.note = line.split("'")[1].partition("@")[0]
            elif told := EpochLine.parse(line):
                row.note = ""
                row.epoch(told)
            elif text != line:
                row.note = text
            elif not noise:
                self._live.console.print(f"{name}: {line}", markup=False)
        elif not noise:
            print(f"{name}: {text}\n", end="", flush=True)  # at once: others print, too

    def end(self, name: str, outcome: str) -> None:
        """Show how `name` ended."""
        self.show(name, f"{name}: {outcome}")
        if name in self._rows:
            self._rows[name].ended = True
