"""What people read: the runs' results side by side, as tables."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from normlab.config.paths import run_files
from normlab.norms.names import NORMS
from normlab.utils import files
from normlab.utils.errors import NormlabError

SETS = ("test", "val", "train")
#: What tables show. The micro-F1 of single labels is the accuracy; summary.csv alone repeats it.
SCORES = {"accuracy": "accuracy", "f1_macro": "macro-F1"}
COLUMNS = {f"{s}_{score}": f"{s} {title}" for s in SETS for score, title in SCORES.items()}
ERRORS = ("train_error", "val_error")


@dataclass(frozen=True)
class Training:
    """Numbers of one training, that is of one seed, as fractions."""

    scores: Mapping[str, float]  #: by names as `test_accuracy` and `val_f1_macro`
    curves: Mapping[str, Sequence[float]]  #: of ERRORS, a value an epoch


@dataclass(frozen=True)
class Result:
    """All that a run left behind for people to read."""

    run: str
    metrics: dict[str, Any]
    log: list[dict[str, float]]
    quantiles: dict[str, list[float]]  #: by names as `1 %`, the lowest first; a value an epoch
    predictions: list[dict[str, str]]
    usual: bool  #: whether trained at the batch size at which norms are compared
    seeds: tuple[Training, ...] = ()  #: the same training with several seeds, where there are any

    @property
    def norm(self) -> str:
        return self.metrics["norm"]

    @property
    def batch_size(self) -> int:
        return self.metrics["batch_size"]

    @property
    def diverged(self) -> bool:
        return self.metrics["diverged"]

    @property
    def name(self) -> str:
        """The norm's name, and that the training diverged if it did."""
        return norm_name(self.norm, self.diverged)

    @property
    def label(self) -> str:
        """What figures call the run; also two of the same norm and batch size differ."""
        return f"{self.run}: {norm_name(self.norm)}, {self.batch_size}"

    @property
    def trainings(self) -> tuple[Training, ...]:
        """One for each seed, or this one alone."""
        scores = {f"{s}_{name}": self.metrics[s][name] for s in SETS for name in SCORES}
        curves = {name: [row[name] for row in self.log] for name in ERRORS}
        return self.seeds or (Training(scores, curves),)

    def samples(self, score: str) -> list[float]:
        """A score as `test_accuracy`, of each training."""
        return [training.scores[score] for training in self.trainings]

    def score(self, score: str) -> float:
        """A score as `test_accuracy`: the mean over the seeds."""
        return mean(self.samples(score))

    def percent(self, score: str) -> str:
        """The score as text; see the function `percent`."""
        return percent(self.samples(score))

    def curve(self, name: str) -> tuple[list[float], list[float] | None]:
        """Means over the seeds of one of ERRORS, and deviations if there are several seeds.

        Both have a value for each epoch that all seeds have.
        """
        epochs = list(zip(*(t.curves[name] for t in self.trainings), strict=False))
        deviations = [stdev(values) for values in epochs] if self.seeds else None
        return [mean(values) for values in epochs], deviations


def percent(samples: Sequence[float]) -> str:
    """Fractions, one a seed, as text: `84.52`, or mean and deviation of several: `84.52 ± 0.22`."""
    spread = f" ± {100 * stdev(samples):.2f}" if len(samples) > 1 else ""
    return f"{100 * mean(samples):.2f}{spread}".replace(" ", "\N{NO-BREAK SPACE}")


def norm_name(norm: str, diverged: bool = False) -> str:
    """What tables call `norm`, also one that is not registered any more."""
    return NORMS.get(norm, norm) + (" (diverged)" if diverged else "")


def load(
    run: str,
    usual_batch_size: int,
    seeds: Mapping[tuple[str, int], tuple[Training, ...]] = {},
) -> Result:
    """Read what `run` left in data/runs; norms are compared at `usual_batch_size`.

    `seeds` are the trainings with several seeds, by norm and batch size. Raises `NormlabError`
    where something is missing or damaged.
    """
    made = run_files(run)
    try:
        metrics = json.loads(made.metrics.read_text())
        log = _numbers(made.log)
        rows = _numbers(made.quantiles)
        quantiles = {f"{q[1:]} %": [row[q] for row in rows] for q in rows[0] if q != "epoch"}
        predictions = files.read_csv(made.predictions)
        usual = metrics["batch_size"] == usual_batch_size
        repeated = seeds.get((metrics["norm"], metrics["batch_size"]), ())
        return Result(run, metrics, log, quantiles, predictions, usual, repeated)
    except FileNotFoundError as error:
        raise NormlabError(f"{error.filename}: no such file; `dvc pull` or `dvc repro`") from None
    except (ValueError, LookupError) as error:
        raise NormlabError(
            f"{made.log.parent}: damaged ({error}); `dvc checkout --force`"
        ) from None


def _numbers(path: Path) -> list[dict[str, float]]:
    return [{key: float(value) for key, value in row.items()} for row in files.read_csv(path)]


def best(results: Sequence[Result]) -> Result:
    """The result with the best validation accuracy, the first of several."""
    return max(results, key=lambda result: result.score("val_accuracy"))


def best_values(results: Sequence[Result]) -> dict[str, float]:
    """The best value of each of COLUMNS, to four digits."""
    return {name: max(round(result.score(name), 4) for result in results) for name in COLUMNS}


def find(results: Sequence[Result], norm: str) -> Result | None:
    """The first result of `norm` at the usual batch size."""
    return next((result for result in results if result.usual and result.norm == norm), None)


def differences(first: Result, second: Result, name: str) -> list[float]:
    """The second's curve `name` minus the first's, over the epochs that both have."""
    one, other = first.curve(name)[0], second.curve(name)[0]
    return [b - a for a, b in zip(one, other, strict=False)]


def standard_error(accuracy: float, count: int) -> float:
    """Binomial standard error of an accuracy measured on `count` images."""
    return math.sqrt(accuracy * (1 - accuracy) / count)


def write_tables(folder: Path, results: list[Result]) -> None:
    """Write into `folder` DVC's metrics, curves, quantiles, predictions and a summary."""
    # Short names and percent, for what `dvc metrics diff` and `dvc exp show` print of them.
    metrics = {
        result.run: {
            "val": round(100 * result.metrics["val"]["accuracy"], 2),
            "test": round(100 * result.metrics["test"]["accuracy"], 2),
            "f1": round(100 * result.metrics["test"]["f1_macro"], 2),
        }
        for result in results
    }
    files.write_json(folder / "metrics.json", metrics)
    curves = [
        {
            "run": result.run,
            "label": result.label,
            **row,
            "epoch": int(row["epoch"]),
            "val_accuracy": round(1 - row["val_error"], 12),
        }
        for result in results
        for row in result.log
    ]
    fields = ("run", "label", "epoch", "lr", "train_error", "train_loss", "val_accuracy",
              "val_error", "val_loss")  # fmt: skip
    files.write_csv(folder / "curves.csv", curves, fields)
    quantiles = [
        {
            "run": result.run,
            "label": result.label,
            "epoch": epoch,
            "quantile": name,
            "feature": value,
        }
        for result in results
        for epoch, values in enumerate(zip(*result.quantiles.values(), strict=True), start=1)
        for name, value in zip(result.quantiles, values, strict=True)
    ]
    files.write_csv(folder / "quantiles.csv", quantiles, tuple(quantiles[0]))
    files.write_csv(folder / "confusion.csv", best(results).predictions, ("actual", "predicted"))
    summary = summarize(results)
    files.write_csv(folder / "summary.csv", summary, tuple(summary[0]))
    files.write_text(folder / "summary.md", markdown(results))


def summarize(results: list[Result]) -> list[dict[str, Any]]:
    """A row a run: what it is, its best epoch, and every score on every set, as fractions."""
    return [
        {
            "run": result.run,
            "norm": result.norm,
            "batch_size": result.batch_size,
            "epoch": result.metrics["epoch"],
            "epochs": result.metrics["epochs"],
            "diverged": result.diverged,
            **{
                f"{s}_{score}": result.metrics[s][score]
                for s in SETS
                for score in ("accuracy", "f1_micro", "f1_macro")
            },
        }
        for result in results
    ]


def markdown(results: list[Result]) -> str:
    """The summary as a Markdown table in percent, the best value of a column in bold."""
    rows = []
    bests = best_values(results)
    for result in results:
        cells = [result.run, result.name, str(result.batch_size)]
        for name, best_value in bests.items():
            text = result.percent(name)
            is_best = round(result.score(name), 4) == best_value
            cells.append(f"**{text}**" if is_best else text)
        rows.append([*cells, f"{result.metrics['epoch']} of {result.metrics['epochs']}"])
    head = ["run", "norm", "batch size", *COLUMNS.values(), "best epoch"]
    table = markdown_table(head, rows)
    return f"{table}\nIn percent. Micro-F1 is the same as accuracy: each image has one label.\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; columns that hold nothing but numbers are aligned to the right."""
    number = re.compile(r"(\*\*)?[+-]?[\d.]+(\s(±|of)\s[\d.]+)?(\*\*)?|")  # or nothing
    columns = zip(*rows, strict=True)
    align = ["---:" if all(map(number.fullmatch, column)) else "---" for column in columns]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, align, *rows))


def show_summary(folder: Path) -> None:
    """Print the summary in `folder`, what most ask for first; accuracy and F1 in percent."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for title in ("run", "norm"):
        table.add_column(title, no_wrap=True)
    for title in ("batch size", "best epoch", "val accuracy", "test accuracy", "test macro-F1"):
        table.add_column(title.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in files.read_csv(folder / "summary.csv"):
        scores = (float(row[key]) for key in ("val_accuracy", "test_accuracy", "test_f1_macro"))
        table.add_row(
            row["run"],
            norm_name(row["norm"], row["diverged"] == "True"),
            row["batch_size"],
            row["epoch"],
            *(f"{score:.2%}" for score in scores),
        )
    Console(highlight=False).print("", table)
