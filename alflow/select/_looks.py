r"""Bounds on a failure rate that hold although one looks again and again.

After every label of the random stream one may ask "is the failure rate p below the tolerance?" with an exact binomial
test (Clopper and Pearson, Biometrika 26, 404, 1934) on the most recent labels. Asking a hundred times at 5 % each says
yes by luck far too often. So every look is made at a smaller level: the largest one at which a stream that fails with
exactly the tolerated probability is *ever* stopped, at any look and in any of the windows, with probability at most
:math:`\alpha`. That level follows from simulating such streams, overlap of the windows included, where a union bound
would waste most of :math:`\alpha`. A stream that fails more often, steadily or not, is stopped even more rarely:
its failures can be coupled to include those of the tolerated one.

Alpha is spent over stretches of the stream: 95 % of it on the planned length (the horizon), then 5 %/2, 5 %/4, … on
every further doubling, so that a campaign may go on for as long as it likes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import stats

_PLANNED_SHARE = 0.95
_STREAMS = 40_000
_CELLS_PER_CHUNK = 1_000_000
_SEED = 20_240_229


def upper_bound(failures: int, n: int, level: float) -> float:
    """One-sided Clopper-Pearson bound: the failure rate that would give so few failures with probability `level`."""
    if failures >= n:
        return 1.0
    return float(stats.beta.ppf(1.0 - level, failures + 1, n - failures))


def clean_labels_needed(tolerance: float, level: float) -> int:
    """Smallest n without failure whose bound is below the tolerance: ``(1 - tolerance)**n <= level``."""
    return max(1, math.ceil(math.log(level) / math.log1p(-tolerance) - 1e-9))


def window_lengths(longest: int, shortest: int) -> tuple[int, ...]:
    """Windows that are looked at: the longest, then shorter ones by factors of √2 (old failures leave them sooner)."""
    lengths = []
    length = float(longest)
    while length > 1.2 * shortest:
        lengths.append(round(length))
        length /= math.sqrt(2.0)
    return (*lengths, shortest)


def look_level(tolerance: float, alpha: float, lengths: tuple[int, ...], horizon: int, n_seen: int) -> float:
    """Level of the look after the n_seen-th label of the random stream.

    Parameters
    ----------
    tolerance
        failure rate that must not be missed
    alpha
        allowed probability of ever stopping although the failure rate is at the tolerance or above
    lengths
        windows that are looked at
    horizon
        planned length of the stream; at least the shortest window
    n_seen
        labels so far
    """
    horizon = max(horizon, lengths[-1])  # a shorter plan could never stop
    stretch = 0 if n_seen <= horizon else math.ceil(math.log2(n_seen / horizon))
    share = _PLANNED_SHARE if stretch == 0 else (1.0 - _PLANNED_SHARE) / 2.0**stretch
    return _level(tolerance, alpha * share, lengths, horizon * 2**stretch)


@lru_cache(maxsize=64)
def _level(tolerance: float, alpha: float, lengths: tuple[int, ...], horizon: int) -> float:
    """Largest level at which simulated streams of `horizon` labels are ever stopped with probability <= alpha."""
    rng = np.random.default_rng(_SEED)
    least = np.empty(_STREAMS)
    step = max(1, _CELLS_PER_CHUNK // horizon)
    for start in range(0, _STREAMS, step):
        failed = rng.random((min(step, _STREAMS - start), horizon)) < tolerance
        least[start : start + step] = _least_p_values(failed, tolerance, lengths).min(axis=1)
    margin = math.sqrt(alpha * (1.0 - alpha) / _STREAMS)  # the standard error of the simulation itself
    allowed = math.floor(max(0.0, alpha - margin) * _STREAMS)
    values, counts = np.unique(least, return_counts=True)
    fitting = np.flatnonzero(np.cumsum(counts) <= allowed)
    level = float(values[fitting[-1]]) if len(fitting) else float(values[0]) / 2.0
    return min(alpha, level * (1.0 + 1e-9))


def _least_p_values(
    failed: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], tolerance: float, lengths: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(n_streams, n_labels) p-value after each label: the least over the windows that end there."""
    n_streams, n_labels = failed.shape
    sums = np.concatenate([np.zeros((n_streams, 1), dtype=np.int32), np.cumsum(failed, axis=1, dtype=np.int32)], axis=1)
    ends = np.arange(1, n_labels + 1)
    least = np.ones((n_streams, n_labels))
    for length in lengths:
        size = np.minimum(ends, length)
        table = stats.binom.cdf(np.arange(length + 1)[None, :], np.arange(length + 1)[:, None], tolerance)
        np.minimum(least, table[size[None, :], sums[:, ends] - sums[:, ends - size]], out=least)
    return least


def best_window(
    failed: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], tolerance: float, lengths: tuple[int, ...]
) -> tuple[int, int, float]:
    """Size, failures and p-value of the most telling window at the end of a stream (n,)."""
    found = []
    for length in lengths:
        size = min(len(failed), length)
        failures = int(failed[len(failed) - size :].sum())
        found.append((float(stats.binom.cdf(failures, size, tolerance)), size, failures))
    p_value, size, failures = min(found)
    return size, failures, p_value
