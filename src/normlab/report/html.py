"""The study as one HTML file that carries its figures: to be read, sent, printed."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from normlab.config.params import WIDTHS, Params
from normlab.report import charts, figures, findings
from normlab.report.results import COLUMNS, Study, best_values, last_third, leading, norm_name
from normlab.utils import files


def write(folder: Path, study: Study, config: Params) -> None:
    """Write `report.html` into `folder`, which has the tables of `study`, made with `config`."""
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
        config=config,
        channels=WIDTHS,
        study=study,
        results=study.runs,
        kinds=[(run.norm, run.batch_size) for run in study.runs],
        leading=leading(study.runs),
        best_values=best_values(study.runs),
        columns=COLUMNS,
        norm_name=norm_name,
        findings=findings,
        figures=inlined,
        charts={"error_curves": _errors(folder), "quantiles": _quantiles(folder)},
        scripts=charts.scripts(),
    )
    files.write_text(folder / "report.html", content)


def _errors(folder: Path) -> list[dict[str, Any]]:
    """Charts of both errors, over all epochs and, where these are many, over the last third."""
    rows = files.read_csv(folder / "curves.csv")
    epochs = max(int(row["epoch"]) for row in rows)
    late = [row for row in rows if int(row["epoch"]) >= last_third(epochs)]
    return [
        charts.fill("curves", shown, f"{part}_error", title + period, "error")
        for part, title in (("val", "Validation error"), ("train", "Training error (augmented)"))
        for shown, period in ((rows, ""), (late, ", last third"))
        if shown is rows or epochs >= figures.LONG
    ]


def _quantiles(folder: Path) -> list[dict[str, Any]]:
    return [charts.fill("quantiles", files.read_csv(folder / "quantiles.csv"), "feature", "", "")]


def _inline(picture: Path) -> str:
    """The SVG file `picture` as a data URL; coordinates lose invisible digits."""
    content = re.sub(r"([1-9]\d*\.\d\d)\d+", r"\1", picture.read_text(encoding="utf-8"))
    content = re.sub(r"\s+", " ", content)
    return "data:image/svg+xml," + quote(content, safe=" ,;:/=()")
