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
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from normlab.config.paths import RESULTS
from normlab.norms.names import NORMS
from normlab.report.results import COLUMNS, ERRORS, Training, markdown_table, norm_name
from normlab.utils import files
from normlab.utils.errors import NormlabError

PATH = Path("data/seeds.csv")
SETUP = RESULTS / "setup.json"  #: the params that results are of; the stage plots writes it
SUMMARY = RESULTS / "summary.csv"  #: every run's scores
CURVES = RESULTS / "curves.csv"  #: every run's errors, epoch by epoch
#: What tells one training from another comes first. A curve is one cell: `0.5012 0.4410 ...`.
FIELDS = ("recipe", "norm", "batch_size", "seed", "dataset", "epochs", *COLUMNS, *ERRORS)
KEY = FIELDS[:4]
RECIPE = ("dataset", "split", "model", "train")  #: params that a mean over seeds must share
#: keys of `train` that say how a result is computed, and change it by rounding at most
MEANS = ("compile", "devices", "on_divergence")


def recipe(config: Mapping[str, Any]) -> str:
    """A digest of the RECIPE part of `config`, the content of a `normlab.config.params.Params`."""
    chosen = {name: config[name] for name in RECIPE}
    chosen["train"] = {key: value for key, value in config["train"].items() if key not in MEANS}
    content = json.dumps(chosen, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def read(path: Path, wanted: str) -> dict[tuple[str, int], tuple[Training, ...]]:
    """What `path` has of the recipe `wanted`, by norm and batch size, where seeds are several."""
    try:
        rows = [row for row in files.read_csv(path) if row["recipe"] == wanted]
        return {key: found for key, found in group(rows).items() if len(found) > 1}
    except FileNotFoundError:
        raise NormlabError(f"{path}: no such file; `git checkout {path}` brings it back") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NormlabError(f"{path}: damaged ({error}); `python -m normlab seeds`") from None


def group(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], tuple[Training, ...]]:
    """Trainings out of rows of FIELDS, of one recipe, by norm and batch size."""
    groups: dict[tuple[str, int], dict[int, Training]] = {}
    for row in rows:
        scores = {name: float(row[name]) for name in COLUMNS}
        curves = {name: [float(value) for value in row[name].split()] for name in ERRORS}
        key = (str(row["norm"]), int(row["batch_size"]))
        groups.setdefault(key, {})[int(row["seed"])] = Training(scores, curves)
    return {key: tuple(groups[key].values()) for key in sorted(groups, key=_order)}


def _order(key: tuple[str, int]) -> tuple[int, int]:
    """Norms as the registry has them, large batches first."""
    norm, size = key
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
        for row in extract(*(_show(revision, path) for path in (SETUP, SUMMARY, CURVES))):
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


def extract(setup: str, summary: str, curves: str) -> list[dict[str, Any]]:
    """Rows of FIELDS out of a revision's SETUP, SUMMARY and CURVES; none of another version's.

    The params in its params.yaml may be newer than its results: not every experiment goes on to
    the stage `plots`, which writes the three files.
    """
    try:
        config = json.loads(setup)
        base = {
            "recipe": recipe(config),
            "dataset": config["dataset"],
            "epochs": config["train"]["epochs"],
            "seed": config["seed"],
        }
        errors: dict[tuple[str, str], list[str]] = {}
        for row in csv.DictReader(curves.splitlines()):
            for name in ERRORS:
                errors.setdefault((row["run"], name), []).append(f"{float(row[name]):.4f}")
        rows = []
        for run in csv.DictReader(summary.splitlines()):
            cells = {name: " ".join(errors[run["run"], name]) for name in ERRORS}
            rows.append({name: {**run, **base, **cells}[name] for name in FIELDS})
        return rows
    except (ValueError, KeyError, TypeError):
        return []


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation of the test accuracy, in percent, a table for each recipe."""
    text = ""
    for name in dict.fromkeys(row["recipe"] for row in rows):
        chosen = [row for row in rows if row["recipe"] == name]
        cells = []
        for (norm, size), trainings in group(chosen).items():
            values = [100 * training.scores["test_accuracy"] for training in trainings]
            deviation = f"{stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(
                [norm_name(norm), str(size), str(len(values)), f"{mean(values):.2f}", deviation]
            )
        head = ("norm", "batch size", "seeds", "mean", "deviation")
        text += f"{chosen[0]['dataset']}, {chosen[0]['epochs']} epochs (recipe {name})\n\n"
        text += markdown_table(head, cells) + "\n"
    return text
