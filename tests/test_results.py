"""What people read: scores, tables, figures, and that files are whole or absent."""

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from normlab.config import params
from normlab.evaluation.scores import scores
from normlab.report import figures, html, results
from normlab.report.results import (
    ERRORS,
    SCORES,
    SETS,
    Result,
    Training,
    best,
    differences,
    find,
    markdown,
    standard_error,
    write_tables,
)
from normlab.utils import files


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
    quantiles = {"1 %": [loss] * 3, "99 %": [5 * loss] * 3}
    predictions = [{"actual": "cat", "predicted": "dog"}, {"actual": "dog", "predicted": "dog"}]
    return Result(run, metrics, log, quantiles, predictions, metrics["batch_size"] == 128)


RESULTS = [
    result("main", "torch_bn", 128, 0.8),
    result("bn", "bn", 128, 0.82),
    result("bn-small", "bn", 8, 0.81),
    result("nn", "nn", 128, 0.1, diverged=True),
]

BIN = result("bin", "bin", 128, 0.79)


def repeated(chosen: Result, *accuracies: float, epochs: int = 3) -> Result:
    """`chosen` with several seeds, whose errors do not change over the epochs."""
    seeds = tuple(
        Training(
            {f"{s}_{score}": accuracy for s in SETS for score in SCORES},
            dict.fromkeys(ERRORS, [1 - accuracy] * (epochs + place)),
        )
        for place, accuracy in enumerate(accuracies)
    )
    return dataclasses.replace(chosen, seeds=seeds)


SEVERAL = [repeated(chosen, 0.5, 0.6, 0.7) for chosen in RESULTS]


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


def test_of_several_seeds_mean_and_deviation_are_shown() -> None:
    one, several = RESULTS[0], repeated(RESULTS[0], 0.5, 0.6, 0.7, epochs=2)
    assert one.percent("test_accuracy") == "80.00"
    assert several.percent("test_accuracy").replace("\N{NO-BREAK SPACE}", " ") == "60.00 ± 10.00"
    assert one.curve("val_error") == (pytest.approx([0.22, 0.24, 0.26]), None)
    means, deviations = several.curve("val_error")  # over the epochs that all have
    assert means == pytest.approx([0.4, 0.4])
    assert deviations == pytest.approx([0.1, 0.1])
    assert best([*RESULTS, repeated(RESULTS[3], 0.95, 0.99)]).seeds


def test_standard_error_is_binomial() -> None:
    assert standard_error(0.9, 10_000) == pytest.approx(0.003)


def test_markdown_marks_the_best_of_each_column_and_names_what_diverged() -> None:
    lines = markdown(RESULTS).splitlines()
    table = lines[: 2 + len(RESULTS)]
    assert len({line.count("|") for line in table}) == 1
    assert table[0].startswith("| run | norm | batch size | test accuracy | test macro-F1 | val")
    assert "**82.00**" in lines[3]
    assert not any("**" in line for line in (*lines[:3], *lines[4:]))
    assert "(diverged)" in lines[5]
    assert "Micro-F1 is the same as accuracy" in lines[-1]


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
    assert metrics["bn"] == {"val": 82, "test": 82, "f1": 41}
    [bn] = [row for row in files.read_csv(tmp_path / "summary.csv") if row["run"] == "bn"]
    assert bn["test_f1_micro"] == bn["test_accuracy"] == "0.82"


def stopped_early(chosen: Result) -> Result:
    """`chosen`, had it ended after two epochs, with features that grew large."""
    quantiles = {"1 %": [-1.0, -10.0], "99 %": [5.0, 5000.0]}
    return dataclasses.replace(chosen, log=chosen.log[:2], quantiles=quantiles)


@pytest.mark.parametrize(
    "chosen",
    [RESULTS, RESULTS[:1], RESULTS[3:], SEVERAL, [stopped_early(RESULTS[0]), *RESULTS[1:]]],
    ids=["all", "one", "nan", "several seeds", "of other lengths"],
)
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
    usual, small = lines["bn: Batch (BN), 128"], lines["bn-small: Batch (BN), 8"]
    assert usual.get_color() == small.get_color() != lines["main: PyTorch BN, 128"].get_color()
    assert (usual.get_linestyle(), small.get_linestyle()) == ("-", "--")


def test_curves_of_several_seeds_have_a_band() -> None:
    def bands(chosen: list[Result]) -> int:
        return len(figures.error_curves(chosen).axes[1].collections)

    assert (bands(RESULTS), bands(SEVERAL)) == (0, len(SEVERAL))


def test_sanity_gives_the_difference_of_the_curves() -> None:
    assert differences(RESULTS[0], RESULTS[1], "val_error") == pytest.approx([-0.02] * 3)


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
    link = tmp_path / "link"
    link.symlink_to(path)
    with files.atomic_folder(link) as temporary:
        (temporary / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]
    assert link.is_symlink()
    with pytest.raises(ZeroDivisionError), files.atomic_folder(path) as temporary:
        (temporary / "half").touch()
        raise ZeroDivisionError
    assert [file.name for file in path.iterdir()] == ["new"]
    assert sorted(tmp_path.iterdir()) == [path, link]


SETUP = {
    "dataset": "digits", "seed": 1, "model": {"n": 2, "groups": 8},
    "train": params.load(ROOT / "params.yaml").train.model_dump(),
    "comparison": {"batch_size": 128, "small_batch_size": 8},
}  # fmt: skip


def report(folder: Path, chosen: list[Result]) -> str:
    html.write(folder / "report.html", chosen, SETUP)
    return (folder / "report.html").read_text()


def markup(page: str) -> str:
    """A page without what stands in its scripts and its style."""
    return re.sub(r"(<(script|style)[^>]*>).*?(?=</\2>)", r"\1", page, flags=re.DOTALL)


def prose(page: str) -> str:
    """What a reader sees of a page's text."""
    return " ".join(re.sub(r"<[^>]+>", "", markup(page)).split())


def test_the_report_is_one_file_that_asks_nothing_of_a_network(tmp_path: Path) -> None:
    page = report(tmp_path, RESULTS)
    assert page == report(tmp_path, RESULTS)
    assert not re.search(r"""(src|href)=["'](?!data:)""", markup(page))
    assert markup(page).count("<img ") == len(figures.FIGURES)
    assert '<td class="best">82.00</td>' in page
    assert len(page) < 2_000_000


def test_the_report_answers_each_question_before_its_figure(tmp_path: Path) -> None:
    page = markup(report(tmp_path, [*RESULTS, BIN]))
    for number in range(1, 9):
        _, _, section = page.partition(f"<h2>{number} · ")
        before, _, _ = section.partition("<h2>")[0].partition("<figure")
        assert '<p class="answer">' in before


def test_one_seed_claims_nothing_that_several_would_have_to_show(tmp_path: Path) -> None:
    page = report(tmp_path, [*RESULTS, BIN])
    assert '<span class="tag other direction">' in page
    text = prose(page)
    assert "One seed cannot tell whether that is more than chance" in text
    assert not re.search("by more than chance|no more than chance|agrees|undecided|±", text, re.I)


def test_several_seeds_give_deviations_and_verdicts(tmp_path: Path) -> None:
    text = prose(report(tmp_path, SEVERAL)).replace("\N{NO-BREAK SPACE}", " ")
    assert "60.00 ± 10.00" in text
    assert re.search(r"The winner's lead over .+ is no more than chance\.", text)
    assert "One seed" not in text
    assert '<span class="tag undecided">' in report(tmp_path, [*SEVERAL, repeated(BIN, 0.6, 0.61)])
    apart = [repeated(RESULTS[0], 0.8, 0.81), repeated(RESULTS[3], 0.1, 0.11)]
    text = prose(report(tmp_path, apart))
    assert "All others are behind the winner by more than chance" in text


@pytest.mark.parametrize("chosen", [RESULTS[:1], RESULTS[3:]], ids=["one", "diverged"])
def test_the_report_copes_with_few_runs(tmp_path: Path, chosen: list[Result]) -> None:
    page = report(tmp_path, chosen)
    assert "bn and torch_bn are not both among the runs" in page
    assert "No norm was trained at batch size 128 and at a smaller one" in page
    data = re.search(r'id="runs">(.*?)</script>', page)
    assert data
    json.loads(data[1], parse_constant=pytest.fail)  # a browser reads no NaN


@pytest.mark.filterwarnings("error")
def test_class_names_that_the_font_lacks_are_drawn_as_numbers(tmp_path: Path) -> None:
    names = {"cat": "\N{TEST TUBE} cat", "dog": "\u72ac $5$"}
    predictions = [{k: names[v] for k, v in row.items()} for row in RESULTS[0].predictions]
    renamed = [dataclasses.replace(result, predictions=predictions) for result in RESULTS]
    drawn = figures.confusion(renamed)
    labels = [label.get_text() for label in drawn.axes[0].get_xticklabels()]
    assert labels == ["U+72AC \\$5\\$", "U+1F9EA cat"]
    drawn.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("count", [10, 100, 300])
def test_the_confusion_of_many_classes_stays_a_picture_of_moderate_size(count: int) -> None:
    predictions = [{"actual": f"{i:03}", "predicted": "000"} for i in range(count)]
    drawn = figures.confusion([dataclasses.replace(RESULTS[0], predictions=predictions)])
    assert max(drawn.get_size_inches()) < 13
    labels = drawn.axes[0].get_yticklabels()
    drawn.draw_without_rendering()
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.y0)
    assert len(boxes) > 9
    assert all(one.y1 <= other.y0 + 2 for one, other in itertools.pairwise(boxes))
