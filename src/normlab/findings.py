"""What the runs' numbers say: differences with their uncertainty, and answers that follow.

Every sentence of the report that could be true or false is decided here, by a rule that stands
beside it, never by hand.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from normlab.registry import NORMS
from normlab.results import REFERENCE_BATCH, Result, find, norm_name, standard_error

DECIDED = 2.0  #: a difference of so many standard errors is taken for more than chance
MARGIN = 0.01  #: what passes for little, or for the same: a point of accuracy


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error, as fractions."""

    value: float
    error: float

    @property
    def decided(self) -> bool:
        """Whether it differs from zero by more than chance."""
        return abs(self.value) > DECIDED * self.error

    @property
    def points(self) -> str:
        """In percentage points: `+1.20 ± 0.35`."""
        return f"{100 * self.value:+.2f} ± {100 * self.error:.2f}".replace("-", "\N{MINUS SIGN}")

    @property
    def percent(self) -> str:
        return f"{100 * self.value:.2f} ± {100 * self.error:.2f}"


def accuracy(result: Result) -> Estimate:
    """Test accuracy with its binomial standard error."""
    value = result.metrics["test"]["accuracy"]
    return Estimate(value, standard_error(value, len(result.predictions)))


def difference(first: Result, second: Result) -> Estimate:
    """Test accuracy of `second` minus that of `first`.

    Both saw the same images, so only those that one of them gets right and the other does not
    count (McNemar's pairs). The error is that of drawing the test images; that of another seed
    comes on top.
    """
    return estimate(_right(second) - _right(first))


def _right(result: Result) -> np.ndarray:
    """1 for each test image that is classified rightly, else 0: `[N]`."""
    return np.array([float(row["predicted"] == row["actual"]) for row in result.predictions])


def estimate(values: np.ndarray) -> Estimate:
    """The mean of `values` `[N]`, one an image, and its standard error."""
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


@dataclass(frozen=True)
class Rank:
    """A run's place by test accuracy, and its distance from the best one."""

    result: Result
    accuracy: Estimate
    behind: Estimate | None  #: None for the best itself


def ranking(results: Sequence[Result]) -> list[Rank]:
    """Runs from the best test accuracy to the worst."""
    ordered = sorted(results, key=lambda result: -result.metrics["test"]["accuracy"])
    return [
        Rank(result, accuracy(result), difference(ordered[0], result) if place else None)
        for place, result in enumerate(ordered)
    ]


@dataclass(frozen=True)
class Sanity:
    """Our batch normalization against PyTorch's."""

    ours: Result
    theirs: Result
    accuracy: Estimate
    largest: float  #: difference of the validation errors, over all epochs
    largest_epoch: int
    largest_lr: float  #: the learning rate there, as a fraction of the highest
    late: float  #: mean difference over the last third of the epochs
    late_error: float  #: what one such difference has by chance alone, of that many images

    @property
    def bound(self) -> float:
        """So far apart the test accuracies may be, beyond chance."""
        return abs(self.accuracy.value) + DECIDED * self.accuracy.error

    @property
    def verdict(self) -> str:
        """`differ` by more than chance; `same` within MARGIN; or `undecided`, of few images."""
        if self.accuracy.decided or abs(self.late) > DECIDED * self.late_error:
            return "differ"
        return "same" if self.bound <= MARGIN else "undecided"


def sanity(results: Sequence[Result], val_count: int) -> Sanity | None:
    """Compare bn and torch_bn at one batch size; None where there are not both.

    `val_count` is the number of validation images.
    """
    ours = find(list(results), "bn", REFERENCE_BATCH)
    theirs = find(list(results), "torch_bn", ours.batch_size) if ours else None
    if ours is None or theirs is None:
        return None
    curves = [dict(zip(*run.curve("val_error"), strict=True)) for run in (theirs, ours)]
    epochs = [epoch for epoch in curves[0] if epoch in curves[1]]
    gaps = {epoch: curves[1][epoch] - curves[0][epoch] for epoch in epochs}
    worst = max(epochs, key=lambda epoch: abs(gaps[epoch]))
    late = epochs[-max(1, len(epochs) // 3) :]
    level = mean(curves[0][epoch] for epoch in late)
    chance = math.sqrt(2) * standard_error(level, val_count)
    rates = dict(zip(*ours.curve("lr"), strict=True))
    return Sanity(
        ours, theirs, difference(theirs, ours), gaps[worst], int(worst),
        rates[worst] / max(rates.values()), mean(gaps[epoch] for epoch in late), chance,
    )  # fmt: skip


@dataclass(frozen=True)
class BatchEffect:
    """What a smaller batch does to one norm."""

    norm: str
    large: Result
    small: Result
    change: Estimate  #: of the test accuracy, from the large batch to the small

    @property
    def label(self) -> str:
        return norm_name(self.norm)

    @property
    def magnitude(self) -> float:
        return abs(self.change.value)


def calmer(effects: Sequence[BatchEffect]) -> Estimate | None:
    """By how much the second of two effects is smaller than the first, sign apart.

    None where there are not two. All four runs saw the same images.
    """
    if len(effects) != 2:
        return None
    changes = [_right(effect.small) - _right(effect.large) for effect in effects]
    one, other = (math.copysign(1, change.mean()) * change for change in changes)
    return estimate(one - other)


def batch_effects(results: Sequence[Result]) -> list[BatchEffect]:
    """For every norm trained at more than one batch size: its largest against its smallest."""
    found = []
    for norm in NORMS:
        runs = sorted((r for r in results if r.norm == norm), key=lambda r: r.batch_size)
        if runs and runs[0].batch_size < runs[-1].batch_size:
            change = difference(runs[-1], runs[0])
            found.append(BatchEffect(norm, runs[-1], runs[0], change))
    return found


@dataclass(frozen=True)
class Spread:
    """How far apart a run's outermost quantiles of the penultimate features are."""

    result: Result
    first: float  #: after the first epoch
    last: float  #: after the last
    low: str  #: names of the two quantiles, as `1 %`
    high: str

    @property
    def growth(self) -> float:
        return self.last / self.first if self.first else math.nan


def spreads(results: Sequence[Result]) -> list[Spread]:
    found = []
    for result in results:
        names = [name for name in result.quantiles[0] if name != "epoch"]
        low, high = names[0], names[-1]
        first, last = (row[high] - row[low] for row in (result.quantiles[0], result.quantiles[-1]))
        found.append(Spread(result, first, last, f"{low[1:]} %", f"{high[1:]} %"))
    return found


@dataclass(frozen=True)
class Claim:
    """What a paper says, and whether these runs agree."""

    source: str
    text: str
    evidence: str
    verdict: str  #: agrees | differs | undecided


def _verdict(parts: Sequence[Estimate]) -> str:
    """`agrees` if all of these are positive by more than chance, `differs` if one is negative."""
    if any(part.decided and part.value < 0 for part in parts):
        return "differs"
    return "agrees" if all(part.decided for part in parts) else "undecided"


def epochs_to(result: Result, error: float) -> int | None:
    """The first epoch with a validation error of at most `error`, or None."""
    epochs, errors = result.curve("val_error")
    return next((int(e) for e, v in zip(epochs, errors, strict=True) if v <= error), None)


def _fraction(fast: int | None, slow: int | None) -> str:
    """Whether `fast` is a fraction of `slow`, at most half of it; None: never."""
    if fast is None or slow is None or fast >= slow:
        return "differs"
    return "agrees" if fast <= slow / 2 else "undecided"


def claims(results: Sequence[Result]) -> list[Claim]:
    """The papers' claims that these runs can speak to, those runs being there."""
    runs = list(results)
    at = {norm: find(runs, norm, REFERENCE_BATCH) for norm in NORMS}
    found = []
    bn, nn, gn, bin_ = at.get("bn"), at.get("nn"), at.get("gn"), at.get("bin")
    if bn and nn:
        target = min(nn.curve("val_error")[1])
        fast, slow = epochs_to(bn, target), epochs_to(nn, target)
        when = f"after epoch {fast}" if fast else "never"
        found.append(
            Claim(
                "Ioffe & Szegedy 2015",
                "With batch normalization a network reaches the accuracy of one without in a "
                "fraction of the steps.",
                f"The lowest validation error without norm, {100 * target:.2f} %, is reached after "
                f"epoch {slow}; with BN {when}.",
                _fraction(fast, slow),
            )
        )
    effects = {effect.norm: effect for effect in batch_effects(runs)}
    if {"bn", "gn"} <= set(effects):
        b, g = effects["bn"], effects["gn"]
        loss = Estimate(-b.change.value, b.change.error)
        steady = Estimate(MARGIN - g.magnitude, g.change.error)
        found.append(
            Claim(
                "Wu & He 2018",
                "BN's accuracy falls at small batches; GN's hardly depends on the batch size.",
                f"From batch size {b.large.batch_size} to {b.small.batch_size}, BN changes by "
                f"{b.change.points} points, GN by {g.change.points}.",
                _verdict([loss, steady]),
            )
        )
    others = [r for n in ("ln", "in") if (r := at.get(n))]
    if bn and gn and others:
        gaps = [difference(other, gn) for other in others]
        behind = difference(bn, gn)
        near = Estimate(behind.value + MARGIN, behind.error)
        names = " and ".join(
            f"{NORMS[other.norm]} ({gap.points})" for other, gap in zip(others, gaps, strict=True)
        )
        found.append(
            Claim(
                "Wu & He 2018",
                "At usual batch sizes GN is better than LN and IN, and little below BN.",
                f"GN against {names}, against BN {behind.points} points.",
                _verdict([*gaps, near]),
            )
        )
    if bn and bin_:
        gap = difference(bn, bin_)
        found.append(
            Claim(
                "Nam & Kim 2018",
                "BIN classifies better than BN.",
                f"BIN against BN: {gap.points} points.",
                _verdict([gap]),
            )
        )
    return found


def confusions(result: Result, count: int = 3) -> list[tuple[str, str, int]]:
    """The most frequent mistakes on test images: actual class, predicted class, how often."""
    pairs = ((row["actual"], row["predicted"]) for row in result.predictions)
    wrong = Counter(pair for pair in pairs if pair[0] != pair[1])
    return [(actual, predicted, n) for (actual, predicted), n in wrong.most_common(count)]
