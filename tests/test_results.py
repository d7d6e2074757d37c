"""What people read: scores, tables, figures, and that files are whole or absent."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from normlab.base import files, params
from normlab.evaluation.scores import scores
from normlab.report import figures, html, results
from normlab.report.results import (
    Result,
    best,
    differences,
    find,
    markdown,
    standard_error,
    write_tables,
)
from normlab.report.seeds import Seeds


def result(run: str, norm: str, batch_size: int, accuracy: float, diverged: bool = False) -> Result:
    values = {"accuracy": accuracy, "f1_micro": accuracy, "f1_macro": accuracy / 2}
    metrics = {
        "norm": norm, "batch_size": batch_size, "epoch": 2, "epochs": 3, "diverged": diverged,
        "images": {"train": 8, "val": 4, "test": 2},
        "train": values, "val": values, "test": values,
    }  # fmt: skip
    loss = math.nan if diverged else 1.0
    log = [
        {"epoch": e, "lr": 0.1, "train_loss": loss, "val_loss": loss,
         "train_error": 1 - accuracy + 0.01 * e, "val_error": 1 - accuracy + 0.02 * e}
        for e in (1.0, 2.0, 3.0)
    ]  # fmt: skip
    quantiles = [{"epoch": row["epoch"], "q1": loss, "q99": 5 * loss} for row in log]
    predictions = [{"actual": "cat", "predicted": "dog"}, {"actual": "dog", "predicted": "dog"}]
    return Result(run, metrics, log, quantiles, predictions, metrics["batch_size"] == 128)


RESULTS = [
    result("main", "torch_bn", 128, 0.8),
    result("bn", "bn", 128, 0.82),
    result("bn-8", "bn", 8, 0.81),
    result("nn", "nn", 128, 0.1, diverged=True),
]


def test_scores_are_scikit_learns() -> None:
    labels, predicted = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1])
    found = scores(labels, predicted)
    assert found["accuracy"] == found["f1_micro"] == 0.5
    # F1 of the classes: 2/3, 1/2 and, never predicted, 0.
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_best_is_by_validation_and_find_by_norm_and_batch_size() -> None:
    assert best(RESULTS).run == "bn"
    assert find(RESULTS, "bn") is RESULTS[1]
    assert find(RESULTS, "ln") is None


def test_standard_error_is_binomial() -> None:
    assert standard_error(0.9, 10_000) == pytest.approx(0.003)


def test_markdown_marks_the_best_of_each_column_and_names_what_diverged() -> None:
    lines = markdown(RESULTS).splitlines()
    assert len(lines) == 2 + len(RESULTS)
    assert len({line.count("|") for line in lines}) == 1
    assert "**82.00**" in lines[3]
    assert not any("**" in line for line in (*lines[:3], *lines[4:]))
    assert "(diverged)" in lines[5]


def test_tables_hold_every_run_and_epoch(tmp_path: Path) -> None:
    write_tables(tmp_path, RESULTS)
    curves = files.read_csv(tmp_path / "curves.csv")
    assert [(row["run"], row["epoch"]) for row in curves] == [
        (r.run, str(epoch)) for r in RESULTS for epoch in (1, 2, 3)
    ]
    quantiles = files.read_csv(tmp_path / "quantiles.csv")
    assert {row["quantile"] for row in quantiles} == {"1 %", "99 %"}
    assert len(quantiles) == 2 * len(curves)
    assert len(files.read_csv(tmp_path / "summary.csv")) == len(RESULTS)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == [r.run for r in RESULTS]
    assert metrics["bn"] == {"val_accuracy": 82, "test_accuracy": 82, "test_macro_f1": 41}


@pytest.mark.parametrize("chosen", [RESULTS, RESULTS[:1], RESULTS[3:]], ids=["all", "one", "nan"])
def test_every_figure_is_drawn_and_repeats(tmp_path: Path, chosen: list[Result]) -> None:
    for folder in ("first", "second"):
        figures.draw_all(tmp_path / folder, chosen, 40, "png")
    for name in figures.FIGURES:
        drawn = [(tmp_path / folder / f"{name}.png").read_bytes() for folder in ("first", "second")]
        assert drawn[0].startswith(b"\x89PNG")
        assert drawn[0] == drawn[1]


def test_a_norm_has_one_colour_and_another_batch_size_is_dashed() -> None:
    figure = figures.error_curves(RESULTS)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    at_128, at_8 = lines["Batch (BN), 128"], lines["Batch (BN), 8"]
    assert at_128.get_color() == at_8.get_color() != lines["PyTorch BN, 128"].get_color()
    assert (at_128.get_linestyle(), at_8.get_linestyle()) == ("-", "--")


def test_sanity_gives_the_difference_of_the_curves() -> None:
    _, difference = differences(RESULTS[0], RESULTS[1], "val_error")
    assert difference == pytest.approx([-0.02] * 3)


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(results.NormlabError, match=r"data/runs/bn/metrics.json: no such file"):
        results.load("bn", 128)


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with files.atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]


def test_the_report_is_one_file_that_asks_nothing_of_a_network(tmp_path: Path) -> None:
    setup = {
        "dataset": "digits", "seed": 1, "model": {"n": 2, "groups": 8},
        "train": params.load(ROOT / "params.yaml").train.model_dump(),
        "comparison": {"batch_size": 128, "small_batch_size": 8},
    }  # fmt: skip
    repeated = [Seeds("bn", 128, (0.5, 0.6))]
    for name in ("one.html", "two.html"):
        html.write(tmp_path / name, RESULTS, setup, repeated)
    page = (tmp_path / "one.html").read_text()
    assert page == (tmp_path / "two.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert page.count("<img ") == len(figures.FIGURES)
    for number in range(1, 8):
        assert f"<h2>{number} · " in page
    assert '<td class="best">82.00</td>' in page
    assert "55.00" in page  # the mean over seeds
    assert "Without a norm the training diverged" in page
    assert "which of them is less sensitive" not in page  # of one norm alone


@pytest.mark.parametrize("chosen", [RESULTS[:1], RESULTS[3:]], ids=["one", "diverged"])
def test_the_report_copes_with_few_runs(tmp_path: Path, chosen: list[Result]) -> None:
    setup = {
        "dataset": "digits", "seed": 1, "model": {"n": 2, "groups": 8},
        "train": params.load(ROOT / "params.yaml").train.model_dump(),
        "comparison": {"batch_size": 128, "small_batch_size": 8},
    }  # fmt: skip
    html.write(tmp_path / "report.html", chosen, setup, [])
    page = (tmp_path / "report.html").read_text()
    assert "bn and torch_bn are not both among the runs" in page
    assert "No norm was trained at batch size 128 and at a smaller one" in page


@pytest.mark.filterwarnings("error")
def test_class_names_that_the_font_lacks_are_drawn_as_numbers(tmp_path: Path) -> None:
    names = {"cat": "\N{TEST TUBE} cat", "dog": "\u72ac $5$"}
    predictions = [{k: names[v] for k, v in row.items()} for row in RESULTS[0].predictions]
    renamed = [dataclasses.replace(result, predictions=predictions) for result in RESULTS]
    drawn = figures.confusion(renamed)
    labels = [label.get_text() for label in drawn.axes[0].get_xticklabels()]
    assert labels == ["U+72AC \\$5\\$", "U+1F9EA cat"]
    drawn.savefig(tmp_path / "figure.png")
