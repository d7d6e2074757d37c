"""What the report says: differences, their chance, and verdicts by rule."""

import math

import pytest

from normlab.report import findings
from normlab.report.findings import Estimate
from normlab.report.results import Result


def run(
    norm: str,
    batch_size: int,
    right: list[bool],
    errors: tuple[float, ...] = (0.5, 0.4, 0.3),
    val: int = 10_000,
) -> Result:
    """A run that classifies the test images whose place in `right` is true."""
    accuracy = sum(right) / len(right)
    values = {"accuracy": accuracy, "f1_micro": accuracy, "f1_macro": accuracy}
    log = [
        {"epoch": float(e), "lr": 0.1, "train_loss": 1.0, "val_loss": 1.0,
         "train_error": value, "val_error": value}
        for e, value in enumerate(errors, start=1)
    ]  # fmt: skip
    quantiles = [{"epoch": float(e), "q1": 0.5 * e, "q99": 2.5 * e} for e in (1, 2, 3)]
    predictions = [{"actual": "cat", "predicted": "cat" if hit else "dog"} for hit in right]
    metrics = {
        "norm": norm, "batch_size": batch_size, "epoch": 3, "epochs": 3, "diverged": False,
        "train": values, "val": values, "test": values, "images": {"val": val},
    }  # fmt: skip
    return Result(f"{norm}-{batch_size}", metrics, log, quantiles, predictions, batch_size == 128)


def share(hits: int, total: int = 1000, start: int = 0) -> list[bool]:
    """`hits` images right of `total`, from the place `start` on."""
    return [start <= place < start + hits for place in range(total)]


def test_accuracy_has_the_binomial_standard_error() -> None:
    found = findings.accuracy(run("bn", 128, share(900)))
    assert found == Estimate(0.9, pytest.approx(math.sqrt(0.9 * 0.1 / 1000)))


def test_difference_counts_only_images_that_one_run_alone_gets_right() -> None:
    first, second = run("bn", 128, share(800)), run("in", 128, share(700, start=50))
    found = findings.difference(first, second)  # 50 gained nowhere: 50 + 50 lost, 0 won
    assert found.value == pytest.approx(-0.1)
    assert found.error == pytest.approx(math.sqrt((100 - 100**2 / 1000) / 1000**2))
    assert found.decided
    assert findings.difference(first, first) == Estimate(0.0, 0.0)


def test_difference_is_the_variance_of_its_own_simulation() -> None:
    """Against the definition: the variance of the mean of +1, 0 and -1 over the images."""
    first, second = run("bn", 128, share(600)), run("in", 128, share(500, start=300))
    steps = [
        (two["predicted"] == "cat") - (one["predicted"] == "cat")
        for one, two in zip(first.predictions, second.predictions, strict=True)
    ]
    mean = sum(steps) / len(steps)
    variance = sum((step - mean) ** 2 for step in steps) / len(steps)
    found = findings.difference(first, second)
    assert found.value == pytest.approx(mean)
    assert found.error == pytest.approx(math.sqrt(variance / len(steps)))


def test_an_estimate_reads_as_points_and_is_decided_beyond_two_errors() -> None:
    assert Estimate(0.0123, 0.0035).points == "+1.23 ± 0.35"
    assert Estimate(-0.0123, 0.0035).points == "\N{MINUS SIGN}1.23 ± 0.35"
    assert Estimate(0.9, 0.003).percent == "90.00 ± 0.30"
    assert Estimate(-0.0071, 0.0035).decided
    assert not Estimate(0.0069, 0.0035).decided


def test_ranking_is_from_best_to_worst() -> None:
    runs = [run("in", 128, share(500)), run("bn", 128, share(800)), run("nn", 128, share(100))]
    ranks = findings.ranking(runs)
    assert [rank.result.norm for rank in ranks] == ["bn", "in", "nn"]
    assert ranks[0].behind is None
    assert ranks[2].behind
    assert ranks[2].behind.value == pytest.approx(-0.7)


def test_sanity_names_the_largest_gap_and_judges_by_the_end() -> None:
    theirs = run("torch_bn", 128, share(800), (0.6, 0.4, 0.3))
    ours = run("bn", 128, share(805), (0.8, 0.4, 0.301))
    found = findings.sanity([theirs, ours])
    assert found
    assert (found.largest, found.largest_epoch) == (pytest.approx(0.2), 1)
    assert found.late == pytest.approx(0.001)
    assert found.late_error == pytest.approx(math.sqrt(2 * 0.3 * 0.7 / 10_000))
    assert found.largest_lr == 1
    assert findings.sanity([ours]) is None


def test_sanity_needs_enough_images_to_say_the_same() -> None:
    def verdict(right: list[bool], *errors: float, total: int = 10_000) -> str:
        theirs = run("torch_bn", 128, share(8 * total // 10, total), (0.6, 0.4, 0.3), total)
        found = findings.sanity([theirs, run("bn", 128, right, errors, total)])
        assert found
        return found.verdict

    assert verdict(share(8000, 10_000, 20), 0.8, 0.4, 0.301) == "same"
    assert verdict(share(8000, 10_000, 20), 0.8, 0.4, 0.5) == "differ"  # at the end
    assert verdict(share(7900, 10_000), 0.8, 0.4, 0.301) == "differ"  # on the test images
    assert verdict(share(81, 100), 0.8, 0.4, 0.3, total=100) == "undecided"


def test_batch_effects_compare_the_reference_with_the_smallest_batch() -> None:
    runs = [run("bn", 1024, share(900)), run("bn", 128, share(800)), run("bn", 32, share(790)),
            run("bn", 8, share(700)), run("gn", 128, share(750)), run("in", 8, share(1)),
            ]  # fmt: skip
    [effect] = findings.batch_effects(runs)
    assert (effect.large.batch_size, effect.small.batch_size) == (128, 8)
    assert effect.change.value == pytest.approx(-0.1)
    assert effect.magnitude == pytest.approx(0.1)


def test_the_less_sensitive_of_two_is_told_by_pairs_sign_apart() -> None:
    def effects(small_bn: int, small_gn: int) -> list[findings.BatchEffect]:
        runs = [run("bn", 128, share(800)), run("bn", 8, share(small_bn)),
                run("gn", 128, share(750)), run("gn", 8, share(small_gn))]  # fmt: skip
        return findings.batch_effects(runs)

    calmer = findings.calmer(effects(700, 770))
    assert calmer
    assert calmer.value == pytest.approx(0.1 - 0.02)
    steps = [1.0] * 80 + [0.0] * 920  # 20 of BN's 100 images move in GN as well
    mean = sum(steps) / 1000
    variance = sum((step - mean) ** 2 for step in steps) / 1000
    assert calmer.error == pytest.approx(math.sqrt(variance / 1000))
    assert calmer.decided
    same = findings.calmer(effects(790, 760))
    assert same
    assert not same.decided
    assert findings.calmer(effects(790, 760)[:1]) is None
    wider = findings.batch_effects([run("bn", 128, share(800)), run("bn", 4, share(700))])
    assert findings.calmer([*wider, effects(700, 770)[1]]) is None


def test_spreads_are_between_the_outermost_quantiles() -> None:
    [spread] = findings.spreads([run("bn", 128, share(1))])
    assert (spread.first, spread.last, spread.growth) == (2.0, 6.0, 3.0)
    assert (spread.low, spread.high) == ("1 %", "99 %")
    median = run("bn", 128, share(1))
    for row in median.quantiles:
        del row["q99"]
    assert findings.spreads([median]) == []


def verdicts(*runs: Result) -> dict[str, str]:
    return {claim.text.split()[0]: claim.verdict for claim in findings.claims(runs)}


def test_claims_are_judged_by_the_numbers() -> None:
    as_claimed = verdicts(
        run("bn", 128, share(800), (0.2, 0.2, 0.1)), run("nn", 128, share(500), (0.5, 0.4, 0.3)),
        run("bn", 8, share(600)), run("gn", 128, share(799)), run("gn", 8, share(798)),
        run("ln", 128, share(600)), run("in", 128, share(600)), run("bin", 128, share(900)),
    )  # fmt: skip
    assert as_claimed == {"With": "agrees", "BN's": "agrees", "At": "agrees", "BIN": "agrees"}
    otherwise = verdicts(
        run("bn", 128, share(600), (0.5, 0.4, 0.3)), run("nn", 128, share(500), (0.3, 0.2, 0.1)),
        run("bn", 8, share(800)), run("gn", 128, share(500)), run("gn", 8, share(400)),
        run("ln", 128, share(600)), run("in", 128, share(600)), run("bin", 128, share(601)),
    )  # fmt: skip
    assert otherwise == {"With": "differs", "BN's": "differs", "At": "differs", "BIN": "undecided"}


def test_a_claim_of_two_parts_needs_both() -> None:
    runs = [run("bn", 128, share(800)), run("ln", 128, share(600)), run("bn", 8, share(600))]
    far_below = run("gn", 128, share(700))  # better than LN, but ten points below BN
    assert verdicts(*runs, far_below)["At"] == "differs"
    moves = [run("gn", 128, share(799)), run("gn", 8, share(780))]  # BN falls, GN by two points
    assert verdicts(*runs, *moves)["BN's"] == "differs"
    close = run("gn", 8, share(790))
    assert verdicts(*runs, moves[0], close)["BN's"] == "undecided"


def test_a_fraction_is_half_at_most() -> None:
    slow = run("nn", 128, share(500), (0.9, 0.8, 0.7, 0.6, 0.5, 0.4))
    for errors, verdict in {
        (0.5, 0.5, 0.3, 0.3, 0.3, 0.3): "agrees",
        (0.5, 0.5, 0.399, 0.3, 0.3, 0.3): "undecided",  # at half, but perhaps by chance
        (0.5, 0.5, 0.5, 0.3, 0.3, 0.3): "undecided",
        (0.5, 0.5, 0.5, 0.5, 0.5, 0.3): "undecided",  # somewhere within the last epoch
        (0.5, 0.5, 0.5, 0.5, 0.5, 0.4): "differs",
        (0.5, 0.5, 0.5, 0.5, 0.5, 0.5): "differs",
    }.items():
        assert verdicts(run("bn", 128, share(500), errors), slow)["With"] == verdict
    slow.metrics["diverged"] = True
    assert "With" not in verdicts(run("bn", 128, share(500)), slow)


def test_claims_about_runs_that_are_not_there_are_left_out() -> None:
    assert findings.claims([run("ln", 128, share(5))]) == []


def test_confusions_are_counted_without_the_right_ones() -> None:
    assert findings.confusions(run("bn", 128, share(990))) == [("cat", "dog", 10)]
