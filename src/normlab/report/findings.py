"""What the runs' numbers say: differences, and verdicts where several seeds allow them.

Every sentence of the report that could be true or false is decided here, by a rule that stands
beside it. One seed shows its own numbers and no more: only several seeds tell a norm from luck.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

from normlab.norms.names import NORMS
from normlab.report.results import Result, differences, find, norm_name

LITTLE = 0.01  #: what passes for little: a point of accuracy
ACCURACY = "test_accuracy"


@dataclass(frozen=True)
class Gap:
    """A difference between two runs, as a fraction.

    `low` and `high` bound it with 95 % confidence where both have several seeds (Welch's t-test);
    with single seeds nothing bounds it.
    """

    value: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low)

    @property
    def sign(self) -> int:
        """1 or -1 for a difference that is more than chance, else 0."""
        return (self.low > 0) - (self.high < 0)

    @property
    def points(self) -> str:
        """In percentage points: `+1.20`, or with bounds `+1.20 (+0.80 to +1.60)`."""
        value, low, high = (f"{100 * x:+.2f}" for x in (self.value, self.low, self.high))
        bounds = f"({low} to {high})".replace(" ", "\N{NO-BREAK SPACE}")
        text = f"{value} {bounds}" if self.bounded else value
        return text.replace("-", "\N{MINUS SIGN}")

    def plus(self, by: float) -> "Gap":
        return Gap(self.value + by, self.low + by, self.high + by)

    def below(self, limit: float) -> "Gap":
        """How far its size, sign apart, stays below `limit`."""
        if self.value >= 0:
            return Gap(limit - self.value, limit - self.high, limit - self.low)
        return self.plus(limit)


def compare(first: Sequence[float], second: Sequence[float]) -> Gap:
    """The mean of `second` minus that of `first`, of samples that are a value a seed each."""
    value = mean(second) - mean(first)
    if min(len(first), len(second)) < 2:
        return Gap(value)
    if len({*first}) == len({*second}) == 1:  # nothing varies; scipy divides by that
        return Gap(value, value, value)
    from scipy.stats import ttest_ind

    bounds = ttest_ind(second, first, equal_var=False).confidence_interval()
    return Gap(value, float(bounds.low), float(bounds.high))


def gap(first: Result, second: Result) -> Gap:
    """Test accuracy of `second` minus that of `first`."""
    return compare(first.samples(ACCURACY), second.samples(ACCURACY))


def ranking(results: Sequence[Result]) -> list[tuple[Result, Gap]]:
    """Runs from the best test accuracy to the worst, and how far each is from the best."""
    ordered = sorted(results, key=lambda result: -result.score(ACCURACY))
    return [(result, gap(ordered[0], result)) for result in ordered]


class Sanity(NamedTuple):
    """Our batch normalization against PyTorch's, at the usual batch size."""

    ours: Result
    theirs: Result
    accuracy: Gap
    largest: float  #: difference of the validation errors, over all epochs
    largest_epoch: int
    late: float  #: mean difference over the last third of the epochs


def sanity(results: Sequence[Result]) -> Sanity | None:
    """Compare bn with torch_bn; None where there are not both."""
    ours, theirs = find(results, "bn"), find(results, "torch_bn")
    if ours is None or theirs is None:
        return None
    gaps = differences(theirs, ours, "val_error")
    largest = max(gaps, key=abs)
    late = mean(gaps[-max(1, len(gaps) // 3) :])
    return Sanity(ours, theirs, gap(theirs, ours), largest, gaps.index(largest) + 1, late)


class BatchEffect(NamedTuple):
    """What a smaller batch does to one norm's test accuracy."""

    large: Result
    small: Result
    change: Gap


def batch_effects(results: Sequence[Result]) -> list[BatchEffect]:
    """For every norm at the usual batch size and at smaller ones: that against the smallest."""
    found = []
    for large in filter(None, (find(results, norm) for norm in NORMS)):
        same = [result for result in results if result.norm == large.norm]
        small = min(same, key=lambda result: result.batch_size)
        if small.batch_size < large.batch_size:
            found.append(BatchEffect(large, small, gap(large, small)))
    return found


def widths(results: Sequence[Result]) -> list[tuple[Result, float]]:
    """The distance of the outermost quantiles at the end of each run, the widest first.

    Where there is one quantile, or the features are no numbers any more, there is no distance.
    """
    found = []
    for result in results:
        last = [values[-1] for values in result.quantiles.values()]
        width = last[-1] - last[0]
        if len(last) > 1 and math.isfinite(width):
            found.append((result, width))
    return sorted(found, key=lambda pair: -pair[1])


class Claim(NamedTuple):
    """What a paper says, and what these runs have to say to it."""

    source: str
    text: str
    evidence: str
    parts: Sequence[Gap]  #: the claim says of each that it is positive

    @property
    def verdict(self) -> str:
        """`agrees` or `differs` by more than chance, else `undecided`; a direction for one seed.

        `partly` where one part of the claim holds and another does not.
        """
        yes, no = "agrees", "differs"
        signs = {part.sign for part in self.parts}
        if not all(part.bounded for part in self.parts):
            yes, no = "same direction", "other direction"
            signs = {1 if part.value > 0 else -1 for part in self.parts}
        if {1, -1} <= signs:
            return "partly"
        return no if -1 in signs else "undecided" if 0 in signs else yes


def claims(results: Sequence[Result]) -> list[Claim]:
    """The papers' claims that these runs can speak to, those runs being there."""
    bn, nn, gn, bin_ = (find(results, norm) for norm in ("bn", "nn", "gn", "bin"))
    found = []
    if bn and nn and not nn.diverged:
        found.append(_sooner(bn, nn))
    effects = {effect.large.norm: effect for effect in batch_effects(results)}
    b, g = effects.get("bn"), effects.get("gn")
    if b and g and b.small.batch_size == g.small.batch_size:
        text = "BN's accuracy falls at small batches; GN's hardly depends on the batch size."
        evidence = (
            f"From batch size {b.large.batch_size} to {b.small.batch_size}, BN changes by "
            f"{b.change.points} points, GN by {g.change.points}."
        )
        parts = [gap(b.small, b.large), g.change.below(LITTLE)]
        found.append(Claim("Wu & He 2018", text, evidence, parts))
    others = [result for norm in ("ln", "in") if (result := find(results, norm))]
    if bn and gn and others:
        text = "At usual batch sizes GN is better than LN and IN, and little below BN."
        gaps = [gap(other, gn) for other in others]
        pairs = zip(others, gaps, strict=True)
        names = ", ".join(f"{norm_name(other.norm)} {ahead.points}" for other, ahead in pairs)
        evidence = f"GN's accuracy minus that of {names}; minus BN's {gap(bn, gn).points} points."
        parts = [*gaps, gap(bn, gn).plus(LITTLE)]
        found.append(Claim("Wu & He 2018", text, evidence, parts))
    if bn and bin_:
        ahead = gap(bn, bin_)
        evidence = f"BIN against BN: {ahead.points} points."
        found.append(Claim("Nam & Kim 2018", "BIN classifies better than BN.", evidence, [ahead]))
    return found


def _sooner(bn: Result, nn: Result) -> Claim:
    """Whether `bn` is as good as `nn` ever is in half of the epochs that `nn` takes, or in all."""
    errors, _ = nn.curve("val_error")
    slow = errors.index(min(errors)) + 1
    half = max(1, slow // 2)
    lowest = [min(training.curves["val_error"]) for training in nn.trainings]
    early, late = (
        [min(training.curves["val_error"][:epochs]) for training in bn.trainings]
        for epochs in (half, slow)
    )
    text = "BN reaches the accuracy of a network without norm in a fraction of the steps."
    evidence = (
        f"The lowest validation error without norm is {100 * mean(lowest):.2f} %, after epoch "
        f"{slow}. With BN it is {100 * mean(early):.2f} % by epoch {half} and "
        f"{100 * mean(late):.2f} % by epoch {slow}."
    )
    parts = [compare(early, lowest), compare(late, lowest)]
    return Claim("Ioffe & Szegedy 2015", text, evidence, parts)


def confusions(result: Result, count: int = 3) -> list[tuple[str, str, int]]:
    """The most frequent mistakes on test images: actual class, predicted class, how often."""
    pairs = ((row["actual"], row["predicted"]) for row in result.predictions)
    wrong = Counter(pair for pair in pairs if pair[0] != pair[1])
    return [(actual, predicted, n) for (actual, predicted), n in wrong.most_common(count)]
