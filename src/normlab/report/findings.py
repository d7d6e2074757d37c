"""What the runs' numbers say: differences, and verdicts where several seeds allow them.

Every sentence of the report that could be true or false is decided here, by a rule next
to it. One seed gives numbers and no verdicts.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

from normlab.report.results import (
    Result,
    Setting,
    Study,
    differences,
    find,
    last_third,
    norm_name,
)

CONFIDENCE = 0.95  #: of intervals; a difference is significant if its interval excludes zero
LITTLE = 0.01  #: what counts as little: one point of accuracy
ACCURACY = "test_accuracy"


@dataclass(frozen=True)
class Gap:
    """A difference between two runs, as a fraction.

    `low` and `high` bound it with CONFIDENCE where both have several seeds (Welch's t-test); with
    single seeds, or where no value varies, nothing bounds it.
    """

    value: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low)

    @property
    def sign(self) -> int:
        """1 or -1 for a difference that is statistically significant, else 0."""
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
        """`limit` minus the absolute difference."""
        largest = max(abs(self.low), abs(self.high))
        smallest = max(self.low, -self.high, 0)  # 0 if the interval includes that
        return Gap(limit - abs(self.value), limit - largest, limit - smallest)


def compare(first: Sequence[float], second: Sequence[float]) -> Gap:
    """The mean of `second` minus that of `first`, of samples with one value per seed."""
    value = mean(second) - mean(first)
    if min(len(first), len(second)) < 2 or len({*first}) == len({*second}) == 1:
        return Gap(value)
    from scipy.stats import ttest_ind

    bounds = ttest_ind(second, first, equal_var=False).confidence_interval(CONFIDENCE)
    return Gap(value, float(bounds.low), float(bounds.high))


def gap(first: Setting, second: Setting) -> Gap:
    """Test accuracy of `second` minus that of `first`."""
    return compare(first.samples(ACCURACY), second.samples(ACCURACY))


def ranking(results: Sequence[Result]) -> list[tuple[Result, Gap]]:
    """Runs from the best test accuracy to the worst, and how far each is from the best."""
    ordered = sorted(results, key=lambda result: -result.score(ACCURACY))
    return [(result, gap(ordered[0], result)) for result in ordered]


def level(result: Result, others: Sequence[Result]) -> list[Result]:
    """Those of `others` whose test accuracy does not differ significantly from that of `result`."""
    gaps = [(other, gap(result, other)) for other in others]
    return [other for other, each in gaps if each.bounded and not each.sign]


class Sanity(NamedTuple):
    """Our batch normalization against PyTorch's, at the reference batch size."""

    ours: Result
    theirs: Result
    accuracy: Gap
    largest: float  #: difference of the mean validation errors, over all epochs
    largest_epoch: int
    late: float  #: mean difference over the last third of the epochs
    epochs: int  #: that all trainings of both have


def sanity(results: Sequence[Result]) -> Sanity | None:
    """Compare bn with torch_bn; None where there are not both."""
    ours, theirs = find(results, "bn"), find(results, "torch_bn")
    if ours is None or theirs is None:
        return None
    gaps = differences(theirs, ours, "val_error")[0].tolist()
    largest = max(gaps, key=abs)
    late = mean(gaps[last_third(len(gaps)) - 1 :])
    return Sanity(
        ours, theirs, gap(theirs, ours), largest, gaps.index(largest) + 1, late, len(gaps)
    )


class BatchEffect(NamedTuple):
    """What a smaller batch does to one norm's test accuracy."""

    large: Result
    small: Setting
    change: Gap

    @property
    def points(self) -> str:
        """The change as text, which says so if only one seed of several had the smaller batch."""
        single = self.small.seeds == 1 < self.large.seeds
        return self.change.points + (" (one seed)" if single else "")


def batch_effects(study: Study) -> list[BatchEffect]:
    """For every norm at the reference batch size, compare it with smaller ones.

    That is the smallest with several seeds, if any, and the smallest of all.
    """
    found = []
    for norm, settings in study.by_batch_size().items():
        if large := find(study.runs, norm):
            smaller = [each for each in settings if each.batch_size < large.batch_size]
            several = [each for each in smaller if each.seeds > 1][-1:]
            smallest = [each for each in smaller[-1:] if each not in several]
            found += [BatchEffect(large, small, gap(large, small)) for small in several + smallest]
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
    """What a paper claims, and what these runs show."""

    source: str
    text: str
    evidence: str
    parts: Sequence[Gap]  #: the claim says of each that it is positive

    @property
    def verdict(self) -> str:
        """`agrees` if every part holds significantly, `differs` if one is refuted significantly.

        `partly` if some parts hold and others are refuted, `undecided` if none is refuted and not
        all hold, and nothing where a part has a single seed.
        """
        if not all(part.bounded for part in self.parts):
            return ""
        signs = {part.sign for part in self.parts}
        if {1, -1} <= signs:
            return "partly"
        return "differs" if -1 in signs else "undecided" if 0 in signs else "agrees"


def claims(study: Study) -> list[Claim]:
    """The papers' claims about runs of this study."""
    bn, nn, gn, bin_ = (find(study.runs, norm) for norm in ("bn", "nn", "gn", "bin"))
    found = []
    if bn and nn and not nn.diverged:
        found.append(_sooner(bn, nn))
    effects = {(each.large.norm, each.small.batch_size): each for each in batch_effects(study)}
    pairs = [(b, g) for (norm, size), b in effects.items()
             if norm == "bn" and (g := effects.get(("gn", size)))]  # fmt: skip
    if pairs:
        text = "BN's accuracy falls at a small batch size; GN's hardly depends on it."
        evidence = " ".join(
            f"From batch size {b.large.batch_size} to {b.small.batch_size}, BN changes by "
            f"{b.points} points, GN by {g.points}."
            for b, g in pairs
        )
        b, g = pairs[0]
        parts = [gap(b.small, b.large).plus(-LITTLE), g.change.below(LITTLE)]
        found.append(Claim("Wu & He 2018", text, evidence, parts))
    others = [result for norm in ("ln", "in") if (result := find(study.runs, norm))]
    if bn and gn and others:
        text = "At a regular batch size GN is better than LN and IN, and little below BN."
        leads = {norm_name(other.norm): gap(other, gn) for other in (*others, bn)}
        listed = ", of ".join(f"{name}: {lead.points}" for name, lead in leads.items())
        evidence = f"In points, GN's accuracy minus that of {listed}."
        *ahead, below = leads.values()
        parts = [*ahead, below.plus(LITTLE)]
        found.append(Claim("Wu & He 2018", text, evidence, parts))
    if bn and bin_:
        lead = gap(bn, bin_)
        evidence = f"BIN's lead over BN: {lead.points} points."
        found.append(Claim("Nam & Kim 2018", "BIN classifies better than BN.", evidence, [lead]))
    return found


def _sooner(bn: Result, nn: Result) -> Claim:
    """Whether `bn` reaches the lowest error of `nn` in half of its epochs."""
    slow = round(nn.epoch)
    half = max(1, slow // 2)

    def lowest(result: Result, epochs: int | None = None) -> list[float]:
        return [min(training.log["val_error"][:epochs]) for training in result.trainings]

    early, late, best = lowest(bn, half), lowest(bn, slow), lowest(nn)
    text = "BN reaches the accuracy of a network without norm in a fraction of the steps."
    average = "on average " if nn.seeds > 1 else ""
    evidence = (
        f"Without norm the lowest validation error is {average}{100 * mean(best):.2f} %, after "
        f"epoch {slow}. With BN it is {100 * mean(late):.2f} % by then, and "
        f"{100 * mean(early):.2f} % by epoch {half}, a difference of "
        f"{compare(best, early).points} points."
    )
    return Claim("Ioffe & Szegedy 2015", text, evidence, [compare(early, best)])


def confusions(result: Result) -> list[tuple[str, str, int]]:
    """The three most frequent mistakes on test images: actual class, predicted class, how often."""
    pairs = ((row["actual"], row["predicted"]) for row in result.predictions)
    wrong = Counter(pair for pair in pairs if pair[0] != pair[1])
    return [(*pair, count) for pair, count in wrong.most_common(3)]
