"""What people read: scores, tables, figures, and that files are whole or absent."""

import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, refused

from normlab.config import params
from normlab.config.paths import repeat_file
from normlab.evaluation.scores import scores
from normlab.report import charts, figures, html, results
from normlab.report.results import (
    CURVES,
    Result,
    Setting,
    Study,
    Training,
    differences,
    find,
    leading,
    markdown,
    write_tables,
)
from normlab.utils import files

CONFIG = params.load(ROOT / "params.yaml")


def repeating(seeds: Sequence[int] = (), batch_sizes: Sequence[int] = ()) -> params.Params:
    repeat = params.Repeat(seeds=[*seeds], batch_sizes=[*batch_sizes])
    return CONFIG.model_copy(update={"repeat": repeat})


def training(accuracy: float, errors: tuple[float, ...] = (), diverged: bool = False) -> Training:
    """One of three epochs, the first the best, or of the epochs that have these `errors`.

    `accuracy` is that on test images; that on others, and F1, are other numbers.
    """
    errors = errors or tuple(1 - accuracy + 0.02 * epoch for epoch in (1, 2, 3))
    best_epoch = errors.index(min(errors)) + 1
    losses = (math.nan if diverged else 1.0,) * len(errors)
    log = {name: losses if name.endswith("loss") else errors for name in CURVES}
    scores = {
        f"{s}_{kind}": accuracy - 0.01 * place - 0.001 * (kind == "f1_macro")
        for place, s in enumerate(results.SETS)
        for kind in results.KINDS
    }
    return Training(best_epoch, len(errors), diverged, scores, log)


def result(
    run: str, norm: str, batch_size: int, *accuracies: float,
    errors: tuple[float, ...] = (), diverged: bool = False,
) -> Result:  # fmt: skip
    """A run with these accuracies, one per seed."""
    feature = math.nan if diverged else 1.0
    return Result(
        norm,
        batch_size,
        trainings=tuple(training(accuracy, errors, diverged) for accuracy in accuracies),
        run=run,
        images={"train": 8, "val": 4, "test": 2},
        quantiles={"1 %": [feature] * 3, "99 %": [5 * feature] * 3},
        predictions=[{"actual": actual, "predicted": "dog"} for actual in ("cat", "dog")],
        reference=batch_size == 128,
    )


RESULTS = [
    result("main", "torch_bn", 128, 0.8),
    result("bn", "bn", 128, 0.82),
    result("bn-small", "bn", 8, 0.81),
    result("nn", "nn", 128, 0.1, diverged=True),
]
BIN = result("bin", "bin", 128, 0.79)


def repeated(chosen: Result, *accuracies: float) -> Result:
    """`chosen` with several seeds, of which it has one more epoch each."""
    trainings = tuple(
        training(accuracy, (1 - accuracy,) * (3 + place))
        for place, accuracy in enumerate(accuracies)
    )
    return dataclasses.replace(chosen, trainings=trainings)


SEVERAL = [repeated(chosen, 0.5, 0.6, 0.7) for chosen in RESULTS]
#: long enough for its last third to be drawn by itself
LONG = [result(r.run, r.norm, r.batch_size, 0.8, 0.9, errors=(0.5,) * 12) for r in RESULTS[:3]]
#: of two epochs, with features that grew large
SHORT = dataclasses.replace(
    RESULTS[0], trainings=(training(0.8, (0.3, 0.2)),),
    quantiles={"1 %": [-1.0, -10.0], "99 %": [5.0, 5000.0]},
)  # fmt: skip


def test_scores_are_scikit_learns() -> None:
    labels, predicted = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1])
    found = scores(labels, predicted)
    assert found["accuracy"] == found["f1_micro"] == 0.5
    # F1 of the classes: 2/3, 1/2 and, never predicted, 0.
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_best_is_by_validation_and_find_by_norm_and_batch_size() -> None:
    assert [result.run for result in leading(RESULTS)] == ["bn"]
    [bn] = RESULTS[1].trainings
    better = dataclasses.replace(bn, scores={**bn.scores, "val_accuracy": 0.9, "test_accuracy": 0})
    validated = dataclasses.replace(RESULTS[0], trainings=(better,))
    assert leading([*RESULTS, validated]) == [validated]
    assert find(RESULTS, "bn") is RESULTS[1]
    assert find(RESULTS, "ln") is None


def test_runs_that_share_the_best_validation_accuracy_are_all_named(tmp_path: Path) -> None:
    bn = RESULTS[1]
    twin = dataclasses.replace(RESULTS[0], trainings=bn.trainings)
    assert leading([twin, *RESULTS[2:], bn]) == [twin, bn]
    score = bn.percent("val_accuracy")
    text = prose(report(tmp_path, Study([twin, *RESULTS[2:], bn])))
    assert f"that of PyTorch BN, {score} %, and of Batch (BN), {score} %." in text
    text = prose(report(tmp_path, Study(RESULTS)))
    assert f"The highest validation accuracy is that of Batch (BN), {score} %." in text


def test_of_several_seeds_mean_and_standard_deviation_are_shown() -> None:
    one, several = RESULTS[0], repeated(RESULTS[0], 0.5, 0.6, 0.7)
    assert one.percent("test_accuracy") == "80.00"
    assert several.percent("test_accuracy").split("\N{NO-BREAK SPACE}") == ["60.00", "±", "10.00"]
    values, deviations = one.curve("val_error")
    assert (values.tolist(), deviations) == (pytest.approx([0.22, 0.24, 0.26]), None)
    values, deviations = several.curve("val_error")  # over the epochs that all have
    assert values.tolist() == pytest.approx([0.4] * 3)
    assert deviations is not None
    assert deviations.tolist() == pytest.approx([0.1] * 3)
    lost = result("nn", "nn", 128, 0.1, 0.1, diverged=True)
    assert np.isnan(lost.curve("val_loss")).all()
    assert leading([*RESULTS, repeated(RESULTS[3], 0.95, 0.99)])[0].seeds == 2


def test_how_many_seeds_diverged_is_said() -> None:
    assert RESULTS[3].name == "None (NN) (diverged)"
    mixed = dataclasses.replace(RESULTS[3], trainings=(training(0.9), *RESULTS[3].trainings))
    assert mixed.name == "None (NN) (1 of 2 diverged)"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what two runs, bn and gn at 128, left with seed 1, and with repetitions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    monkeypatch.setattr(results.pipeline, "runs", lambda: ["bn", "gn"])
    columns = {name: [0.5, 0.4] for name in CURVES}
    record = {"epoch": 2, "epochs": 2, "diverged": False, "images": {"val": 4}}
    scores = zip(results.SETS, (0.6, 0.55, 0.65), strict=True)
    record |= {s: dict.fromkeys(results.KINDS, score) for s, score in scores}
    for norm in ("bn", "gn"):
        record |= {"norm": norm, "batch_size": 128}
        folder = tmp_path / "data/runs" / norm
        files.write_json(folder / "scores.json", record)
        for name, row in (
            ("log", dict.fromkeys(CURVES, 0.5)),
            ("quantiles", {"q1": 0.5, "q99": 1.5}),
        ):
            files.write_csv(folder / f"{name}.csv", [{"epoch": epoch, **row} for epoch in (1, 2)])
        files.write_csv(folder / "predictions.csv", [], ("actual", "predicted"))
    everything = repeating([1, 2, 3], [2, 128]).model_dump()
    for norm, size, seed in results.pipeline.repetitions(everything):
        record |= {"norm": norm, "batch_size": size, "seed": seed, "log": columns}
        record["test"] = dict.fromkeys(results.KINDS, 0.6 + seed / 10)
        files.write_json(repeat_file(norm, size, seed), record)
    return tmp_path


def load(**repeat: list[int]) -> Study:
    return results.load(repeating(**repeat))


def test_repetitions_are_those_that_params_ask_for(data: Path) -> None:
    assert [run.samples("test_accuracy") for run in load().runs] == [[0.6], [0.6]]
    study = load(seeds=[3, 2])
    found = [run.samples("test_accuracy") for run in study.runs]
    assert found == [pytest.approx([0.6, 0.9, 0.8])] * 2
    assert study.runs[0].quantiles == {"1 %": [0.5, 0.5], "99 %": [1.5, 1.5]}


def test_a_batch_size_of_a_run_is_not_counted_twice(data: Path) -> None:
    assert [run.seeds for run in load(batch_sizes=[128]).runs] == [1, 1]


def test_batch_sizes_are_those_of_runs_and_of_repetitions(data: Path) -> None:
    sizes = load(seeds=[2], batch_sizes=[2]).by_batch_size()
    found = {norm: [(s.batch_size, s.seeds) for s in settings] for norm, settings in sizes.items()}
    assert found == {norm: [(128, 2), (8, 1), (2, 1)] for norm in ("bn", "gn")}
    assert load(seeds=[]).by_batch_size() == {}


def test_a_missing_or_damaged_file_is_named_with_what_makes_it(data: Path) -> None:
    def told(**repeat: list[int]) -> str:
        return refused(lambda: load(**repeat))

    repetition, scores = repeat_file("gn", 8, 3), Path("data/runs/bn/scores.json")
    repetition.write_text("{}")
    damaged = r"\S*gn-8-3.json: damaged .*; `dvc repro --force repeat-small@"
    assert re.match(damaged, told(seeds=[3]))
    repetition.unlink()
    assert told(seeds=[3]).endswith(": no such file; `dvc repro repeat-small@gn-8-3`")
    load(seeds=[2])  # which asks for others
    scores.write_text("[]")
    assert re.match("data/runs/bn: damaged .*; `dvc checkout --force`", told())
    scores.unlink()
    assert told().startswith(f"{scores}: no such file; `dvc pull`")


def test_markdown_marks_the_best_of_each_column_and_names_what_diverged() -> None:
    lines = markdown(RESULTS).splitlines()
    table = lines[: 2 + len(RESULTS)]
    assert len({line.count("|") for line in table}) == 1
    head = "| run | norm | batch size | seeds | test accuracy | test macro-F1 |"
    assert table[0].startswith(head)
    assert "**82.00**" in lines[3]
    assert not any("**" in line for line in (*lines[:3], *lines[4:]))
    assert "(diverged)" in lines[5]
    assert "Micro-F1 is the same as accuracy" in lines[-1]


def test_tables_hold_every_run_and_epoch(tmp_path: Path) -> None:
    write_tables(tmp_path, Study(RESULTS))
    curves = files.read_csv(tmp_path / "curves.csv")
    assert [(row["run"], row["epoch"]) for row in curves] == [
        (r.run, str(epoch)) for r in RESULTS for epoch in (1, 2, 3)
    ]
    assert (curves[0]["val_error"], curves[0]["val_error_sd"]) == ("0.22", "")
    quantiles = files.read_csv(tmp_path / "quantiles.csv")
    assert {row["quantile"] for row in quantiles} == {"1 %", "99 %"}
    assert len(quantiles) == 2 * len(curves)
    summary = files.read_csv(tmp_path / "summary.csv")
    assert [(row["run"], row["seeds"], row["diverged"]) for row in summary] == [
        (r.run, "1", "1" if r.run == "nn" else "0") for r in RESULTS
    ]
    assert summary[1]["test_f1_micro"] == summary[1]["test_accuracy"] == "0.82"


def test_tables_of_several_seeds_hold_standard_deviations(tmp_path: Path) -> None:
    write_tables(tmp_path, Study(SEVERAL, [Setting("bn", 2, (training(0.4),))]))
    curve = files.read_csv(tmp_path / "curves.csv")[0]
    assert (curve["train_error"], curve["train_error_sd"]) == ("0.4", "0.1")
    row = files.read_csv(tmp_path / "summary.csv")[0]
    assert (row["seeds"], row["test_accuracy_sd"][:4]) == ("3", "0.09")
    sizes = files.read_csv(tmp_path / "batch_sizes.csv")
    assert [(row["norm"], row["batch_size"], row["seeds"]) for row in sizes] == [
        ("bn", "128", "3"), ("bn", "8", "3"), ("bn", "2", "1")
    ]  # fmt: skip


@pytest.mark.parametrize("chosen", [RESULTS, SEVERAL], ids=["one seed", "several"])
def test_the_printed_summary_is_whole_in_80_columns(
    chosen: list[Result], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "80")
    write_tables(tmp_path, Study([*chosen, repeated(BIN, 0.8, 0.81) if chosen is SEVERAL else BIN]))
    results.show_summary(tmp_path)
    printed = capsys.readouterr().out
    assert "…" not in printed
    row = next(line for line in printed.splitlines() if line.startswith("bn-small"))
    expected = ["3", "59.00±10.00%", "60.00±10.00%", "59.90±10.00%"]
    if chosen is RESULTS:
        expected = ["1", "80.00%", "81.00%", "80.90%"]
    assert row.split()[-4:] == expected


@pytest.mark.parametrize(
    "chosen",
    [RESULTS, RESULTS[:1], RESULTS[3:], SEVERAL, LONG, [SHORT, *RESULTS[1:]]],
    ids=["all", "one", "nan", "several seeds", "long", "of other lengths"],
)
def test_every_figure_is_drawn_and_repeats(tmp_path: Path, chosen: list[Result]) -> None:
    for folder in ("first", "second"):
        figures.draw_all(tmp_path / folder, Study(chosen), 40, "png")
    for name in figures.FIGURES:
        drawn = [(tmp_path / folder / f"{name}.png").read_bytes() for folder in ("first", "second")]
        assert drawn[0].startswith(b"\x89PNG")
        assert drawn[0] == drawn[1]


def test_a_run_has_the_colour_that_charts_give_it_and_another_batch_size_is_dashed() -> None:
    lines = figures.error_curves(Study(RESULTS)).axes[0].get_lines()
    assert [line.get_color() for line in lines] == charts.palette()[: len(RESULTS)]
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--", "-"]
    assert [line.get_label() for line in lines] == [run.label for run in RESULTS]


def test_curves_of_several_seeds_have_a_band() -> None:
    def bands(chosen: list[Result]) -> int:
        return len(figures.error_curves(Study(chosen)).axes[1].collections)

    assert (bands(RESULTS), bands(SEVERAL)) == (0, len(SEVERAL))


def test_the_last_third_of_a_long_training_is_drawn_by_itself() -> None:
    assert len(figures.error_curves(Study(RESULTS)).axes) == 2
    drawn = figures.error_curves(Study(LONG)).axes
    assert [axis.get_lines()[0].get_xdata()[0] for axis in drawn] == [1, 1, 9, 9]


def test_accuracy_is_drawn_against_batch_size_on_a_logarithmic_axis() -> None:
    study = Study(SEVERAL, [Setting("bn", 2, (training(0.4),))])
    [axis] = figures.batch_size(study).axes
    [bars] = axis.containers
    assert axis.get_xscale() == "log"
    assert axis.get_xlim()[0] > axis.get_xlim()[1]
    assert bars.lines[0].get_xdata().tolist() == [128, 8, 2]
    assert bars.lines[0].get_ydata().tolist() == pytest.approx([0.6, 0.6, 0.4])
    heights = [np.ptp(segment[:, 1]) for segment in bars.lines[2][0].get_segments()]
    assert heights == pytest.approx([0.2, 0.2, 0])


def test_sanity_draws_both_curves_and_their_difference() -> None:
    left, right = figures.sanity(Study(RESULTS)).axes
    drawn = {line.get_label(): line.get_ydata().tolist() for line in left.get_lines()}
    errors = {"PyTorch BN": [0.22, 0.24, 0.26], "Batch (BN)": [0.2, 0.22, 0.24]}
    assert drawn == {
        f"{name}, {kind}": pytest.approx(values)
        for name, values in errors.items()
        for kind in ("training", "validation")
    }
    assert right.get_lines()[1].get_ydata().tolist() == pytest.approx([-0.02] * 3)


def test_accuracies_are_drawn_where_their_labels_say() -> None:
    [axis] = figures.accuracy(Study(SEVERAL)).axes
    values = [bars.lines[0].get_xdata().item() for bars in axis.containers]
    assert values == pytest.approx([0.6] * 4)
    lengths = [np.ptp(bars.lines[2][0].get_segments()[0][:, 0]) for bars in axis.containers]
    assert lengths == pytest.approx([0.2] * 4)
    assert [text.get_text() for text in axis.texts] == ["60.00\xa0±\xa010.00"] * 4
    assert [text.get_text() for text in axis.get_yticklabels()] == [run.label for run in SEVERAL]


def test_quantiles_and_runs_are_drawn_each_by_itself() -> None:
    features = figures.quantiles(Study(RESULTS[:2])).axes
    drawn = {line.get_label(): [*line.get_ydata()] for line in features[1].get_lines()}
    assert drawn == {"99 %": [5.0] * 3, "1 %": [1.0] * 3}
    errors = figures.runs(Study(RESULTS[:2])).axes
    *curves, best_epoch = errors[1].get_lines()
    assert [curve.get_ydata().tolist() for curve in curves] == [
        pytest.approx([0.2, 0.22, 0.24])
    ] * 2
    assert best_epoch.get_xydata().tolist() == [[1, pytest.approx(0.2)]]
    assert [axis.get_title() for axis in errors] == [run.label for run in RESULTS[:2]]


def test_sanity_gives_the_difference_of_the_curves() -> None:
    gaps, error = differences(RESULTS[0], RESULTS[1], "val_error")
    assert (gaps.tolist(), error) == (pytest.approx([-0.02] * 3), None)
    gaps, error = differences(SEVERAL[0], SEVERAL[1], "val_error")
    assert error is not None
    assert error.tolist() == pytest.approx([0.1 * math.sqrt(2 / 3)] * 3)


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


def report(folder: Path, study: Study) -> str:
    write_tables(folder, study)
    html.write(folder, study, CONFIG)
    return (folder / "report.html").read_text()


def markup(page: str) -> str:
    """A page without what stands in its scripts and its style."""
    return re.sub(r"(<(script|style)[^>]*>).*?(?=</\2>)", r"\1", page, flags=re.DOTALL)


def prose(page: str) -> str:
    """What a reader sees of a page's text."""
    return " ".join(re.sub(r"<[^>]+>", "", markup(page)).split())


def test_the_report_is_one_file_that_asks_nothing_of_a_network(tmp_path: Path) -> None:
    page = report(tmp_path, Study(RESULTS))
    assert page == report(tmp_path, Study(RESULTS))
    assert not re.search(r"""(src|href)=["'](?!data:)""", markup(page))
    assert markup(page).count("<img ") == len(figures.FIGURES)
    assert '<td class="best">82.00</td>' in page
    assert len(page) < 2_000_000


@pytest.mark.parametrize("chosen", [RESULTS, SEVERAL], ids=["one seed", "several"])
def test_the_report_answers_each_question_before_its_figure(
    chosen: list[Result], tmp_path: Path
) -> None:
    page = markup(report(tmp_path, Study([*chosen, BIN])))
    for number in range(1, 9):
        _, _, section = page.partition(f"<h2>{number} · ")
        before, _, _ = section.partition("<h2>")[0].partition("<figure")
        assert '<p class="answer">' in before


def test_the_report_has_a_column_for_each_norm_at_several_batch_sizes(tmp_path: Path) -> None:
    lost = training(0.4, diverged=True)
    others = [Setting("bn", 2, (lost,)), Setting("gn", 32, (training(0.7),))]
    page = report(tmp_path, Study([*SEVERAL, result("gn", "gn", 128, 0.75)], others))
    _, _, table = markup(page).partition("<th>batch size</th>")
    rows = re.findall("<tr>(.*?)</tr>", table.partition("</table>")[0])
    assert [[prose(cell) for cell in re.findall("<td>(.*?)</td>", row)] for row in rows] == [
        ["128", "60.00 ± 10.00 3 seeds", "75.00"], ["32", "", "70.00"],
        ["8", "60.00 ± 10.00 3 seeds", ""], ["2", "40.00 (diverged)", ""],
    ]  # fmt: skip


def test_one_seed_has_numbers_and_no_verdicts(tmp_path: Path) -> None:
    page = report(tmp_path, Study([*RESULTS, BIN]))
    assert '<span class="tag' not in page
    _, _, answers = markup(page).partition("<h2>1 · ")
    notes = r"<(figcaption|p class=\"note)[^>]*>.*?</(figcaption|p)>"
    text = prose(re.sub(notes, "", answers, flags=re.DOTALL))
    assert "Batch (BN) has the highest test accuracy, 82.00 %, and None (NN) the lowest" in text
    assert text.count("significant") == 1  # in the question
    assert not re.search(r"\b(agree|undecided|yes|no)\b|±", text)


def test_several_seeds_give_standard_deviations_and_verdicts(tmp_path: Path) -> None:
    page = report(tmp_path, Study([*SEVERAL, repeated(BIN, 0.6, 0.61)]))
    text = prose(page)
    assert "60.00 ± 10.00" in text
    assert "The best is not significantly better than PyTorch BN" in text
    assert "The worst is not significantly worse than" in text
    assert "and leave 2 undecided" in text
    assert '<span class="tag undecided">' in page
    apart = [repeated(RESULTS[1], 0.8, 0.81), repeated(RESULTS[0], 0.1, 0.11)]
    text = prose(report(tmp_path, Study(apart)))
    assert "The best is significantly better than PyTorch BN." in text
    assert "not significantly" not in text
    gap = r"a difference of \+70.00 \(\+.*\) points, which is statistically significant"
    assert re.search(gap, text)


def test_a_run_of_one_seed_among_others_has_no_verdict(tmp_path: Path) -> None:
    runs = [repeated(RESULTS[1], 0.8, 0.81), repeated(RESULTS[0], 0.7, 0.71), BIN]
    text = prose(report(tmp_path, Study(runs)))
    assert "each trained with 1 to 2 seeds" in text
    assert "The best is significantly better than PyTorch BN." in text
    assert not re.search("(better|worse) than [^.]*Batch-Instance", text)


def test_runs_of_one_norm_and_batch_size_are_told_apart(tmp_path: Path) -> None:
    """As after `dvc exp run -S norm=bn`."""
    text = prose(
        report(tmp_path, Study([dataclasses.replace(RESULTS[1], run="main"), *RESULTS[1:3]]))
    )
    assert "Batch (BN) (main) has the highest test accuracy" in text


def test_curves_are_compared_over_the_epochs_that_all_trainings_have(tmp_path: Path) -> None:
    stopped = training(0.4, (0.6, 0.5))
    ours = dataclasses.replace(RESULTS[1], trainings=(*RESULTS[1].trainings, stopped))
    text = prose(report(tmp_path, Study([SEVERAL[0], ours])))
    assert "over the last third of the 2 epochs that all have" in text


def test_class_names_that_are_not_unicode_are_in_the_report(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    predictions = [{"actual": name, "predicted": "cat"}, {"actual": "cat", "predicted": name}]
    study = Study([dataclasses.replace(RESULTS[0], predictions=predictions)])
    write_tables(tmp_path, study)
    html.write(tmp_path, study, CONFIG)
    assert b"mistakes\ncaf\xe9 for cat" in (tmp_path / "report.html").read_bytes()


@pytest.mark.parametrize("chosen", [RESULTS[:1], RESULTS[3:]], ids=["one", "diverged"])
def test_the_report_copes_with_few_runs(tmp_path: Path, chosen: list[Result]) -> None:
    page = report(tmp_path, Study(chosen))
    assert "bn and torch_bn are not both among the runs" in page
    assert "No norm was trained at batch size 128 and at a smaller one" in page
    found = re.findall(r"^vegaEmbed\(\S+, (.*)\);$", page, re.MULTILINE)
    assert len(found) == 3
    for spec in found:
        json.loads(spec, parse_constant=pytest.fail)  # a browser reads no NaN


@pytest.mark.filterwarnings("error")
def test_class_names_that_the_font_lacks_are_drawn_as_numbers(tmp_path: Path) -> None:
    names = {"cat": "\N{TEST TUBE} cat", "dog": "\u72ac $5$"}
    predictions = [{k: names[v] for k, v in row.items()} for row in RESULTS[0].predictions]
    renamed = [dataclasses.replace(result, predictions=predictions) for result in RESULTS]
    drawn = figures.confusion(Study(renamed))
    labels = [label.get_text() for label in drawn.axes[0].get_xticklabels()]
    assert labels == ["U+72AC \\$5\\$", "U+1F9EA cat"]
    drawn.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("count", [10, 100, 300])
def test_the_confusion_of_many_classes_stays_a_picture_of_moderate_size(count: int) -> None:
    predictions = [{"actual": f"{i:03}", "predicted": "000"} for i in range(count)]
    renamed = dataclasses.replace(RESULTS[0], predictions=predictions)
    drawn = figures.confusion(Study([renamed]))
    assert max(drawn.get_size_inches()) < 13
    labels = drawn.axes[0].get_yticklabels()
    drawn.draw_without_rendering()
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.y0)
    assert len(boxes) > 9
    assert all(one.y1 <= other.y0 + 2 for one, other in itertools.pairwise(boxes))
