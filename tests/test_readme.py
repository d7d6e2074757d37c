"""The README's tables are those of the committed files; its links lead somewhere."""

import re
from pathlib import Path

import pytest
from conftest import ROOT

from normlab.base import files
from normlab.base.errors import NormlabError
from normlab.report import readme

PAGES = [path.relative_to(ROOT) for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]


def test_the_tables_are_those_of_the_committed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert sum(page.read_text().count("<!-- end -->") for page in PAGES) >= 7
    for page in PAGES:
        assert readme.renewed(page.read_text()) == page.read_text(), "`make readme` renews them"


def test_a_table_follows_its_source(tmp_path: Path) -> None:
    source, page = tmp_path / "summary.csv", tmp_path / "README.md"
    row = {"run": "x", "norm": "ln", "batch_size": 8, "epoch": 3, "diverged": True,
           "val_accuracy": 0.5, "test_accuracy": 0.25, "test_f1_micro": 0.125,
           "test_f1_macro": 1}  # fmt: skip
    files.write_csv(source, [row], tuple(row))
    page.write_text(f"before\n<!-- results {source} -->\nold\n<!-- end -->\nafter\n")
    readme.update(page)
    lines = page.read_text().splitlines()
    assert lines[4] == "| `x` | Layer (LN) (diverged) | 8 | 3 | 50.00 | 25.00 | 12.50 | 100.00 |"
    assert (lines[0], lines[-1], len(lines)) == ("before", "after", 7)


def test_results_stand_beside_what_others_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"run": "x", "norm": "ln", "batch_size": 8, "test_accuracy": 0.876}
    files.write_csv(Path("results/summary.csv"), [row], tuple(row))
    files.write_csv(Path("anchors.csv"), [{"run": "x", "test_accuracy": 0.9}],
                    ("run", "test_accuracy"))  # fmt: skip
    text = readme.renewed("<!-- anchors anchors.csv -->\n<!-- end -->")
    assert "| `x` | Layer (LN) | 8 | 87.6 | 90.0 | -2.4 |" in text


def test_numbers_of_a_column_have_equally_many_decimals(tmp_path: Path) -> None:
    rows = [dict.fromkeys(readme.JOBS, "1") | {"norm": "bn", "gain": g} for g in ("1.25", "1")]
    files.write_csv(tmp_path / "jobs.csv", rows, tuple(rows[0]))
    text = readme.renewed(f"<!-- jobs {tmp_path / 'jobs.csv'} -->\n<!-- end -->")
    assert "| 1 | bn | 1 | 1 | 1.25 |\n| 1 | bn | 1 | 1 | 1.00 |" in text


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(
        NormlabError, match="<!-- other x -->: must be one of anchors, jobs, recipe, results, speed"
    ):
        readme.renewed("<!-- other x -->\n<!-- end -->")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files(page: Path) -> None:
    for link in re.findall(r"\]\((?!http|#)(.+?)\)", (ROOT / page).read_text()):
        assert (ROOT / page.parent / link).exists(), link


def test_the_readme_is_short_and_links_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for page in PAGES:
        assert page == Path("README.md") or f"]({page})" in text
