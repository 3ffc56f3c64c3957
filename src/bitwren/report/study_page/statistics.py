"""Mean, spread and intervals over seeds, by SciPy."""

from dataclasses import dataclass

import numpy as np

from bitwren.errors import UsageError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """n values: mean, standard deviation (n - 1 in the denominator) and t interval; the last two None for n = 1."""

    n: int
    mean: float
    spread: float | None
    low: float | None
    high: float | None


def summarise(values: list[float]) -> Summary | None:
    """Return mean, spread and 95 % t interval of the mean, None for no values."""
    if not values:
        return None
    x = np.asarray(values, dtype=np.float64)
    n, mean = len(x), float(x.mean())
    if n == 1:
        return Summary(1, mean, None, None, None)
    try:
        from scipy import stats
    except ImportError:
        raise UsageError("a report needs SciPy, which is not installed: pip install 'bitwren[study]'") from None
    spread = float(x.std(ddof=1))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * stats.sem(x))
    return Summary(n, mean, spread, mean - half, mean + half)


def paired_difference(first: dict[int, float], second: dict[int, float]) -> Summary | None:
    """Return the summary of first - second over the seeds that both have, None where they share none."""
    # Rounded far below what is shown: equal differences are then equal, and zero is zero.
    return summarise([round(first[seed] - second[seed], 9) for seed in sorted(first.keys() & second.keys())])


def verdict(difference: Summary, first: str, second: str) -> str:
    """Say in a plain sentence what the interval of a difference of errors, first - second, allows to say."""
    if difference.n == 1:
        return "One shared seed (n = 1): no interval, so nothing can be said about chance."
    if difference.low > 0:
        return f"The interval excludes zero: {second} makes fewer errors than {first}."
    if difference.high < 0:
        return f"The interval excludes zero: {first} makes fewer errors than {second}."
    widest = max(abs(difference.low), abs(difference.high))
    return f"The interval includes zero: no difference is shown; one of up to {widest:.2f} points remains possible."
