"""Progress of long work: a bar in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


def track(
    items: Iterable[T],
    description: str,
    total: int | None = None,
    size: Callable[[T], int] = lambda item: 1,
) -> Iterator[T]:
    """Yield `items`, showing how many (by `size`) of `total` are done: a bar in a terminal."""
    if not sys.stderr.isatty():
        start, done = time.monotonic(), 0
        for item in items:
            yield item
            done += size(item)
        print(f"{description}: {done:,} in {time.monotonic() - start:.1f} s", file=sys.stderr)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task, size(item))


class EpochProgress:
    """Progress of a training: call `step` after each batch, `epoch` after each epoch."""

    def step(self) -> None: ...

    def epoch(self, line: str) -> None:
        print(line, flush=True)


@contextmanager
def epochs(name: str, first: int, last: int, steps: int) -> Iterator[EpochProgress]:
    """Show the training `name`, epochs `first` to `last` of `steps` batches each.

    In a terminal: a bar with epoch, validation accuracy and time left. Elsewhere: one plain line
    an epoch, flushed, so that a log file can be followed.
    """
    if not sys.stdout.isatty():
        yield EpochProgress()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        total = progress.add_task(f"{name}: steps", total=(last - first + 1) * steps, note="")

        class Bar(EpochProgress):
            def step(self) -> None:
                progress.advance(total)

            def epoch(self, line: str) -> None:
                progress.update(total, note=line.split("epoch ", 1)[-1])

        yield Bar()
