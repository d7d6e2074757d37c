"""Progress of long work: bars in a terminal, plain lines elsewhere."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from statistics import mean
from typing import IO, TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.live import Live

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
    """Yield `items`, showing how many (by `size`) of `total` are done.

    In a terminal as a bar, elsewhere as one line at the end.
    """
    from rich.console import Console
    from rich.progress import Progress

    plain = not is_terminal(sys.stderr)
    start, done = time.monotonic(), 0
    with Progress(console=Console(stderr=True), transient=True, disable=plain) as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            done += size(item)
            progress.update(task, completed=done)
    if plain:
        print(f"{description}: {done:,} in {time.monotonic() - start:.1f} s", file=sys.stderr)


class EpochProgress:
    """Progress of a training: call `step` after each batch, `epoch` after each epoch."""

    def step(self) -> None: ...

    def epoch(self, line: EpochLine) -> None:
        print(line, flush=True)


class Row(EpochProgress):
    """How far one training is, as `bars` shows it."""

    def __init__(
        self, run: str, epochs: int, done: float = 0, steps: int = 1, note: str = ""
    ) -> None:
        """`done` of `epochs`, each of `steps`, were done before; a `note` hides the time left."""
        self.run, self.epochs, self.done, self.note = run, epochs, float(done), note
        self.accuracy: float | None = None
        self.ended = False
        self._step = 1 / steps
        self._before, self._begin = self.done, time.monotonic()
        self._newest = self._begin
        self._seconds: list[float] = []  # that epochs took

    def step(self) -> None:
        self.done, self._newest = self.done + self._step, time.monotonic()

    def epoch(self, line: EpochLine) -> None:
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


def bars(rows: Sequence[Row]) -> "Live":
    """A context in which a terminal shows `rows`: a bar, epoch, validation accuracy, time left.

    Each is one line, of which a narrow terminal shows what fits. Where there are more rows than
    lines, the first of those that have ended are left out.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)

    def table() -> Table:
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        for justify in ("left", "left", "right", "right"):
            grid.add_column(justify=justify, no_wrap=True)
        grid.add_column(ratio=1, no_wrap=True)  # the note may be long, and gives way
        width = min(20, max(4, console.width - 50))
        ended = [row for row in rows if row.ended]
        hidden = ended[: max(0, len(rows) - console.height)]
        for row in (row for row in rows if row not in hidden):
            note, left = row.note, row.seconds_left
            if not note and left is not None:
                note = f"{timedelta(seconds=round(left))} left"
            bar: ProgressBar | str = ""
            count = ""
            if row.done:
                bar = ProgressBar(total=row.epochs, completed=row.done, width=width)
                count = f"{int(row.done + 1e-6)}/{row.epochs}"  # against rounding of the last step
            accuracy = "" if row.accuracy is None else f"val {row.accuracy:.2%}"
            grid.add_row(Text(row.run), bar, count, accuracy, Text(note))
        return grid

    return Live(get_renderable=table, console=console, refresh_per_second=4)


@contextmanager
def epochs(run: str, first: int, last: int, steps: int) -> Iterator[EpochProgress]:
    """Show the training `run`, epochs `first` to `last` of `steps` batches each.

    In a terminal: a bar with epoch, validation accuracy and time left. Elsewhere: one plain line
    per epoch, flushed, so that a log file can be followed.
    """
    if not is_terminal(sys.stdout):
        yield EpochProgress()
        return
    row = Row(run, last, done=first - 1, steps=steps)
    with bars([row]):
        yield row
