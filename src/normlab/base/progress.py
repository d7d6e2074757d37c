"""Progress of long work: bars in a terminal, plain lines elsewhere."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from statistics import mean
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

    def __init__(self, run: str, epochs: int, done: float = 0, note: str = "") -> None:
        """`done` epochs of `epochs` were done before; `note` stands in place of the time left."""
        self.run, self.epochs, self.done, self.note = run, epochs, float(done), note
        self.accuracy: float | None = None
        self._before, self._begin = self.done, time.monotonic()
        self._newest = self._begin
        self._seconds: list[float] = []  # that epochs took

    def step(self, share: float) -> None:
        """`share` of an epoch is done."""
        self.done, self._newest = self.done + share, time.monotonic()

    def epoch(self, line: EpochLine) -> None:
        """An epoch is done, of which `line` tells."""
        self.done, self._newest = float(line.epoch), time.monotonic()
        self.epochs, self.accuracy = line.epochs, line.val_accuracy
        self._seconds.append(line.seconds)

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far, if all epochs are needed; None where nothing is known of it."""
        if self._seconds:
            each = mean(self._seconds)
        elif self.done > self._before:
            each = (self._newest - self._begin) / (self.done - self._before)
        else:
            return None
        return max(0.0, (self.epochs - self.done) * each - (time.monotonic() - self._newest))


class Bars:
    """Rows of trainings in a terminal: a bar, epoch, validation accuracy, time left or a note.

    Each is one line, of which a narrow terminal shows what fits.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        from rich.console import Console
        from rich.live import Live

        self.rows = {row.run: row for row in rows}
        self._console = Console(highlight=False)
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4)

    def __enter__(self) -> "Bars":
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)

    def print(self, line: str) -> None:
        """Show `line` above the bars, to stay."""
        self._console.print(line, markup=False)

    def _table(self) -> "Table":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        for justify in ("left", "left", "right", "right"):
            table.add_column(justify=justify, no_wrap=True)
        table.add_column(ratio=1, no_wrap=True)  # the note may be long, and gives way
        width = min(20, max(4, self._console.width - 50))
        for row in self.rows.values():
            note, left = row.note, row.seconds_left
            if not note and left is not None:
                note = f"{timedelta(seconds=round(left))} left"
            bar: ProgressBar | str = ""
            count = accuracy = ""
            if row.done:
                bar = ProgressBar(total=row.epochs, completed=row.done, width=width)
                count = f"{int(row.done + 1e-6)}/{row.epochs}"  # the last step may lack a rounding
            if row.accuracy is not None:
                accuracy = f"val {row.accuracy:.2%}"
            table.add_row(Text(row.run), bar, count, accuracy, Text(note))
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
    row = Row(run, last, done=first - 1)

    class Bar(EpochProgress):
        def step(self) -> None:
            row.step(1 / steps)

        def epoch(self, line: EpochLine) -> None:
            row.epoch(line)

    with Bars([row]):
        yield Bar()
