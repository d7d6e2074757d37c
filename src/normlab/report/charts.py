"""The charts: Vega-Lite templates in .dvc/plots, which `dvc plots show` and the report both fill.

A new chart is a template there; the runs' colours are in curves.json. The charts' library is part
of the pages, which therefore need no network: DVC's own page would load it.
`python -m normlab.report.charts` updates the library in `.dvc/page.html`, the page of
`dvc plots show` (`plots.html_template` in .dvc/config). DVC puts the plots in place of {plot_divs}
there; its placeholder for scripts is left out, which would load the library a second time.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from normlab.utils import files

PAGE = Path(".dvc/page.html")
TEMPLATES = Path(".dvc/plots")
#: what a chart needs of curves.csv or quantiles.csv, in addition to its values
COLUMNS = ("label", "epoch", "quantile")
VEGA_LITE = "5.21"  #: of the major version that the templates are written for


def scripts() -> str:
    """The scripts of PAGE: the chart library, Vega, and a `vegaEmbed` that fits charts in."""
    return PAGE.read_text(encoding="utf-8").partition("<script>")[2].rpartition("</script>")[0]


def page() -> str:
    """The content of PAGE with the installed version of the library."""
    from vl_convert import javascript_bundle

    head, _, rest = PAGE.read_text(encoding="utf-8").partition("<script>\n")
    bundle = javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]  # wrong stubs
    return f"{head}<script>\n{bundle}\n</script>{rest.partition('</script>')[2]}"


@cache
def palette() -> list[str]:
    """The colours of runs, in the order of runs, as the template of curves has them."""
    template = json.loads((TEMPLATES / "curves.json").read_text(encoding="utf-8"))
    return template["encoding"]["color"]["scale"]["range"]


def fill(
    template: str, rows: Iterable[Mapping[str, str]], y: str, title: str, label: str
) -> dict[str, Any]:
    """The chart that DVC draws of the column `y` of `rows`, over their column `epoch`.

    Without a legend of revisions, since there is one, and without zoom, which would capture a
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
