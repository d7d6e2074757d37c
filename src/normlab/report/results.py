"""What people read: the runs' results side by side, as tables.

A norm at a batch size is trained with one seed or with several. Its numbers are the mean over the
seeds and, where there are several, their standard deviation.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from normlab.config import pipeline
from normlab.config.params import Params
from normlab.config.paths import RunFiles, repeat_file
from normlab.norms.names import NORMS
from normlab.utils import files
from normlab.utils.errors import NormlabError

SETS = ("test", "val", "train")
KINDS = ("accuracy", "f1_micro", "f1_macro")
#: What tables show. The micro-F1 of single labels is the accuracy; CSV and JSON files repeat it.
COLUMNS = {
    f"{part}_{kind}": f"{part} {title}"
    for part in SETS
    for kind, title in (("accuracy", "accuracy"), ("f1_macro", "macro-F1"))
}
SHOWN = ("val_accuracy", "test_accuracy", "test_f1_macro")  #: in short tables
CURVES = ("train_error", "val_error", "train_loss", "val_loss")


@dataclass(frozen=True)
class Training:
    """One training, that is one seed."""

    epoch: int  #: whose weights were kept
    epochs: int
    diverged: bool
    scores: Mapping[str, float]  #: fractions, by names such as `test_f1_macro`
    log: Mapping[str, Sequence[float]]  #: by names such as `val_error`, a value per epoch


@dataclass(frozen=True)
class Setting:
    """A norm trained at a batch size, once per seed."""

    norm: str
    batch_size: int
    trainings: tuple[Training, ...]

    @property
    def seeds(self) -> int:
        return len(self.trainings)

    @property
    def diverged(self) -> int:
        """How many of the trainings diverged."""
        return sum(training.diverged for training in self.trainings)

    @property
    def epoch(self) -> float:
        """The best epoch, the mean over the seeds."""
        return mean(training.epoch for training in self.trainings)

    @property
    def epochs(self) -> float:
        """How many epochs were trained, the mean over the seeds."""
        return mean(training.epochs for training in self.trainings)

    @property
    def name(self) -> str:
        """The norm's name, and how many trainings diverged if any did."""
        return norm_name(self.norm, self.diverged, self.seeds)

    def samples(self, score: str) -> list[float]:
        """A score such as `test_accuracy`, of each training."""
        return [training.scores[score] for training in self.trainings]

    def score(self, score: str) -> float:
        """A score such as `test_accuracy`: the mean over the seeds."""
        return mean(self.samples(score))

    def deviation(self, score: str) -> float | None:
        """The standard deviation of a score over the seeds; None for one seed."""
        return stdev(self.samples(score)) if self.seeds > 1 else None

    def percent(self, score: str) -> str:
        """The score as text; see the function `percent`."""
        return percent(self.score(score), self.deviation(score))

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Means over the seeds of one of CURVES, and standard deviations if there are several.

        Both have a value for each epoch that all trainings have.
        """
        columns = [training.log[name] for training in self.trainings]
        values = np.array([column[: min(map(len, columns))] for column in columns])
        return values.mean(0), values.std(0, ddof=1) if self.seeds > 1 else None


@dataclass(frozen=True)
class Result(Setting):
    """All that a run left behind for people to read; its own training is the first."""

    run: str
    images: Mapping[str, int]  #: how many each of SETS has
    quantiles: dict[str, list[float]]  #: by names such as `1 %`, the lowest first; one per epoch
    predictions: list[dict[str, str]]
    reference: bool  #: whether trained at the batch size at which norms are compared

    @property
    def label(self) -> str:
        """The run's name in figures, unique even for equal norms and batch sizes."""
        return f"{self.run}: {norm_name(self.norm)}, {self.batch_size}"


@dataclass(frozen=True)
class Study:
    """Every training there is to report on."""

    runs: list[Result]
    others: Sequence[Setting] = ()  #: not part of any run: at other batch sizes

    def by_batch_size(self) -> dict[str, list[Setting]]:
        """What there is of each norm that was trained at several batch sizes, large ones first."""
        found = {}
        for norm in NORMS:
            settings = [each for each in (*self.runs, *self.others) if each.norm == norm]
            sizes = {each.batch_size: each for each in reversed(settings)}
            if len(sizes) > 1:
                found[norm] = [sizes[size] for size in sorted(sizes, reverse=True)]
        return found


def percent(value: float, deviation: float | None = None) -> str:
    """A fraction as text: `84.52`, or with the standard deviation of several `84.52 ± 0.22`."""
    spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
    return f"{100 * value:.2f}{spread}".replace(" ", "\N{NO-BREAK SPACE}")


def norm_name(norm: str, diverged: int = 0, seeds: int = 1) -> str:
    """The name of `norm` in tables; a norm that is no longer registered keeps its key."""
    part = f"{diverged} of {seeds} diverged" if seeds > 1 else "diverged"
    return NORMS.get(norm, norm) + (f" ({part})" if diverged else "")


#: trainings by norm and batch size, then by seed
Repetitions = dict[tuple[str, int], dict[int, Training]]


def load(config: Params) -> Study:
    """Read what the runs left in data/runs, and the repetitions that `config` asks for.

    Raises `NormlabError` where something is missing or damaged.
    """
    repeated: Repetitions = {}
    values = {
        "seed": config.seed,
        "comparison": dict(config.comparison),
        "repeat": dict(config.repeat),
    }
    for (norm, size, seed), stage in pipeline.repetitions(values).items():
        path = repeat_file(norm, size, seed)
        with _sound(path, f"`dvc repro {stage}`", f"`dvc repro --force {stage}`"):
            record = json.loads(path.read_text())
            repeated.setdefault((norm, size), {})[seed] = _training(record, record["log"])
    runs = [load_run(run, config, repeated) for run in pipeline.runs()]
    taken = {(run.norm, run.batch_size) for run in runs}
    others = [Setting(*key, tuple(repeated[key].values())) for key in repeated if key not in taken]
    return Study(runs, others)


def load_run(run: str, config: Params, repeated: Repetitions) -> Result:
    """Read one run; its repetitions are those of its norm and batch size, with other seeds."""
    out = RunFiles(run)
    with _sound(out.scores.parent, "`dvc pull` or `dvc repro`", "`dvc checkout --force`"):
        record = json.loads(out.scores.read_text())
        setting = (record["norm"], record["batch_size"])
        own = _training(record, _columns(out.log))
        others = [t for seed, t in repeated.get(setting, {}).items() if seed != config.seed]
        quantiles = _columns(out.quantiles)
        del quantiles["epoch"]
        return Result(
            *setting,
            trainings=(own, *others),
            run=run,
            images=record["images"],
            quantiles={f"{name[1:]} %": values for name, values in quantiles.items()},
            predictions=files.read_csv(out.predictions),
            reference=record["batch_size"] == config.comparison.batch_size,
        )


@contextmanager
def _sound(place: Path, make: str, renew: str) -> Iterator[None]:
    """A block that reads files at `place`; what to do where they are missing, or damaged."""
    try:
        yield
    except FileNotFoundError as error:
        raise NormlabError(f"{error.filename}: no such file; {make}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise NormlabError(f"{place}: damaged ({error}); {renew}") from None


def _training(record: Mapping[str, Any], log: Mapping[str, Sequence[float]]) -> Training:
    scores = {f"{s}_{kind}": float(record[s][kind]) for s in SETS for kind in KINDS}
    curves = {name: log[name] for name in CURVES}
    return Training(record["epoch"], record["epochs"], record["diverged"], scores, curves)


def _columns(path: Path) -> dict[str, list[float]]:
    rows = files.read_csv(path)
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def leading(results: Sequence[Result]) -> list[Result]:
    """The results with the best validation accuracy, to the four digits that are shown."""
    highest = best_values(results)["val_accuracy"]
    return [result for result in results if round(result.score("val_accuracy"), 4) == highest]


def best_values(results: Sequence[Result]) -> dict[str, float]:
    """The best value of each of COLUMNS, to four digits."""
    return {name: max(round(result.score(name), 4) for result in results) for name in COLUMNS}


def find(results: Sequence[Result], norm: str) -> Result | None:
    """The first result of `norm` at the reference batch size."""
    return next((result for result in results if result.reference and result.norm == norm), None)


def last_third(epochs: int) -> int:
    """The first epoch of the last third of `epochs`."""
    return epochs * 2 // 3 + 1


def differences(first: Result, second: Result, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The second's mean curve `name` minus the first's, over the epochs that both have.

    With the standard error of the difference where both have several seeds.
    """
    (one, spread), (other, other_spread) = first.curve(name), second.curve(name)
    epochs = min(len(one), len(other))
    gaps = other[:epochs] - one[:epochs]
    if spread is None or other_spread is None:
        return gaps, None
    variance = spread[:epochs] ** 2 / first.seeds + other_spread[:epochs] ** 2 / second.seeds
    return gaps, np.sqrt(variance)


def write_tables(folder: Path, study: Study) -> None:
    """Write into `folder` the curves, quantiles, predictions and summaries of `study`."""
    for name, rows in (
        ("curves", [row for run in study.runs for row in curves(run)]),
        ("quantiles", [row for run in study.runs for row in quantiles(run)]),
        ("confusion", leading(study.runs)[0].predictions),
        ("summary", [{"run": run.run, **summarize(run)} for run in study.runs]),
        ("batch_sizes", [summarize(s) for group in study.by_batch_size().values() for s in group]),
    ):
        if rows:
            files.write_csv(folder / f"{name}.csv", rows)
    files.write_text(folder / "summary.md", markdown(study.runs))


def curves(result: Result) -> list[dict[str, Any]]:
    """One row per epoch: of each curve the mean over the seeds, and its standard deviation."""
    columns: dict[str, Any] = {}
    for name in CURVES:
        means, deviations = result.curve(name)
        columns[name] = means.round(6)
        columns[f"{name}_sd"] = [""] * len(means) if deviations is None else deviations.round(6)
    head = {"run": result.run, "label": result.label}
    return [
        {**head, "epoch": epoch, **dict(zip(columns, row, strict=True))}
        for epoch, row in enumerate(zip(*columns.values(), strict=True), start=1)
    ]


def quantiles(result: Result) -> list[dict[str, Any]]:
    """One row per epoch and quantile of the features; of the run's own seed."""
    head = {"run": result.run, "label": result.label}
    return [
        {**head, "epoch": epoch, "quantile": name, "feature": f"{value:.6g}"}
        for epoch, values in enumerate(zip(*result.quantiles.values(), strict=True), start=1)
        for name, value in zip(result.quantiles, values, strict=True)
    ]


def summarize(setting: Setting) -> dict[str, Any]:
    """What it is, and every score on every set: a fraction, the mean over the seeds.

    After each its standard deviation, which is empty for one seed.
    """
    facts = ("norm", "batch_size", "seeds", "diverged", "epoch", "epochs")
    row = {name: getattr(setting, name) for name in facts}
    for name in setting.trainings[0].scores:
        row |= {name: setting.score(name), f"{name}_sd": setting.deviation(name)}
    return row


def markdown(results: Sequence[Result]) -> str:
    """The summary as a Markdown table in percent, the best value of each column in bold."""
    rows = []
    bests = best_values(results)
    for result in results:
        cells = [result.run, result.name, str(result.batch_size), str(result.seeds)]
        for name, best_value in bests.items():
            bold = "**" if round(result.score(name), 4) == best_value else ""
            cells.append(f"{bold}{result.percent(name)}{bold}")
        rows.append([*cells, f"{result.epoch:.0f} of {result.epochs:.0f}"])
    head = ["run", "norm", "batch size", "seeds", *COLUMNS.values(), "best epoch"]
    return (
        f"{markdown_table(head, rows)}\nIn percent; with several seeds, mean ± standard deviation. "
        "Micro-F1 is the same as accuracy: each image has one label.\n"
    )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; columns that hold nothing but numbers are aligned to the right."""
    number = re.compile(r"(\*\*)?[+-]?[\d.]+(\s(±|of)\s[\d.]+)?(\*\*)?|")  # or nothing
    columns = zip(*rows, strict=True)
    align = ["---:" if all(map(number.fullmatch, column)) else "---" for column in columns]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, align, *rows))


def show_summary(folder: Path) -> None:
    """Print the main columns of the summary in `folder`, in percent."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = files.read_csv(folder / "summary.csv")
    several = any(row["seeds"] != "1" for row in rows)
    # 80 columns have no place for more.
    title, count, gap = ("seeds", "seeds", 0) if several else ("best epoch", "epoch", 1)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap, 0, 0))
    for name in ("run", "norm", "batch size", title, *(COLUMNS[name] for name in SHOWN)):
        justify: Any = "left" if name in ("run", "norm") else "right"
        table.add_column(name.replace(" ", "\n"), justify=justify, no_wrap=True)
    for row in rows:
        scores = (row_percent(row, name).replace("\N{NO-BREAK SPACE}", "") for name in SHOWN)
        cells = (row["run"], row_name(row), row["batch_size"], row[count])
        table.add_row(*cells, *(f"{score}%" for score in scores))
    Console(highlight=False).print("", table)


def row_name(row: Mapping[str, str]) -> str:
    """The norm's name in a row of summary.csv, and how many trainings diverged if any did."""
    return norm_name(row["norm"], int(row["diverged"]), int(row["seeds"]))


def row_percent(row: Mapping[str, str], score: str) -> str:
    """A score in a row of summary.csv as text; see the function `percent`."""
    deviation = row[f"{score}_sd"]
    return percent(float(row[score]), float(deviation) if deviation else None)
