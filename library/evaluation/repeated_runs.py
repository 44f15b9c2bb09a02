"""Metrics of the same training, repeated with several seeds or on several folds.

Intervals and p values are those of Student's t. They say how much a mean varies with the seed or
the fold; library/evaluation/intervals.py says how a metric of one network varies with the images.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from library.evaluation.intervals import CONFIDENCE
from library.evaluation.table import format_interval, format_number, format_table, metric_label

_TINY = 1e-300


def summarize_values(
    values: Sequence[float | None], *, is_share: bool = True, folds: int = 0
) -> dict[str, Any]:
    """Return the mean of a metric, its standard deviation over runs, and the mean's interval.

    Args:
        values: The metric of each run; None where it is undefined, as for a class without images.
        is_share: Whether the metric is at most 1, unlike a loss, and so its interval.
        folds: Number of the folds that the runs are trained on; see `mean_variance`.

    Returns:
        `mean`, `standard_deviation` and `mean_interval`, (low, high); None: undefined.
    """
    known = np.array([each for each in values if each is not None])
    count = len(known)
    deviation, interval = None, None
    if count > 1:
        deviation = float(known.std(ddof=1))
        half = t_quantile(count - 1) * math.sqrt(mean_variance(deviation, count, folds))
        low, high = float(known.mean()) - half, float(known.mean()) + half
        # A metric of one's own may be below 0 or above 1.
        low = max(low, 0.0) if known.min() >= 0 else low
        high = min(high, 1.0) if is_share and known.max() <= 1 else high
        interval = low, high
    mean = float(known.mean()) if count else None
    return {"mean": mean, "standard_deviation": deviation, "mean_interval": interval}


def summarize_metrics(runs: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Return the metrics of several runs as a dict for JSON.

    Args:
        runs: The metrics of each run, name → value; NaN or None: undefined.

    Returns:
        `runs`: their number; `metrics`: name → as summarize_values returns it; `confidence`: that
        of the intervals.
    """
    metrics = {}
    for name in dict.fromkeys(name for each in runs for name in each):
        values = [each.get(name) for each in runs]
        known = [None if each is None or math.isnan(each) else each for each in values]
        metrics[name] = summarize_values(known, is_share=not name.endswith("loss"))
    return {"runs": len(runs), "metrics": metrics, "confidence": CONFIDENCE}


def format_summaries(summary: Mapping[str, Any], top_k: int | None = None) -> Iterator[str]:
    """Yield the lines of a table of metrics as summarize_metrics returns them.

    Args:
        summary: The metrics.
        top_k: The k of top-k accuracy, if it is one of them.
    """
    head = ("metric", "mean", "deviation", f"{summary['confidence']:.0%} interval")
    rows = [
        (
            metric_label(name, top_k),
            *map(format_number, (each["mean"], each["standard_deviation"])),
            format_interval(each["mean_interval"]),
        )
        for name, each in summary["metrics"].items()
    ]
    yield from format_table([head, *rows], left=(0,))


def mean_variance(deviation: float, count: int, folds: int = 0) -> float:
    """Return the variance of a mean over runs.

    Folds share most of their training images, so that it is not s²/n but (1/n + 1/(k - 1)) s²: of
    n runs on k folds, 1/(k - 1) is the ratio of validation to training images (Nadeau and Bengio
    2003, doi 10.1023/A:1024068626366; Bouckaert and Frank 2004,
    doi 10.1007/978-3-540-24775-3_3, for folds that are repeated).

    Args:
        deviation: The standard deviation s over the runs.
        count: The number n of runs, from 2.
        folds: The number k of folds, from 2; 0: all runs have the same training images.
    """
    return (1 / count + (1 / (folds - 1) if folds else 0)) * deviation**2


def t_quantile(freedom: float) -> float:
    """Return the t that Student's distribution exceeds, either way, in 1 - CONFIDENCE of cases.

    Args:
        freedom: Degrees of freedom, from 1; perhaps not whole, as those of Welch's test.
    """
    low, high = 0.0, math.pi / 2
    # Bisect for the angle whose tangent is t / √freedom.
    for _ in range(60):
        middle = (low + high) / 2
        is_below = t_p_value(math.tan(middle) * math.sqrt(freedom), freedom) > 1 - CONFIDENCE
        low, high = (middle, high) if is_below else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def t_p_value(t: float, freedom: float) -> float:
    """Return the two-sided p value of a t: P(|T| ≥ |t|).

    It is the regularized incomplete beta function I_x(freedom / 2, 1 / 2) at
    x = freedom / (freedom + t²): Abramowitz and Stegun 1964, 26.7.1.

    Args:
        t: The statistic.
        freedom: Degrees of freedom, from 1; perhaps not whole.
    """
    x = freedom / (freedom + t * t)
    a, b = freedom / 2, 0.5
    if x in (0, 1):
        return x
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    # Each of the two fractions converges fast on its own side.
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function, by Lentz's method.

    Press et al. 2007, Numerical Recipes, 6.4.
    """
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or _TINY)
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 / ((1 + term * d) or _TINY), (1 + term / c) or _TINY
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
