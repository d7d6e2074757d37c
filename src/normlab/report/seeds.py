"""The same runs with several seeds: gathered from DVC's experiments, kept in data/seeds.csv.

The file holds a line for each run of each experiment. It is a dependency of the stage `plots`,
which puts the mean and deviation over the seeds of the current recipe into the report.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """Rows of FIELDS from all of DVC's finished experiments, and from the commits they start at.

    Raises `NormlabError` when DVC cannot list them.
    """
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", "--all-commits"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["failed"])[-1]
        raise NormlabError(f"dvc exp show: {reason.removeprefix('ERROR: ')}")
    return sorted(extract(json.loads(done.stdout), _setup), key=lambda row: list(row.values()))


def _setup(revision: str) -> Any:
    """The record in Git's `revision` of the params its results are of; None where there is none."""
    command = ["git", "show", f"{revision}:{SETUP}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode else json.loads(done.stdout)


def extract(shown: list[dict[str, Any]], setup: Callable[[str], Any]) -> Iterator[dict[str, Any]]:
    """Rows of FIELDS out of what `dvc exp show --json` prints.

    The same training counts once, as the first revision has it: DVC shows the newest first.
    `setup` gives a revision's record of the params that its results are of. Those in params.yaml
    may be newer: not every experiment goes on to the stage `plots`, which writes the results.
    """
    seen = set()
    for revision, metrics_files in _revisions(shown):
        config = setup(revision)
        if not isinstance(config, dict) or not {*RECIPE, "seed"} <= set(config):
            continue  # of another version of this project
        for metrics in metrics_files.values():
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
            key = tuple(row[name] for name in KEY)
            if key not in seen:
                seen.add(key)
                yield row


def _revisions(shown: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Commits and finished experiments, and their metrics; the workspace may be unfinished."""
    for baseline in shown:
        experiments = [e for each in baseline["experiments"] or [] for e in each["revs"] or []]
        for entry in (baseline, *experiments):
            data = entry.get("data")
            if entry["rev"] != "workspace" and data and data.get("metrics"):
                yield entry["rev"], data["metrics"]


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
