"""The README's tables are those of the committed files; its links lead somewhere."""

import re
from math import nan
from pathlib import Path

import pytest
from conftest import ROOT, refused

from normlab.report import readme
from normlab.report.results import SHOWN
from normlab.utils import files

PAGES = [path.relative_to(ROOT) for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]


def test_the_tables_are_those_of_the_committed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert sum(page.read_text().count("<!-- end -->") for page in PAGES) >= 7
    for page in PAGES:
        assert readme.renewed(page.read_text()) == page.read_text(), "`make readme` renews them"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the results of two runs, and what others report of one, and of a third norm."""
    monkeypatch.chdir(tmp_path)
    row = {"run": "x", "norm": "ln", "batch_size": 8, "seeds": 2, "diverged": 1}
    row |= dict(zip(SHOWN, (0.5, 0.876, 0.125), strict=True))
    one = {"run": "z", "batch_size": 4, "seeds": 1} | dict.fromkeys(
        (f"{name}_sd" for name in SHOWN), ""
    )
    row |= dict.fromkeys(one, 0.01) | {"run": "x", "batch_size": 8, "seeds": 2}
    files.write_csv("results/summary.csv", [row, row | one], tuple(row))
    theirs = {"batch_size": 8, "test_accuracy": 0.9, "source": "ann/norms"}
    reported = [{"norm": norm, **theirs} for norm in ("ln", "gn")]
    files.write_csv(readme.REPORTED, reported, tuple(reported[0]))
    return tmp_path


def test_a_table_follows_its_source(place: Path) -> None:
    page = place / "README.md"
    page.write_text("before\n<!-- results results/summary.csv -->\nold\n<!-- end -->\nafter\n")
    readme.update(page)
    lines = page.read_text().replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert lines[4] == (
        "| `x` | Layer (LN) (1 of 2 diverged) | 8 | 2 | 50.00 ± 1.00 | 87.60 ± 1.00 | 12.50 ± 1.00 "
        "| 90 | [ann](https://github.com/ann/norms) | -2.4 |"
    )
    assert lines[5] == (  # nobody reports on z
        "| `z` | Layer (LN) (diverged) | 4 | 1 | 50.00 | 87.60 | 12.50 |  |  |  |"
    )
    assert lines[3].endswith("| ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    assert (lines[0], lines[-1], len(lines)) == ("before", "after", 8)


def test_numbers_of_a_column_have_equally_many_decimals(tmp_path: Path) -> None:
    rows = [{"norm": "bn", "batch_size": 8, "other": 1, "gain": gain} for gain in (1.25, 1)]
    files.write_csv(tmp_path / "jobs.csv", rows)
    text = readme.renewed(f"<!-- speed {tmp_path / 'jobs.csv'} -->\n<!-- end -->")
    assert "| 8 | bn | 1.25 |\n| 8 | bn | 1.00 |" in text


def test_trials_stand_by_length_batch_size_and_norm_with_a_column_a_change(tmp_path: Path) -> None:
    path = tmp_path / "recipe.csv"
    rows: list[dict[str, object]] = [
        dict(zip(("norm", "batch_size", "epochs", "change", "val_accuracy"), row, strict=True))
        for row in (
            ("bn", 128, 100, "the recipe", 0.5),
            ("bn", 8, 20, "the recipe", 0.25),
            ("nn", 128, 20, "Nesterov", nan),
            ("bn", 128, 20, "the recipe", 0.5),
            ("bn", 128, 20, "the recipe", 0.7),  # another seed
        )
    ]
    files.write_csv(path, rows, tuple(rows[0]))
    text = readme.renewed(f"<!-- recipe {path} -->\n<!-- end -->").replace("\u00a0", " ")
    assert text.splitlines()[3:-1] == [
        "| 20 | 128 | bn | 60.00 ± 14.14 |  |",
        "| 20 | 128 | nn |  | diverged |",
        "| 20 | 8 | bn | 25.00 |  |",
        "| 100 | 128 | bn | 50.00 |  |",
    ]


def test_an_unknown_table_is_named() -> None:
    line = refused(lambda: readme.renewed("<!-- other x -->\n<!-- end -->"))
    assert line.startswith("<!-- other x -->: must be one of recipe, results, speed")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files(page: Path) -> None:
    for link in re.findall(r"\]\((?!http|#)(.+?)\)", (ROOT / page).read_text()):
        assert (ROOT / page.parent / link).exists(), link


def test_the_readme_is_short_and_links_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for page in PAGES:
        assert page == Path("README.md") or f"]({page})" in text
