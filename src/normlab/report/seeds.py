"""The same runs with several seeds: gathered from DVC's experiments, kept in data/seeds.csv.

The file holds a line for each run of each experiment. It is a dependency of the stage `plots`,
which puts the mean and deviation over the seeds of the current recipe into the report.
"""

import csv
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from normlab.base import files
from normlab.base.errors import NormlabError
from normlab.base.layout import RESULTS
from normlab.base.registry import NORMS

PATH = Path("data/seeds.csv")
SETUP = RESULTS / "setup.json"  #: the params that results are of; the stage plots writes it
SUMMARY = RESULTS / "summary.csv"  #: every run's scores
FIELDS = (
    "recipe", "dataset", "epochs", "norm", "batch_size", "seed",
    "test_accuracy", "test_f1_micro", "test_f1_macro",
)  # fmt: skip
RECIPE = ("dataset", "split", "model", "train")  #: params that a mean over seeds must share
#: keys of `train` that say how a result is computed, and change it by rounding at most
MEANS = ("compile", "devices", "on_divergence")


KEY = ("recipe", "norm", "batch_size", "seed")  #: what tells one training from another


@dataclass(frozen=True)
class Seeds:
    """One norm at one batch size, trained with several seeds."""

    norm: str
    batch_size: int
    accuracies: tuple[float, ...]  #: on test images, one a seed

    @property
    def mean(self) -> float:
        return mean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Standard deviation between seeds; None for a single one."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None


def recipe(config: Mapping[str, Any]) -> str:
    """A digest of the RECIPE part of `config`, the content of a `normlab.base.params.Params`."""
    chosen = {name: config[name] for name in RECIPE}
    chosen["train"] = {key: value for key, value in config["train"].items() if key not in MEANS}
    content = json.dumps(chosen, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def read(path: Path, wanted: str) -> list[Seeds]:
    """Norms that `path` has with the recipe `wanted` and more than one seed."""
    try:
        rows = [row for row in files.read_csv(path) if row["recipe"] == wanted]
        return [entry for entry in summarize(rows) if len(entry.accuracies) > 1]
    except FileNotFoundError:
        raise NormlabError(f"{path}: no such file; `git checkout {path}` brings it back") from None
    except (ValueError, KeyError, TypeError) as error:
        raise NormlabError(f"{path}: damaged ({error}); `python -m normlab seeds`") from None


def summarize(rows: Iterable[Mapping[str, Any]]) -> list[Seeds]:
    """Group rows of FIELDS, of one recipe, by norm and batch size."""
    groups: dict[tuple[str, int], dict[int, float]] = {}
    for row in rows:
        key = (str(row["norm"]), int(row["batch_size"]))
        groups.setdefault(key, {})[int(row["seed"])] = float(row["test_accuracy"])
    return [
        Seeds(norm, size, tuple(accuracies[seed] for seed in sorted(accuracies)))
        for (norm, size), accuracies in sorted(groups.items(), key=_order)
    ]


def _order(group: tuple[tuple[str, int], Any]) -> tuple[int, int]:
    """Norms as the registry has them, large batches first."""
    norm, size = group[0]
    return list(NORMS).index(norm) if norm in NORMS else len(NORMS), -size


def collect() -> list[dict[str, Any]]:
    """Rows of FIELDS from the results of all commits and of all of DVC's experiments.

    The same training counts once, as the newest commit has it. Raises `NormlabError` when Git or
    DVC cannot list them.
    """
    dvc = [sys.executable, "-m", "dvc", "exp", "list", "--all-commits", "--sha-only"]
    commits = _output(["git", "rev-list", "--branches", "HEAD", "--", str(SETUP)])
    revisions = [*commits.split(), *_output(dvc).split()]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for revision in dict.fromkeys(revisions):
        setup, summary = (_show(revision, path) for path in (SETUP, SUMMARY))
        for row in extract(setup, summary):
            rows.setdefault(tuple(row[name] for name in KEY), row)
    return sorted(rows.values(), key=lambda row: list(row.values()))


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["failed"])[-1]
        raise NormlabError(f"{' '.join(command)}: {reason.removeprefix('ERROR: ')}")
    return done.stdout


def _show(revision: str, path: Path) -> str:
    """The file `path` in Git's `revision`; empty where it is not there."""
    done = subprocess.run(["git", "show", f"{revision}:{path}"], capture_output=True, text=True)
    return "" if done.returncode else done.stdout


def extract(setup: str, summary: str) -> list[dict[str, Any]]:
    """Rows of FIELDS out of a revision's SETUP and SUMMARY; none of another version's.

    The params in its params.yaml may be newer than its results: not every experiment goes on to
    the stage `plots`, which writes both files.
    """
    try:
        config = json.loads(setup)
        base = {
            "recipe": recipe(config),
            "dataset": config["dataset"],
            "epochs": config["train"]["epochs"],
            "seed": config["seed"],
        }
        runs = list(csv.DictReader(summary.splitlines()))
        return [{name: {**run, **base}[name] for name in FIELDS} for run in runs]
    except (ValueError, KeyError, TypeError):
        return []


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation of the test accuracy, in percent, a table for each recipe."""
    lines = []
    for name in dict.fromkeys(row["recipe"] for row in rows):
        chosen = [row for row in rows if row["recipe"] == name]
        lines += [
            f"{chosen[0]['dataset']}, {chosen[0]['epochs']} epochs (recipe {name})",
            "",
            "| norm | batch size | seeds | mean | deviation |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for entry in summarize(chosen):
            deviation = "" if entry.deviation is None else f"{100 * entry.deviation:.2f}"
            lines.append(
                f"| {NORMS.get(entry.norm, entry.norm)} | {entry.batch_size} "
                f"| {len(entry.accuracies)} | {100 * entry.mean:.2f} | {deviation} |"
            )
        lines.append("")
    return "\n".join(lines)
