"""The charts: Vega-Lite templates in .dvc/plots, which `dvc plots show` and the report both fill.

Their library is part of the pages, which so need no network: DVC's own page would load it.
`.dvc/page.html`, which `plots.html_template` in .dvc/config names, is what
`python -m normlab.report.charts` writes; a test compares the two.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from normlab.utils import files

PAGE = Path(".dvc/page.html")
TEMPLATES = Path(".dvc/plots")
#: what a chart needs of curves.csv or quantiles.csv, beside its values
COLUMNS = ("label", "epoch", "quantile")
VEGA_LITE = "5.21"  #: of the major version that the templates are written for

#: DVC puts the plots in the place of {plot_divs}. Its placeholder for scripts is left out: it
#: would load the library a second time, from the internet.
TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>normlab: plots</title>
{refresh_tag}
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1640px; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; }
#plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr)); gap: 1.5rem; }
#plots > div { min-width: 0; overflow-x: auto; border-color: #ddd !important; }
#plots > .wide { grid-column: 1 / -1; }
.vega-embed { width: 100%; }
img { max-width: 100%; height: auto; }
@media print { #plots { display: block; } #plots > div { break-inside: avoid; overflow: visible !important; margin-bottom: 1cm; } #plots svg { max-width: 100%; height: auto; } .vega-embed.has-actions { padding: 0; } summary, .vega-bindings { display: none; } img { max-height: 9cm; } h1 { break-after: avoid; } body > p { display: none; } }
</style>
<script>
SCRIPT
</script>
</head>
<body>
<h1>What does the normalization layer do to a ResNet?</h1>
<p>Click an entry of a legend to single out a run, drag to move, scroll to zoom, double-click to go back.</p>
<div id="plots">
{plot_divs}
</div>
</body>
</html>
"""  # noqa: E501

#: Charts as wide as their place; of those with a panel per run, as many columns as fit. In a
#: figure, a chart stands in the place of the picture, and has no menu.
FIT = """
const draw = window.vegaEmbed;
window.vegaEmbed = (place, spec) => {
  const box = document.querySelector(place), figure = box.closest("figure");
  figure?.classList.add("drawn"); // first: what is not shown has no width
  if (!spec.facet) Object.assign(spec, { width: "container", height: 320 });
  else if (spec.facet.field) {
    box.classList.add("wide");
    spec.columns = Math.max(1, Math.min(3, Math.floor(box.clientWidth / 165)));
    Object.assign(spec.spec, { width: (box.clientWidth - 90) / spec.columns - 20, height: 170 });
  }
  return draw(box, spec, { renderer: "svg", actions: !figure }).catch((error) => {
    figure?.classList.remove("drawn");
    console.error(error);
  });
};
"""


def script() -> str:
    """The chart library, Vega, as one script that defines `vegaEmbed`, which fits charts in."""
    from vl_convert import javascript_bundle

    return javascript_bundle(vl_version=VEGA_LITE) + FIT  # type: ignore[call-arg]  # wrong stubs


def page() -> str:
    """The content of PAGE."""
    return TEMPLATE.replace("SCRIPT", script())


@cache
def palette() -> list[str]:
    """The colours of runs, in the order of runs, as the template of curves has them."""
    template = json.loads((TEMPLATES / "curves.json").read_text())
    return template["encoding"]["color"]["scale"]["range"]


def fill(
    template: str, rows: Iterable[Mapping[str, str]], y: str, title: str, label: str
) -> dict[str, Any]:
    """The chart that DVC draws of the column `y` of `rows`, over their column `epoch`.

    Without what a page of one revision has no use for, and without zoom, which would catch a
    reader's scrolling.
    """
    from dvc_render.vega import VegaRenderer

    data = [
        {name: value for name, value in row.items() if name in (*COLUMNS, y, f"{y}_sd")}
        for row in rows
    ]
    properties = {"template": template, "template_dir": str(TEMPLATES), "x": "epoch", "y": y,
                  "title": title, "y_label": label}  # fmt: skip
    return _without(VegaRenderer(data, title, **properties).get_filled_template())


def _without(part: Any) -> Any:
    """`part` of a chart without its revisions and its zoom."""
    if isinstance(part, list):
        return [_without(each) for each in part if not _unwanted(each)]
    if isinstance(part, dict):
        return {name: _without(each) for name, each in part.items() if not _unwanted(each)}
    return part


def _unwanted(part: Any) -> bool:
    return isinstance(part, dict) and (part.get("field") == "rev" or part.get("bind") == "scales")


if __name__ == "__main__":
    files.write_text(PAGE, page())
