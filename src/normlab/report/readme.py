"""The tables of README.md and docs/, generated from committed files.

A table stands between `<!-- NAME -->` and `<!-- end -->`; `make readme` regenerates all of them.
"""

import re
from collections.abc import Callable
from math import isnan
from pathlib import Path
from statistics import mean, stdev

from normlab.report.results import COLUMNS, SHOWN, markdown_table, percent, row_name, row_percent
from normlab.utils import files
from normlab.utils.errors import NormlabError

REPORTED = Path("benchmarks/reported.csv")  #: the best test accuracies that others report
Table = list[list[str]]
#: titles of the columns of benchmarks' CSV files
TITLES = {
    "batch_size": "batch size",
    "precision": "precision",
    "norm": "norm",
    "images_per_s": "images/s",
    "vs_torch_layer": "vs. PyTorch's layer",
    "relative_step_time": "relative step time",
    "vs_plain_loop": "vs. plain loop",
    "vs_naive_loop": "vs. naive loop",
    "fraction_of_convolutions": "fraction of the convolutions' throughput",
    "epoch_s": "epoch, s",
    "outside": "fraction outside the steps",
    "one_images_per_s": "one run with all cores, images/s",
    "jobs_images_per_s": "two runs side by side, images/s",
    "gain": "gain",
}


def update(path: Path) -> None:
    """Renew every table in `path`; raises `NormlabError` for one of an unknown kind."""
    files.write_text(path, renewed(path.read_text(encoding="utf-8")))


def renewed(text: str) -> str:
    def table(match: re.Match[str]) -> str:
        name, _, argument = match[1].partition(" ")
        if name not in TABLES:
            raise NormlabError(f"<!-- {match[1]} -->: must be one of {', '.join(TABLES)}")
        head, *rows = TABLES[name](argument)
        return f"<!-- {match[1]} -->\n{markdown_table(head, rows)}<!-- end -->"

    return re.sub(r"<!-- ([a-z]+ \S+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def results(path: str) -> Table:
    """The runs of a results/summary.csv in percent, and the best test accuracy others report.

    With several seeds, mean and standard deviation.
    """
    reported = {(row["norm"], row["batch_size"]): row for row in files.read_csv(REPORTED)}
    table = [["run", "norm", "batch size", "seeds", *(COLUMNS[name] for name in SHOWN),
              "best reported", "by", "difference, points"]]  # fmt: skip
    for row in files.read_csv(path):
        theirs = ["", "", ""]
        if other := reported.get((row["norm"], row["batch_size"])):
            best, source = float(other["test_accuracy"]), other["source"]
            by = f"[{source.partition('/')[0]}](https://github.com/{source})"
            difference = float(row["test_accuracy"]) - best
            theirs = [f"{100 * best:.6g}", by, f"{100 * difference:+.1f}"]
        scores = [row_percent(row, name) for name in SHOWN]
        what = [f"`{row['run']}`", row_name(row), row["batch_size"], row["seeds"]]
        table.append([*what, *scores, *theirs])
    return table


def recipe(path: str) -> Table:
    """Trials of benchmarks/recipe.py: validation accuracy in percent, one column per change.

    With several seeds, mean and standard deviation.
    """
    trials: dict[tuple[int, int, str], dict[str, list[float]]] = {}
    changes: dict[str, None] = {}
    for row in files.read_csv(path):
        key = (int(row["epochs"]), -int(row["batch_size"]), row["norm"])
        trials.setdefault(key, {}).setdefault(row["change"], []).append(float(row["val_accuracy"]))
        changes[row["change"]] = None
    table = [["epochs", "batch size", "norm", *changes]]
    for (epochs, negative, norm), scores in sorted(trials.items()):
        cells = [_trial(scores.get(change, [])) for change in changes]
        table.append([str(epochs), str(-negative), norm, *cells])
    return table


def _trial(samples: list[float]) -> str:
    if any(map(isnan, samples)):
        return "diverged"
    deviation = stdev(samples) if len(samples) > 1 else None
    return percent(mean(samples), deviation) if samples else ""


def speed(path: str) -> Table:
    """The columns of TITLES in a CSV file that a script of benchmarks/ wrote."""
    rows = files.read_csv(path)
    found = [column for column in TITLES if column in rows[0]]
    cells = [_aligned([row[column] for row in rows]) for column in found]
    return [[TITLES[column] for column in found], *map(list, zip(*cells, strict=True))]


def _aligned(column: list[str]) -> list[str]:
    """Numbers of a column with equally many decimals."""
    decimals = max(len(cell.partition(".")[2]) for cell in column)
    try:
        return [cell and f"{float(cell):.{decimals}f}" for cell in column]
    except ValueError:  # the column is of names
        return column


TABLES: dict[str, Callable[[str], Table]] = {"recipe": recipe, "results": results, "speed": speed}
