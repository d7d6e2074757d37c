"""The study as one HTML file that carries its figures: to be read, sent, printed."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from normlab.report import figures, findings, page
from normlab.report.results import (
    COLUMNS,
    Result,
    best,
    best_values,
    norm_name,
    standard_error,
)
from normlab.utils import files


def write(path: Path, results: list[Result], setup: Mapping[str, Any]) -> None:
    """Write the report on `results` to `path`.

    `setup` are the params that say how the runs were made: `dataset`, `seed`, and the sections
    `comparison`, `split`, `model` and `train`.
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
    with TemporaryDirectory() as folder:
        figures.draw_all(Path(folder), results, 100, "svg")
        pictures = {file.stem: _inline(file) for file in sorted(Path(folder).iterdir())}
    ranking = findings.ranking(results)
    first = ranking[0][0]
    content = environment.get_template("report.html.j2").render(
        results=results,
        seeds=min(len(result.trainings) for result in results),
        norm_name=norm_name,
        columns=COLUMNS,
        best_values=best_values(results),
        best=best(results),
        ranking=ranking,
        counting_error=standard_error(first.score(findings.ACCURACY), len(first.predictions)),
        sanity=findings.sanity(results),
        effects=findings.batch_effects(results),
        widths=findings.widths(results),
        claims=findings.claims(results),
        confused=findings.confusions(best(results)),
        setup=setup,
        counts=results[0].metrics["images"],
        figures=pictures,
        runs=[_chart_data(result) for result in results],
        vega=page.bundle(),
        charts=Path(__file__).with_name("charts.js").read_text(),
    )
    files.write_text(path, content)


def _chart_data(result: Result) -> dict[str, Any]:
    """What charts.js draws of a run; a curve is a name, its values, and deviations if any."""
    errors = []
    for title, name in (("training", "train_error"), ("validation", "val_error")):
        values, deviations = result.curve(name)
        errors.append((title, _short(values), deviations and _short(deviations)))
    return {
        "run": result.run,
        "label": result.label,
        "colour": figures.colour(result.norm),
        "usual": result.usual,
        "kept": None if result.seeds else result.metrics["epoch"],
        "errors": errors,
        "quantiles": [(name, _short(values)) for name, values in result.quantiles.items()],
    }


def _short(values: Iterable[float]) -> list[float | None]:
    """`values` to five digits; JSON has no infinite or undefined numbers."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def _inline(picture: Path) -> str:
    """The SVG file `picture` as a data URL; coordinates lose digits that nobody sees."""
    content = re.sub(r"([1-9]\d*\.\d\d)\d+", r"\1", picture.read_text())
    content = re.sub(r"\s+", " ", content)
    return "data:image/svg+xml," + quote(content, safe=" ,;:/=()")
