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
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    """Windows that are looked at: the longest, then shorter ones by a tenth each, so that old failures leave them.

    Many windows cost little, because they overlap; too few waste labels, because only some lengths reach a level.
    """
    lengths = []
    length = float(longest)
    while length > 1.05 * shortest:
        lengths.append(round(length))
        length /= 1.1
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
        least[start : start + step] = _least_p_values(failed, tolerance, lengths)
    margin = math.sqrt(alpha * (1.0 - alpha) / _STREAMS)  # the standard error of the simulation itself
    allowed = math.floor(max(0.0, alpha - margin) * _STREAMS)
    values, counts = np.unique(least, return_counts=True)
    fitting = np.flatnonzero(np.cumsum(counts) <= allowed)
    level = float(values[fitting[-1]]) if len(fitting) else float(values[0]) / 2.0
    return min(alpha, level * (1.0 + 1e-9))


def _least_p_values(failed: NDArray[np.bool_], tolerance: float, lengths: tuple[int, ...]) -> NDArray[np.float64]:
    """(n_streams,) least p-value that a stream (n_streams, n_labels) ever shows, over all looks and windows."""
    n_streams, n_labels = failed.shape
    sums = np.zeros((n_labels + 1, n_streams), dtype=np.int16)
    np.cumsum(failed.T, axis=0, dtype=np.int16, out=sums[1:])
    table = _p_values(tolerance, max(lengths))
    young = np.arange(min(n_labels, max(lengths)) + 1)  # windows that still reach back to the first label
    least: NDArray[np.float64] = table[young[:, None], sums[young]].min(axis=0)
    for length in lengths:
        if length < n_labels:
            fewest = (sums[length:] - sums[:-length]).min(axis=0)
            np.minimum(least, table[length, fewest], out=least)
    return least


@lru_cache(maxsize=16)
def _p_values(tolerance: float, longest: int) -> NDArray[np.float64]:
    """Table [n, failures] of the probability of so few failures at a failure rate of the tolerance."""
    counts = np.arange(longest + 1)
    table: NDArray[np.float64] = stats.binom.cdf(counts[None, :], counts[:, None], tolerance)
    return table


def best_window(failed: NDArray[np.bool_], tolerance: float, lengths: tuple[int, ...]) -> tuple[int, int, float]:
    """Size, failures and p-value of the most telling window at the end of a stream (n,)."""
    table = _p_values(tolerance, max(lengths))
    sums = np.concatenate([[0], np.cumsum(failed[::-1])])
    sizes = np.minimum(np.array(lengths), len(failed))
    p_values = table[sizes, sums[sizes]]
    best = int(p_values.argmin())
    return int(sizes[best]), int(sums[sizes[best]]), float(p_values[best])
