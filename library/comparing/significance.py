"""Whether the difference between two groups of runs is more than chance: t tests.

- Paired, where the runs have seeds (and folds) in common: a t test of the differences. What a seed
  decides for both alike, such as the order of images, cancels out.
- Else Welch's t test, for groups of different variances (Welch 1947, doi 10.1093/biomet/34.1-2.28).

Folds share training images, which `mean_variance` allows for. The p values of several groups that
are compared with the best one are corrected by Holm's method (Holm 1979, Scandinavian Journal of
Statistics 6).
"""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from library.evaluation.intervals import CONFIDENCE
from library.evaluation.repeated_runs import mean_variance, t_p_value, t_quantile

# The value of each run, by what identifies it in another group: its seed.
Values = Mapping[Hashable, float]


@dataclass(frozen=True)
class Difference:
    """The difference between the means of two groups. None: unknown.

    Attributes:
        value: The one group's mean minus the best group's.
        method: `paired` or `Welch`.
        interval: Its interval.
        p_value: Of no difference, two-sided; after `correct`, by Holm's method.
    """

    value: float
    method: str | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None

    @property
    def is_more_than_chance(self) -> bool | None:
        """Whether it is significant; None: unknown."""
        return None if self.p_value is None else self.p_value < 1 - CONFIDENCE


def compare_values(values: Values, best: Values, folds: int = 0) -> Difference:
    """Return the difference between two groups.

    Args:
        values: Those of the one group; at least one.
        best: Those of the group to compare with; at least one.
        folds: Number of folds that the runs are trained on; 0: all have the same images.
    """
    shared = values.keys() & best.keys()
    if len(shared) > 1 and len(shared) == min(len(values), len(best)):
        return _compare_pairs([values[each] - best[each] for each in shared], folds)
    groups = list(values.values()), list(best.values())
    difference = statistics.fmean(groups[0]) - statistics.fmean(groups[1])
    if min(map(len, groups)) < 2:
        return Difference(difference)
    variances = [mean_variance(statistics.stdev(each), len(each), folds) for each in groups]
    if not any(variances):
        return Difference(difference, "Welch")
    terms = (v**2 / (len(g) - 1) for v, g in zip(variances, groups, strict=True))
    return _test(difference, sum(variances), sum(variances) ** 2 / sum(terms), "Welch")


def correct(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences with the p values that Holm's method makes of them."""
    p_values = [(each.p_value, number) for number, each in enumerate(differences)]
    known = sorted((p_value, number) for p_value, number in p_values if p_value is not None)
    corrected, highest = list(differences), 0.0
    for rank, (p_value, number) in enumerate(known):
        highest = max(highest, min(1.0, p_value * (len(known) - rank)))
        corrected[number] = replace(differences[number], p_value=highest)
    return corrected


def _compare_pairs(differences: Sequence[float], folds: int) -> Difference:
    mean, count = statistics.fmean(differences), len(differences)
    variance = mean_variance(statistics.stdev(differences), count, folds)
    if not variance:
        return Difference(mean, "paired", p_value=None if mean else 1.0)
    return _test(mean, variance, count - 1, "paired")


def _test(difference: float, variance: float, freedom: float, method: str) -> Difference:
    error = math.sqrt(variance)
    half = t_quantile(freedom) * error
    interval = difference - half, difference + half
    return Difference(difference, method, interval, t_p_value(difference / error, freedom))
