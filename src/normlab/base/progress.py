"""Progress of long work: bars in a terminal, plain lines elsewhere."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")


@dataclass(frozen=True)
class EpochLine:
    """The line that a training prints after each epoch, for people and for `make study`."""

    run: str
    epoch: int
    epochs: int
    val_accuracy: float  #: from 0 to 1; in the line in percent
    train_loss: float
    val_loss: float
    seconds: float  #: that the epoch took

    def __str__(self) -> str:
        return (
            f"{self.run}: epoch {self.epoch}/{self.epochs}  val accuracy {self.val_accuracy:.2%}  "
            f"loss {self.train_loss:.4f} train {self.val_loss:.4f} val  {self.seconds:.1f} s"
        )

    @classmethod
    def parse(cls, line: str) -> "EpochLine | None":
        """The `EpochLine` that `line` is, its numbers as rounded there; None for another line."""
        found = re.fullmatch(
            r"(\S+): epoch (\d+)/(\d+)  val accuracy (\S+)%  loss (\S+) train (\S+) val  (\S+) s",
            line,
        )
        if not found:
            return None
        run, epoch, epochs, percent, *others = found.groups()
        return cls(run, int(epoch), int(epochs), float(percent) / 100, *map(float, others))


def is_terminal(stream: IO[str]) -> bool:
    """Whether `stream` is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def track(
    items: Iterable[T],
    description: str,
    total: int | None = None,
    size: Callable[[T], int] = lambda item: 1,
) -> Iterator[T]:
    """Yield `items`, showing how many (by `size`) of `total` are done: a bar in a terminal."""
    if not is_terminal(sys.stderr):
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


class Row:
    """How far one training is."""

    def __init__(self, run: str, epochs: int, first: int | None = None, note: str = "") -> None:
        """`first`: the epoch that it begins with, now; None if it has yet to say so itself."""
        self.run, self.epochs, self.note = run, epochs, note
        self.accuracy: float | None = None
        self._first = self._done = 0.0 if first is None else first - 1.0  # epochs
        self._begin = self._newest = None if first is None else time.monotonic()

    def step(self, share: float) -> None:
        """`share` of an epoch is done."""
        self._done, self._newest = self._done + share, time.monotonic()

    def epoch(self, line: EpochLine) -> None:
        """An epoch is done, of which `line` tells."""
        now = time.monotonic()
        if self._begin is None:
            self._first, self._begin = line.epoch - 1.0, now - line.seconds
        self._done, self._newest = float(line.epoch), now
        self.epochs, self.accuracy = line.epochs, line.val_accuracy

    @property
    def done(self) -> float:
        """Epochs that are done, the newest one in part."""
        return self._done

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None where nothing is known of it."""
        if self._begin is None or self._newest is None or self._done <= self._first:
            return None
        speed = (self._done - self._first) / (self._newest - self._begin)
        since = time.monotonic() - self._newest
        return max(0.0, (self.epochs - self._done) / speed - since)


class Bars:
    """Rows of trainings in a terminal: a bar, epoch, validation accuracy, time left or a note.

    Each is one line, of which a narrow terminal shows what fits.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        from rich.console import Console
        from rich.live import Live

        self.rows = {row.run: row for row in rows}
        self._live = Live(
            get_renderable=self._table, console=Console(highlight=False), refresh_per_second=4
        )

    def __enter__(self) -> "Bars":
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)

    def print(self, line: str) -> None:
        """Show `line` above the bars, to stay."""
        self._live.console.print(line, markup=False)

    def _table(self) -> "Table":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0))
        for justify in ("left", "left", "right", "right", "left"):
            table.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
        for row in self.rows.values():
            note, left = row.note, row.seconds_left
            if not note and left is not None:
                note = f"{timedelta(seconds=round(left))} left"
            accuracy = "" if row.accuracy is None else f"val {row.accuracy:.2%}"
            bar = ProgressBar(total=row.epochs, completed=row.done, width=20)
            table.add_row(
                Text(row.run), bar, f"{int(row.done + 1e-6)}/{row.epochs}", accuracy, Text(note)
            )
        return table


class EpochProgress:
    """Progress of a training: call `step` after each batch, `epoch` after each epoch."""

    def step(self) -> None: ...

    def epoch(self, line: EpochLine) -> None:
        print(line, flush=True)


@contextmanager
def epochs(run: str, first: int, last: int, steps: int) -> Iterator[EpochProgress]:
    """Show the training `run`, epochs `first` to `last` of `steps` batches each.

    In a terminal: a bar with epoch, validation accuracy and time left. Elsewhere: one plain line
    an epoch, flushed, so that a log file can be followed.
    """
    if not is_terminal(sys.stdout):
        yield EpochProgress()
        return
    row = Row(run, last, first)

    class Bar(EpochProgress):
        def step(self) -> None:
            row.step(1 / steps)

        def epoch(self, line: EpochLine) -> None:
            row.epoch(line)

    with Bars([row]):
        yield Bar()
