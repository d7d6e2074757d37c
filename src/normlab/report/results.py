"""What people read: the runs' results side by side, as tables."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normlab.base import files
from normlab.base.errors import NormlabError
from normlab.base.layout import run_files
from normlab.base.registry import NORMS

SETS = ("train", "val", "test")
SCORES = ("accuracy", "f1_micro", "f1_macro")
TITLES = {"accuracy": "accuracy", "f1_micro": "micro-F1", "f1_macro": "macro-F1"}
CURVES = ("train_error", "val_error", "train_loss", "val_loss")


@dataclass(frozen=True)
class Result:
    """All that a run left behind for people to read."""

    run: str
    metrics: dict[str, Any]
    log: list[dict[str, float]]
    quantiles: list[dict[str, float]]
    predictions: list[dict[str, str]]
    usual: bool  #: whether trained at the batch size at which norms are compared

    @property
    def norm(self) -> str:
        return self.metrics["norm"]

    @property
    def batch_size(self) -> int:
        return self.metrics["batch_size"]

    @property
    def name(self) -> str:
        """The norm's name, and that the training diverged if it did."""
        return norm_name(self.norm, self.metrics["diverged"])

    @property
    def label(self) -> str:
        """What figures and tables call the run."""
        return f"{norm_name(self.norm)}, {self.batch_size}"

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """Epochs and values of one of CURVES."""
        return [row["epoch"] for row in self.log], [row[name] for row in self.log]


def norm_name(norm: str, diverged: bool = False) -> str:
    """What tables call `norm`, also one that is not registered any more."""
    return NORMS.get(norm, norm) + (" (diverged)" if diverged else "")


def load(run: str, usual_batch_size: int) -> Result:
    """Read what `run` left in data/runs; norms are compared at `usual_batch_size`.

    Raises `NormlabError` where something is missing or damaged.
    """
    made = run_files(run)
    try:
        metrics = json.loads(made.metrics.read_text())
        log, quantiles = (_numbers(path) for path in (made.log, made.quantiles))
        predictions = files.read_csv(made.predictions)
        usual = metrics["batch_size"] == usual_batch_size
        return Result(run, metrics, log, quantiles, predictions, usual)
    except FileNotFoundError as error:
        raise NormlabError(f"{error.filename}: no such file; `dvc pull` or `dvc repro`") from None
    except (ValueError, KeyError) as error:
        raise NormlabError(
            f"{made.log.parent}: damaged ({error}); `dvc checkout --force`"
        ) from None


def _numbers(path: Path) -> list[dict[str, float]]:
    return [{key: float(value) for key, value in row.items()} for row in files.read_csv(path)]


def best(results: list[Result]) -> Result:
    """The result with the best validation accuracy, the first of several."""
    return max(results, key=lambda result: result.metrics["val"]["accuracy"])


def top(results: Sequence[Result]) -> dict[tuple[str, str], float]:
    """The best value, rounded to four digits, of each of SETS and SCORES."""
    return {
        (s, score): max(round(result.metrics[s][score], 4) for result in results)
        for s in SETS
        for score in SCORES
    }


def find(results: Sequence[Result], norm: str) -> Result | None:
    """The first result of `norm` at the usual batch size."""
    return next((result for result in results if result.usual and result.norm == norm), None)


def differences(first: Result, second: Result, name: str) -> tuple[list[float], list[float]]:
    """Epochs that both have, and the second's curve `name` minus the first's."""
    one, other = (dict(zip(*r.curve(name), strict=True)) for r in (first, second))
    epochs = [epoch for epoch in one if epoch in other]
    return epochs, [other[epoch] - one[epoch] for epoch in epochs]


def standard_error(accuracy: float, count: int) -> float:
    """Binomial standard error of an accuracy measured on `count` images."""
    return math.sqrt(accuracy * (1 - accuracy) / count)


def write_tables(folder: Path, results: list[Result]) -> None:
    """Write into `folder` DVC's metrics, curves, quantiles, predictions and a summary."""
    metrics = {
        result.run: {
            "val_accuracy": _percent(result.metrics["val"]["accuracy"]),
            "test_accuracy": _percent(result.metrics["test"]["accuracy"]),
            "test_macro_f1": _percent(result.metrics["test"]["f1_macro"]),
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
    fields = ("run", "label", "epoch", "lr", *sorted((*CURVES, "val_accuracy")))
    files.write_csv(folder / "curves.csv", curves, fields)
    names = [name for name in results[0].quantiles[0] if name != "epoch"]
    quantiles = [
        {
            "run": result.run,
            "label": result.label,
            "epoch": int(row["epoch"]),
            "quantile": f"{name[1:]} %",
            "feature": row[name],
        }
        for result in results
        for row in result.quantiles
        for name in names
    ]
    files.write_csv(
        folder / "quantiles.csv", quantiles, ("run", "label", "epoch", "quantile", "feature")
    )
    files.write_csv(folder / "confusion.csv", best(results).predictions, ("actual", "predicted"))
    summary = summarize(results)
    files.write_csv(folder / "summary.csv", summary, tuple(summary[0]))
    files.write_text(folder / "summary.md", markdown(results))


def _percent(fraction: float) -> float:
    return round(100 * fraction, 2)


def summarize(results: list[Result]) -> list[dict[str, Any]]:
    """A row a run: what it is, its best epoch, and every score on every set, as fractions."""
    return [
        {
            "run": result.run,
            "norm": result.norm,
            "batch_size": result.batch_size,
            "epoch": result.metrics["epoch"],
            "epochs": result.metrics["epochs"],
            "diverged": result.metrics["diverged"],
            **{f"{s}_{score}": result.metrics[s][score] for s in SETS for score in SCORES},
        }
        for result in results
    ]


def markdown(results: list[Result]) -> str:
    """The summary as a Markdown table in percent, the best value of a column in bold."""
    best_values = top(results)
    titles = [f"{s} {TITLES[score]}" for s, score in best_values]
    head = ["run", "norm", "batch size", "best epoch", *titles]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for result in results:
        epoch = f"{result.metrics['epoch']} of {result.metrics['epochs']}"
        cells = [result.run, result.name, str(result.batch_size), epoch]
        for (s, score), best_value in best_values.items():
            value = round(result.metrics[s][score], 4)
            text = f"{100 * value:.2f}"
            cells.append(f"**{text}**" if value == best_value else text)
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
