"""The study as one HTML file that carries its figures: to be read, sent, printed."""

import base64
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from normlab.base import files
from normlab.report import figures, findings
from normlab.report.results import (
    SCORES,
    SETS,
    TITLES,
    Result,
    best,
    norm_name,
    top,
)
from normlab.report.seeds import Seeds

TEMPLATE = "report.html.j2"


def write(path: Path, results: list[Result], setup: Mapping[str, Any], seeds: list[Seeds]) -> None:
    """Write the report on `results` to `path`.

    `setup` are the params that say how the runs were made: `dataset`, `seed`, and the sections
    `split`, `model` and `train`.
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
    environment.filters["points"] = _points
    with TemporaryDirectory() as folder:
        figures.draw_all(Path(folder), results, 100, "svg")
        pictures = {file.stem: _inline(file) for file in sorted(Path(folder).iterdir())}
    counts = results[0].metrics["images"]
    effects = findings.batch_effects(results)
    page = environment.get_template(TEMPLATE).render(
        results=results,
        norm_name=norm_name,
        sets=SETS,
        scores=SCORES,
        titles=TITLES,
        top=top(results),
        best=best(results),
        ranking=findings.ranking(results),
        sanity=findings.sanity(results),
        effects=effects,
        calmer=findings.calmer(effects),
        spreads=findings.spreads(results),
        claims=findings.claims(results),
        confused=findings.confusions(best(results)),
        seeds=seeds,
        setup=setup,
        counts=counts,
        figures=pictures,
    )
    files.write_text(path, page)


def _points(value: float) -> str:
    return f"{100 * value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _inline(picture: Path) -> str:
    """The SVG file `picture` as a data URL."""
    content = base64.b64encode(picture.read_bytes()).decode()
    return f"data:image/svg+xml;base64,{content}"
