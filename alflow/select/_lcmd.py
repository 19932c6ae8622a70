"""Largest-cluster-maximum-distance: a diverse choice that follows the density of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_QUIET_COLUMN = 0.1
_CHUNK = 512


def standardise(
    features: ArrayLike, centres: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shift and scale features so that no column rules the distances by its unit alone.

    Every column is divided by its standard deviation over features and centres together, but never by less than a
    tenth of the root mean square deviation of all columns: a column that hardly varies is mostly rounding and must not
    be blown up to the importance of the others.

    Parameters
    ----------
    features
        (n, d)
    centres
        (m, d) or None

    Returns
    -------
    features, centres
        (n, d) and (m, d)
    """
    points = np.asarray(features, dtype=np.float64)
    others = np.zeros((0, points.shape[1])) if centres is None else np.asarray(centres, dtype=np.float64)
    joined = np.concatenate([points, others])
    if len(joined) == 0:
        return points, others
    deviation = joined.std(axis=0)
    typical = float(np.sqrt(np.mean(np.square(deviation)))) if deviation.size else 0.0
    scale = np.maximum(deviation, _QUIET_COLUMN * typical) if typical > 0 else np.ones_like(deviation)
    middle = joined.mean(axis=0)
    return (points - middle) / scale, (others - middle) / scale


def lcmd(features: ArrayLike, centres: ArrayLike | None, n: int) -> NDArray[np.int64]:
    """Choose n rows, each the farthest member of the cluster that is largest at that moment.

    Clusters are the rows nearest to each centre (labelled structures first, then the rows chosen already); the size of
    a cluster is its sum of squared distances, so that both crowded and far regions are served (Holzmüller, Zaverkin,
    Kästner and Steinwart, JMLR 24(164), 2023, section 4.3, LCMD-TP). Time O((n_centres + n)·n_rows).

    Parameters
    ----------
    features
        (n_rows, d), as they shall be measured: see :func:`standardise`
    centres
        (n_centres, d) of what is labelled; None or empty: the first choice is the row farthest from the mean
    n
        rows wanted; with fewer rows, or fewer that differ from a centre, fewer come back

    Returns
    -------
    order
        (≤ n,) row numbers in the order of choice
    """
    points = np.asarray(features, dtype=np.float64)
    n_rows = len(points)
    wanted = min(n, n_rows)
    if wanted <= 0:
        return np.zeros(0, dtype=np.int64)
    known = np.zeros((0, points.shape[1])) if centres is None else np.asarray(centres, dtype=np.float64)
    chosen: list[int] = []
    if len(known):
        distance, cluster = _nearest(points, known)
    else:
        first = int(np.square(points - points.mean(axis=0)).sum(axis=1).argmax())
        chosen.append(first)
        distance = np.square(points - points[first]).sum(axis=1)
        cluster = np.zeros(n_rows, dtype=np.int64)
    free = np.ones(n_rows, dtype=bool)
    free[chosen] = False
    n_clusters = max(len(known), 1)
    while len(chosen) < wanted:
        sizes = np.bincount(cluster[free], weights=distance[free], minlength=n_clusters)
        in_largest = free & (cluster == int(sizes.argmax()))
        pick = int(np.where(in_largest, distance, -1.0).argmax())
        if distance[pick] <= 0.0:
            break
        chosen.append(pick)
        free[pick] = False
        new = np.square(points - points[pick]).sum(axis=1)
        closer = new < distance
        distance = np.where(closer, new, distance)
        cluster = np.where(closer, n_clusters, cluster)
        n_clusters += 1
    return np.array(chosen, dtype=np.int64)


def _nearest(
    points: NDArray[np.float64], centres: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Squared distance to, and number of, the nearest centre, in chunks that fit the cache."""
    distance = np.empty(len(points))
    cluster = np.empty(len(points), dtype=np.int64)
    norms = np.square(centres).sum(axis=1)
    for start in range(0, len(points), _CHUNK):
        block = points[start : start + _CHUNK]
        nearest = (norms - 2.0 * block @ centres.T).argmin(axis=1)
        cluster[start : start + _CHUNK] = nearest
        # the difference itself, not the expanded square: identical rows must be at distance zero exactly
        distance[start : start + _CHUNK] = np.square(block - centres[nearest]).sum(axis=1)
    return distance, cluster
