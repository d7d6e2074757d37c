"""What people open in a browser: every chart is drawn, nothing is fetched, nothing complains."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, Workspace

from normlab.report import figures, page

#: put at the end of a page: says in the page's title how much each picture has on it
LOOK = """
<script>
setTimeout(() => {
  const charts = [...document.querySelectorAll("svg.marks")].map((chart) => {
    const box = chart.getBoundingClientRect();
    return box.width > 100 ? chart.querySelectorAll("path[d]:not([d=''])").length : 0;
  });
  const images = [...document.images].map((image) => image.complete ? image.naturalWidth : 0);
  document.title = "drawn:" + charts.join(",") + ";" + images.join(",");
}, 4000);
</script>
"""


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no Chromium: install the package chromium")
    return found


def look(chromium: str, path: Path, width: int = 1200) -> tuple[list[int], list[int], list[str]]:
    """Shapes that each chart of a page draws, the width of each image, and what went wrong."""
    copy = path.with_name(f"looked-at-{path.name}")
    head, _, tail = path.read_text().rpartition("</body>")
    copy.write_text(f"{head}{LOOK}</body>{tail}")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000",
        f"--window-size={width},4000", "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    copy.unlink()
    title = re.search(r"<title>drawn:([\d,]*);([\d,]*)</title>", done.stdout)
    assert title, done.stderr
    complaints = [
        line
        for line in done.stderr.splitlines()
        if "CONSOLE" in line and re.search(r"error|failed|not defined", line, re.IGNORECASE)
    ]
    charts, images = ([int(n) for n in filter(None, part.split(","))] for part in title.groups())
    return charts, images, complaints


def test_the_committed_page_is_what_the_module_makes() -> None:
    assert (ROOT / page.PAGE).read_text() == page.content()


@pytest.mark.slow
def test_plots_show_draws_every_chart_without_a_network(finished: Workspace, chromium: str) -> None:
    finished.run("dvc", "plots", "show", "--out", "plots")
    folder = finished.path / "plots"
    content = (folder / "index.html").read_text()
    assert not re.search(r"""<(script|link)[^>]+(src|href)=["']http""", content)
    charts, images, complaints = look(chromium, folder / "index.html")
    shutil.rmtree(folder)
    assert not complaints
    assert (len(charts), len(images)) == (6, len(figures.FIGURES))
    assert min(charts) > 20
    assert min(images) > 500


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1200], ids=["phone", "desk"])
def test_the_report_shows_every_figure_without_a_network(
    width: int, finished: Workspace, chromium: str
) -> None:
    charts, images, complaints = look(chromium, finished.path / "results/report.html", width)
    assert not complaints
    assert (len(charts), len(images)) == (0, len(figures.FIGURES))
    assert min(images) > 300
