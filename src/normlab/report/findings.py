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

from normlab.base.registry import NORMS
from normlab.report.results import (
    Result,
    differences,
    find,
    norm_name,
    standard_error,
)

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
    def size(self) -> str:
        """The same without its sign."""
        return Estimate(abs(self.value), self.error).percent

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
    late_error: float  #: the standard error of one such difference, see `_of_two`

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


def sanity(results: Sequence[Result]) -> Sanity | None:
    """Compare bn and torch_bn at the usual batch size; None where there are not both."""
    ours = find(results, "bn")
    theirs = find(results, "torch_bn")
    if ours is None or theirs is None:
        return None
    gaps = dict(zip(*differences(theirs, ours, "val_error"), strict=True))
    worst = max(gaps, key=lambda epoch: abs(gaps[epoch]))
    late = list(gaps)[-max(1, len(gaps) // 3) :]
    errors, rates = (dict(zip(*theirs.curve(name), strict=True)) for name in ("val_error", "lr"))
    chance = _of_two(mean(errors[epoch] for epoch in late), theirs)
    return Sanity(
        ours, theirs, difference(theirs, ours), gaps[worst], int(worst),
        rates[worst] / max(rates.values()), mean(gaps[epoch] for epoch in late), chance,
    )  # fmt: skip


def _of_two(error: float, result: Result) -> float:
    """The standard error of the difference of two validation errors around `error`.

    It is that of different images, as many as `result` has. Those of an epoch's validation are
    the same for both runs, but which of them each gets right is not kept; as pairs the error
    would be smaller.
    """
    return math.sqrt(2) * standard_error(error, result.metrics["images"]["val"])


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
    def sizes(self) -> tuple[int, int]:
        return self.large.batch_size, self.small.batch_size

    @property
    def magnitude(self) -> float:
        return abs(self.change.value)


def calmer(effects: Sequence[BatchEffect]) -> Estimate | None:
    """By how much the second of two effects is smaller than the first, sign apart.

    None where there are not two of the same batch sizes. All four runs saw the same images.
    """
    if len(effects) != 2 or effects[0].sizes != effects[1].sizes:
        return None
    changes = [_right(effect.small) - _right(effect.large) for effect in effects]
    one, other = (math.copysign(1, change.mean()) * change for change in changes)
    return estimate(one - other)


def batch_effects(results: Sequence[Result]) -> list[BatchEffect]:
    """For every norm at the usual batch size and at smaller ones: that against the smallest."""
    found = []
    for norm in NORMS:
        large = find(results, norm)
        small = min(
            (r for r in results if r.norm == norm), key=lambda r: r.batch_size, default=None
        )
        if large and small and small.batch_size < large.batch_size:
            found.append(BatchEffect(norm, large, small, difference(large, small)))
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
    """That of each run; none where there is a single quantile."""
    found = []
    for result in results:
        names = [name for name in result.quantiles[0] if name != "epoch"]
        if len(names) < 2:
            continue
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


def _sooner(bn: Result, nn: Result) -> Claim:
    """Whether `bn` reaches the lowest validation error of `nn` in a fraction of the epochs.

    A fraction is half at most. By chance the error that is to be reached may be taken for lower
    or higher than it is, and each verdict must hold for both.
    """
    epochs, errors = nn.curve("val_error")
    target = min(errors)
    slow = int(epochs[errors.index(target)])
    chance = DECIDED * _of_two(target, nn)
    fast, surely, luckily = (epochs_to(bn, target + by) for by in (0.0, -chance, chance))
    if surely and surely <= slow / 2:
        verdict = "agrees"
    elif not luckily or luckily > slow or (luckily == slow and surely != slow):
        verdict = "differs"
    else:
        verdict = "undecided"
    return Claim(
        "Ioffe & Szegedy 2015",
        "With batch normalization a network reaches the accuracy of one without in a fraction "
        "of the steps.",
        f"The lowest validation error without norm, {100 * target:.2f} %, is reached after epoch "
        f"{slow}; with BN {f'after epoch {fast}' if fast else 'never'}.",
        verdict,
    )


def claims(results: Sequence[Result]) -> list[Claim]:
    """The papers' claims that these runs can speak to, those runs being there."""
    at = {norm: find(results, norm) for norm in NORMS}
    found = []
    bn, nn, gn, bin_ = at.get("bn"), at.get("nn"), at.get("gn"), at.get("bin")
    if bn and nn and not nn.metrics["diverged"]:
        found.append(_sooner(bn, nn))
    effects = {effect.norm: effect for effect in batch_effects(results)}
    b, g = effects.get("bn"), effects.get("gn")
    if b and g and b.sizes == g.sizes:
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
