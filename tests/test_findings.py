"""What the report says: differences, verdicts by several seeds, no verdict by one."""

import dataclasses
import math
from statistics import mean
from typing import Any

import pytest
from scipy.stats import ttest_ind
from test_report import result

from normlab.report import findings
from normlab.report.findings import Claim, Gap
from normlab.report.results import Result, Study


def run(norm: str, batch_size: int, *accuracies: float, **options: Any) -> Result:
    """A run with these accuracies, one per seed."""
    options = {"errors": (0.5, 0.4, 0.3), **options}
    return result(f"{norm}-{batch_size}", norm, batch_size, *accuracies, **options)


def around(norm: str, batch_size: int, accuracy: float, **options: Any) -> Result:
    """A run with three seeds, a tenth of a point around `accuracy` and the errors in `options`."""
    errors = options.pop("errors", (0.5, 0.4, 0.3))
    runs = [
        run(norm, batch_size, accuracy + by, errors=tuple(e - by for e in errors), **options)
        for by in (-0.001, 0, 0.001)
    ]
    return dataclasses.replace(runs[0], trainings=tuple(each.trainings[0] for each in runs))


def test_a_gap_of_single_seeds_is_never_significant() -> None:
    found = findings.gap(run("bn", 128, 0.9), run("in", 128, 0.1))
    assert found.value == pytest.approx(-0.8)
    assert (found.bounded, found.sign) == (False, 0)
    one_has_several = findings.gap(run("bn", 128, 0.9), run("in", 128, 0.1, 0.1001))
    assert not one_has_several.bounded


def test_a_gap_of_several_seeds_is_bounded_by_welchs_test() -> None:
    first, second = (0.80, 0.82, 0.81), (0.85, 0.86, 0.90, 0.84)
    found = findings.compare(first, second)
    low, high = ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    expected = Gap(mean(second) - mean(first), low, high)
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(expected))
    assert found.sign == 1
    assert findings.compare(second, first).sign == -1
    assert findings.compare(first, (0.79, 0.85, 0.82)).sign == 0
    nothing_varies = findings.compare((0.5, 0.5), (0.6, 0.6))
    assert (nothing_varies.value, nothing_varies.bounded) == (pytest.approx(0.1), False)


def test_a_gap_reads_as_points() -> None:
    assert Gap(-0.0123).points == "\N{MINUS SIGN}1.23"
    text = Gap(0.012, -0.001, 0.025).points.replace("\N{NO-BREAK SPACE}", " ")
    assert text == "+1.20 (\N{MINUS SIGN}0.10 to +2.50)"


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (Gap(0.001, -0.002, 0.004), 1),
        (Gap(-0.001, -0.004, 0.002), 1),
        (Gap(-0.03, -0.04, -0.02), -1),
        (Gap(0.03, 0.02, 0.04), -1),
        (Gap(-0.008, -0.02, 0.004), 0),
        (Gap(-0.001, -0.014, 0.012), 0),
        (Gap(0.001, -0.012, 0.014), 0),
        (Gap(0.001), 0),
    ],
)
def test_a_change_is_little_if_all_of_its_interval_is(change: Gap, verdict: int) -> None:
    assert change.below(0.01).sign == verdict


def test_ranking_is_from_best_to_worst_by_the_mean_over_seeds() -> None:
    runs = [run("in", 128, 0.5, 0.7), run("bn", 128, 0.9, 0.4), run("nn", 128, 0.1, 0.2)]
    ranks = findings.ranking(runs)
    assert [result.norm for result, _ in ranks] == ["bn", "in", "nn"]
    assert [gap.value for _, gap in ranks] == pytest.approx([0, -0.05, -0.5])


def test_sanity_names_the_largest_gap_and_the_mean_at_the_end() -> None:
    theirs = run("torch_bn", 128, 0.8, errors=(0.6, 0.4, 0.3))
    ours = run("bn", 128, 0.805, errors=(0.8, 0.4, 0.301))
    found = findings.sanity([theirs, run("bn", 8, 0.1), ours])
    assert found
    assert found.ours is ours
    assert found.accuracy.value == pytest.approx(0.005)
    assert (found.largest, found.largest_epoch) == (pytest.approx(0.2), 1)
    assert found.late == pytest.approx(0.001)
    assert findings.sanity([ours]) is None


def test_batch_effects_compare_the_reference_batch_size_with_the_smallest() -> None:
    runs = [run("bn", 1024, 0.9), run("bn", 128, 0.8), run("bn", 32, 0.79), run("bn", 8, 0.7),
            run("gn", 128, 0.75), run("in", 8, 0.1)]  # fmt: skip
    [effect] = findings.batch_effects(Study(runs))
    assert (effect.large.batch_size, effect.small.batch_size) == (128, 8)
    assert effect.change.value == pytest.approx(-0.1)


def test_batch_effects_tell_of_the_smallest_with_several_seeds_and_of_the_smallest() -> None:
    runs = [around("bn", 128, 0.8), around("bn", 16, 0.8), around("bn", 8, 0.79)]
    effects = findings.batch_effects(Study(runs, [run("bn", 4, 0.7), run("bn", 2, 0.6)]))
    assert [(each.small.batch_size, each.change.bounded) for each in effects] == [
        (8, True), (2, False)
    ]  # fmt: skip


def test_widths_are_between_the_outermost_quantiles_at_the_end() -> None:
    wide, narrow, lost = run("nn", 128, 0.5), run("bn", 128, 0.5), run("ln", 128, 0.5)
    wide.quantiles["99 %"][-1] = 99.5
    lost.quantiles["99 %"][-1] = math.nan
    assert findings.widths([narrow, lost, wide]) == [(wide, 98.5), (narrow, 4.0)]
    del narrow.quantiles["99 %"]
    assert findings.widths([narrow]) == []


def verdicts(*runs: Result) -> dict[str, str]:
    return {claim.text.split()[0]: claim.verdict for claim in findings.claims(Study([*runs]))}


def test_claims_are_judged_by_the_numbers() -> None:
    as_claimed = verdicts(
        around("bn", 128, 0.8, errors=(0.2, 0.2, 0.1)), around("nn", 128, 0.5),
        around("bn", 8, 0.6), around("gn", 128, 0.799), around("gn", 8, 0.799),
        around("ln", 128, 0.6), around("in", 128, 0.6), around("bin", 128, 0.9),
    )  # fmt: skip
    assert as_claimed == {"BN": "agrees", "BN's": "agrees", "At": "agrees", "BIN": "agrees"}
    otherwise = verdicts(
        around("bn", 128, 0.6), around("nn", 128, 0.5, errors=(0.3, 0.2, 0.1)),
        around("bn", 8, 0.8), around("gn", 128, 0.5), around("gn", 8, 0.4),
        around("ln", 128, 0.6), around("in", 128, 0.6), around("bin", 128, 0.6005),
    )  # fmt: skip
    assert otherwise == {"BN": "differs", "BN's": "differs", "At": "differs", "BIN": "undecided"}


def test_the_smallest_batch_is_told_beside_the_one_that_decides() -> None:
    runs = [around("bn", 128, 0.8), around("bn", 8, 0.82)]
    runs += [around("gn", 128, 0.8), around("gn", 8, 0.8)]
    others = [run("bn", 2, 0.6), run("gn", 2, 0.79)]
    [claim] = findings.claims(Study(runs, others))
    assert claim.verdict == "partly"  # by batch size 8
    assert claim.evidence.endswith(
        "From batch size 128 to 2, BN changes by \N{MINUS SIGN}20.00 (one seed) points, "
        "GN by \N{MINUS SIGN}1.00 (one seed)."
    )


@pytest.mark.parametrize(("small", "verdict"), [(0.78, "agrees"), (0.798, "partly")])
def test_an_accuracy_falls_by_more_than_a_point(small: float, verdict: str) -> None:
    runs = [around("bn", 128, 0.8), around("bn", 8, small)]
    runs += [around("gn", 128, 0.8), around("gn", 8, 0.8)]
    assert verdicts(*runs) == {"BN's": verdict}


def test_runs_are_level_where_their_difference_is_not_significant() -> None:
    best, close, single = around("bn", 128, 0.9), around("bin", 128, 0.9005), run("in", 128, 0.9)
    assert findings.level(best, [close, around("gn", 128, 0.8), single]) == [close]


def test_a_claim_of_several_parts_needs_all() -> None:
    yes, no, open_ = Gap(0.1, 0.05, 0.15), Gap(-0.1, -0.15, -0.05), Gap(0.1, -0.1, 0.3)
    for parts, verdict in {
        (yes, yes): "agrees", (yes, open_): "undecided", (open_, no): "differs",
        (yes, no): "partly", (yes, open_, no): "partly",
        (yes, Gap(0.1)): "", (no, Gap(-0.1)): "",
    }.items():  # fmt: skip
        assert Claim("", "", "", parts).verdict == verdict


def test_bn_must_be_as_good_in_half_of_the_epochs() -> None:
    slow = around("nn", 128, 0.5, errors=(0.9, 0.8, 0.7, 0.6, 0.5, 0.4))
    fast = around("bn", 128, 0.5, errors=(0.5, 0.5, 0.39, 0.3, 0.3, 0.3))
    late = around("bn", 128, 0.5, errors=(0.5, 0.5, 0.41, 0.3, 0.3, 0.3))
    assert verdicts(fast, slow) == {"BN": "agrees"}
    never = around("bn", 128, 0.5, errors=(0.5, 0.5, 0.5, 0.5, 0.5, 0.5))
    assert verdicts(late, slow) == {"BN": "differs"}
    assert verdicts(never, slow) == {"BN": "differs"}
    assert verdicts(fast, run("nn", 128, 0.1, diverged=True)) == {}


def test_claims_about_runs_that_are_not_there_are_left_out() -> None:
    assert findings.claims(Study([run("ln", 128, 0.5)])) == []


def test_confusions_are_counted_without_the_right_ones() -> None:
    predictions = [
        {"actual": actual, "predicted": "cat"} for actual in ("cat", "dog", "emu", "dog", "cat")
    ]
    confused = dataclasses.replace(run("bn", 128, 0.7), predictions=predictions)
    assert findings.confusions(confused) == [("dog", "cat", 2), ("emu", "cat", 1)]
