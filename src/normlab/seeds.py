"""The same runs with several seeds: gathered from DVC's experiments, kept in data/seeds.csv.

The file holds a line for each run of each experiment. It is a dependency of the stage `plots`,
which puts the mean and deviation over the seeds of the current recipe into the report.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from normlab import files, params
from normlab.errors import NormlabError
from normlab.registry import NORMS

PATH = Path("data/seeds.csv")
FIELDS = (
    "recipe", "dataset", "epochs", "norm", "batch_size", "seed",
    "test_accuracy", "test_f1_micro", "test_f1_macro",
)  # fmt: skip
RECIPE = ("dataset", "split", "model", "train")  #: params that a mean over seeds must share


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
    """A digest of the RECIPE part of `config`, the content of a `normlab.params.Params`."""
    content = json.dumps({name: config[name] for name in RECIPE}, sort_keys=True)
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
    """Group rows of FIELDS, of one recipe, by norm and batch size.

    The same norm, batch size and seed counts once: two runs of it are the same training.
    """
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
    """Rows of FIELDS from all of DVC's finished experiments, and from the commits they start at.

    Raises `NormlabError` when DVC cannot list them.
    """
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", "--all-commits"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["failed"])[-1]
        raise NormlabError(f"dvc exp show: {reason.removeprefix('ERROR: ')}")
    return sorted(extract(json.loads(done.stdout)), key=lambda row: list(row.values()))


def extract(shown: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of FIELDS out of what `dvc exp show --json` prints, each once."""
    seen = set()
    for revision in _revisions(shown):
        content = revision["params"].get("params.yaml", {}).get("data")
        try:
            config = params.parse(content).model_dump()
        except NormlabError:
            continue  # of another version of this project
        for metrics in revision["metrics"].values():
            run = metrics.get("data") or {}
            if "test" not in run:
                continue
            row = {
                "recipe": recipe(config),
                "dataset": config["dataset"],
                "epochs": config["train"]["epochs"],
                "norm": run["norm"],
                "batch_size": run["batch_size"],
                "seed": config["seed"],
                **{f"test_{name}": value for name, value in run["test"].items()},
            }
            if tuple(row.values()) not in seen:
                seen.add(tuple(row.values()))
                yield row


def _revisions(shown: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is known of every commit and finished experiment; the workspace may be unfinished."""
    for baseline in shown:
        experiments = [e for each in baseline["experiments"] or [] for e in each["revs"] or []]
        for entry in (baseline, *experiments):
            data = entry.get("data")
            if entry["rev"] != "workspace" and data and data.get("params") and data.get("metrics"):
                yield data


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
