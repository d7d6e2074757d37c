"""What people open in a browser: every chart is drawn, nothing is fetched, nothing complains."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from conftest import ROOT, Workspace, copy_repository
from test_report import BIN, LONG, RESULTS, SEVERAL, report

from normlab.config import pipeline
from normlab.report import charts, figures
from normlab.report.results import Study
from normlab.utils import files

#: Put at the end of a page: says what is to be seen of it. On the first of a report's charts it
#: moves the pointer to a point, then clicks on the legend's first entry.
LOOK = """
<script>
const later = (ms) => new Promise((done) => setTimeout(done, ms));
const act = (on, ...kinds) => {
  const { x, y, width, height } = on.getBoundingClientRect();
  const place = { bubbles: true, clientX: x + width / 2, clientY: y + height / 2 };
  for (const kind of kinds) on.dispatchEvent(new PointerEvent(kind, place));
};
later(4000).then(async () => {
  const seen = {
    charts: [...document.querySelectorAll("svg.marks")].map((chart) =>
      chart.getBoundingClientRect().width > 100
        ? chart.querySelectorAll("path[d]:not([d=''])").length : 0),
    pictures: [...document.images].map((image) => image.complete && image.naturalWidth),
    shown: [...document.images].map((image) => image.clientWidth),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  };
  const chart = document.querySelector(".charts svg.marks");
  if (chart) {
    const lines = () =>
      [...chart.querySelectorAll(".mark-line path")].map((line) => Number(line.getAttribute("opacity")));
    act(chart.querySelectorAll(".mark-symbol.layer_2_marks path")[1], "pointerover", "pointermove");
    await later(500);
    seen.tooltip = document.querySelector("#vg-tooltip-element").innerText.split(/\\s*\\n\\s*|\\t/);
    seen.before = lines();
    act(chart.querySelector(".role-legend-label text"), "click");
    await later(500);
    seen.after = lines();
  }
  parent.postMessage(encodeURIComponent(JSON.stringify(seen)), "*");
});
</script>
"""  # noqa: E501
#: a window of a browser without a screen is at least 500 pixels wide; a frame may be narrower
FRAME = """<!DOCTYPE html><title></title><body style="margin: 0">
<iframe src="{file}" style="border: 0; width: {width}px; height: 4000px"></iframe>
<script>onmessage = (event) => {{ document.title = "seen:" + event.data; }};</script>
"""


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no Chromium: install the package chromium")
    return found


@dataclass
class Seen:
    """What a page looks like."""

    charts: list[int]  #: how many shapes each chart draws
    pictures: list[int]  #: the width of each picture in itself
    shown: list[int]  #: the width at which it is shown, 0 if it is not
    overflow: int  #: by so many pixels the page is wider than its window
    complaints: list[str]
    tooltip: list[str] | None = None
    before: list[float] | None = None  #: opacity of the first chart's lines
    after: list[float] | None = None  #: the same with one entry of the legend clicked


def look(chromium: str, folder: Path, content: str, width: int = 1200) -> Seen:
    """Open the page `content`, which lies in `folder`, in a window of that width."""
    head, _, tail = content.rpartition("</body>")
    copy, frame = folder / "looked-at.html", folder / "frame.html"
    copy.write_text(f"{head}{LOOK}</body>{tail}")
    frame.write_text(FRAME.format(file=copy.name, width=width))
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={max(width, 500)},4000",
        "--dump-dom", frame.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>seen:(.*?)</title>", done.stdout)
    assert found, done.stderr
    seen: dict[str, Any] = json.loads(unquote(found[1]))
    complaints = [
        line
        for line in done.stderr.splitlines()
        if "CONSOLE" in line and re.search(r"error|failed|not defined", line, re.IGNORECASE)
    ]
    return Seen(**seen, complaints=complaints)


def test_the_committed_page_is_what_the_module_makes() -> None:
    assert (ROOT / charts.PAGE).read_text() == charts.page()


def test_editors_can_resize_a_chart() -> None:
    for template in (ROOT / charts.TEMPLATES).iterdir():
        for size in ("WIDTH", "HEIGHT"):
            assert f'"<DVC_METRIC_PLOT_{size}>"' in template.read_text(), template


def test_every_run_is_in_the_chart_of_logs() -> None:
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    [[chart]] = [plot.values() for plot in content["plots"][:1]]
    runs = pipeline.runs(ROOT / "dvc.yaml")
    assert list(chart["y"]) == [f"data/runs/{run}/log.csv" for run in runs]


@pytest.mark.slow
def test_plots_show_needs_no_pulled_data_and_shows_a_log_that_grows(tmp_path: Path) -> None:
    made = copy_repository(tmp_path / "repository")
    log = made.path / "data/runs/bn/log.csv"

    def shown() -> str:
        done = made.run("dvc", "plots", "show")
        assert "WARNING" not in done.stderr
        assert "failed" not in done.stderr
        return (made.path / "dvc_plots/index.html").read_text()

    assert shown().count("var spec = ") == 6
    files.write_csv(log, [{"epoch": 1, "val_error": 0.123454321}], ("epoch", "val_error"))
    assert "0.123454321" in shown()


@pytest.mark.slow
def test_plots_show_draws_every_chart_without_a_network(
    finished: Workspace, chromium: str, tmp_path: Path
) -> None:
    plots = tmp_path / "plots"
    finished.run("dvc", "plots", "show", "--out", str(plots))
    content = (plots / "index.html").read_text()
    assert not re.search(r"""<(script|link)[^>]+(src|href)=["']http""", content)
    seen = look(chromium, plots, content)
    assert not seen.complaints
    assert (len(seen.charts), len(seen.pictures)) == (6, len(figures.FIGURES))
    assert min(seen.charts) > 10
    assert min(seen.pictures) > 500


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1000])
@pytest.mark.parametrize(
    ("chosen", "count"),
    [([*RESULTS, BIN], 3), (SEVERAL, 3), (LONG, 5)],
    ids=["one seed", "several", "long"],
)
def test_the_report_is_drawn_and_nowhere_wider_than_its_window(
    width: int, chosen: list[Any], count: int, chromium: str, tmp_path: Path
) -> None:
    seen = look(chromium, tmp_path, report(tmp_path, Study(chosen)), width)
    assert not seen.complaints
    assert seen.overflow == 0
    assert min(seen.charts) > 10
    assert len(seen.charts) == count
    assert len(seen.pictures) == len(figures.FIGURES)
    assert min(seen.pictures) > 300
    assert seen.shown.count(0) == 2  # charts of errors and of quantiles stand in their place


@pytest.mark.slow
def test_curves_can_be_read_off(chromium: str, tmp_path: Path) -> None:
    seen = look(chromium, tmp_path, report(tmp_path, Study([SEVERAL[0], *RESULTS[1:]])))
    shown = {"run": "main: PyTorch BN, 128", "epoch": "2", "error": "40.00% ± 10.00%"}
    assert seen.tooltip == [cell for row in shown.items() for cell in row]
    assert seen.before == [1, 1, 1, 1]
    assert seen.after == [1, 0.1, 0.1, 0.1]


@pytest.mark.slow
def test_without_scripts_all_pictures_show(chromium: str, tmp_path: Path) -> None:
    page = report(tmp_path, Study(RESULTS))
    content = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    seen = look(chromium, tmp_path, content, 390)
    assert len(seen.shown) == len(figures.FIGURES)
    assert min(seen.shown) > 300
    assert seen.overflow == 0
