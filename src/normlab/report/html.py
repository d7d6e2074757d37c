"""The study as one HTML file that carries its figures: to be read, sent, printed."""

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from normlab.report import charts, figures, findings
from normlab.report.results import COLUMNS, Study, best, best_values, norm_name
from normlab.utils import files


def write(folder: Path, study: Study, setup: Mapping[str, Any]) -> None:
    """Write `report.html` into `folder`, which has the tables of `study`.

    `setup` are the params that say how the runs were made: `dataset`, `seed`, and the sections
    `comparison`, `split`, `model`, `norms` and `train`.
    """
    # Here, and not above: no other stage needs it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("normlab.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.2f}"
    environment.filters["points"] = lambda value: findings.Gap(value).points
    with TemporaryDirectory() as pictures:
        figures.draw_all(Path(pictures), study, 100, "svg")
        inlined = {file.stem: _inline(file) for file in sorted(Path(pictures).iterdir())}
    content = environment.get_template("report.html.j2").render(
        results=study.runs,
        sizes=study.by_batch_size(),
        norm_name=norm_name,
        columns=COLUMNS,
        best_values=best_values(study.runs),
        best=best(study.runs),
        ranking=findings.ranking(study.runs),
        little=f"{100 * findings.LITTLE:g}",
        confidence=f"{100 * findings.CONFIDENCE:g} %",
        sanity=findings.sanity(study.runs),
        effects=findings.batch_effects(study.runs),
        widths=findings.widths(study.runs),
        claims=findings.claims(study.runs),
        confused=findings.confusions(best(study.runs)),
        setup=setup,
        figures=inlined,
        charts={"error_curves": _errors(folder), "quantiles": _quantiles(folder)},
        script=charts.script(),
    )
    files.write_text(folder / "report.html", content)


def _errors(folder: Path) -> list[dict[str, Any]]:
    """Charts of both errors, over all epochs and, where these are many, over the last third."""
    rows = files.read_csv(folder / "curves.csv")
    epochs = max(int(row["epoch"]) for row in rows)
    late = [row for row in rows if int(row["epoch"]) > epochs * 2 // 3]
    return [
        charts.fill("curves", shown, f"{part}_error", title + period, "error")
        for part, title in (("val", "Validation error"), ("train", "Training error (augmented)"))
        for shown, period in ((rows, ""), (late, ", last third"))
        if shown is rows or epochs >= figures.LONG
    ]


def _quantiles(folder: Path) -> list[dict[str, Any]]:
    return [charts.fill("quantiles", files.read_csv(folder / "quantiles.csv"), "feature", "", "")]


def _inline(picture: Path) -> str:
    """The SVG file `picture` as a data URL; coordinates lose digits that nobody sees."""
    content = re.sub(r"([1-9]\d*\.\d\d)\d+", r"\1", picture.read_text())
    content = re.sub(r"\s+", " ", content)
    return "data:image/svg+xml," + quote(content, safe=" ,;:/=()")
