"""Processes that do the same steps in turn, and a table of what came of it.

Whatever is compared takes turns, a few steps each, round after round, so that other load on the
machine affects all alike. Rates and ratios are medians over the rounds, a ratio of the rates of
each round. Each has a process of its own, as a training has: in one, they would share what
`runtime.keep_memory` keeps, and the compiler's cache.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from normlab.utils import files

Loop = Iterator[Any]  #: each `next` does a step
Group = list[Executor]  #: processes that work at once
Names = Annotated[str, typer.Option(help="comma-separated")]
Compiled = Annotated[bool, typer.Option(help="use torch.compile")]
Rounds = Annotated[int, typer.Option(min=1)]
Out = Annotated[Path | None, typer.Option(help="CSV file to write")]


_loop: Loop  #: in each process, its own


def start(make: Callable[..., Loop], *arguments: Any, processes: int = 1) -> Group:
    """Processes that do the steps of `make(*arguments)`."""
    context = multiprocessing.get_context("spawn")
    return [ProcessPoolExecutor(1, context, _prepare, (make, arguments)) for _ in range(processes)]


def _prepare(make: Callable[..., Loop], arguments: tuple[Any, ...]) -> None:
    global _loop
    _loop = make(*arguments)


def _work(count: int) -> Any:
    result = None
    for _ in range(count):
        result = next(_loop)
    synchronize()
    return result


def synchronize() -> None:
    """Wait until a GPU has done what it was asked for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def work(group: Group, count: int) -> list[Any]:
    """Do `count` steps in each process of `group`, at once; returns what their last ones give."""
    futures = [process.submit(_work, count) for process in group]
    return [future.result() for future in futures]


def seconds(function: Callable[..., object], *arguments: Any) -> float:
    """How long a call takes, what it asks of a GPU included."""
    synchronize()
    begin = time.perf_counter()
    function(*arguments)
    synchronize()
    return time.perf_counter() - begin


def rates(
    groups: Mapping[str, Group], batch_size: int, count: int, rounds: int
) -> dict[str, list[float]]:
    """Images/s of each group in every round of `count` steps, after two to warm up.

    Every second round goes backward: of two neighbours neither is always the first.
    """
    found: dict[str, list[float]] = {name: [] for name in groups}
    order = list(groups)
    for group in groups.values():
        work(group, 2)
    for _ in range(rounds):
        for name in order:
            images = len(groups[name]) * count * batch_size
            found[name].append(images / seconds(work, groups[name], count))
        order.reverse()
    return found


def ratio(rates: list[float], others: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(rates, others, strict=True)), 2)


def end(groups: Mapping[str, Group]) -> None:
    for group in groups.values():
        for process in group:
            process.shutdown()


class Table:
    """Rows that are printed, and written to the CSV file `out` if any, as they are added."""

    def __init__(self, out: Path | None) -> None:
        self._out, self._rows = out, list[dict[str, Any]]()

    def add(self, **row: Any) -> None:
        if not self._rows:
            print(*row, sep="  ")
        self._rows.append(row)
        print(*(str(row[name]).rjust(len(name)) for name in row), sep="  ", flush=True)
        if self._out:
            files.write_csv(self._out, self._rows)
