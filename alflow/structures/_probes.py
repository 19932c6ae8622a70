"""A few of a fingerprint's distances, with the range of each in which duplicates lie: what a database can index.

The leading coordinates hardly tell apart structures of one composition and volume. A mean or a spread of neighbour
distances obeys the bound of the fingerprints whichever shell it belongs to, so any of them sorts out safely; the shells
taken here lie between the nearest neighbours, which differ least, and the last ones, which follow the volume.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from alflow.structures._fingerprint import neighbours_per_species

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.structures._fingerprint import Fingerprint
    from alflow.structures._policy import DuplicatePolicy

N_PROBES = 4
_SLACK = 2e-5


def probes(fingerprint: Fingerprint) -> NDArray[np.float64]:
    """(4,), Å: two mean neighbour distances and a spread of the first pair of species, a mean of the last pair."""
    return fingerprint.vector[_places(len(fingerprint.vector))[0]].astype(np.float64)


def probe_bounds(fingerprint: Fingerprint, policy: DuplicatePolicy) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(4,), (4,): the range in which :func:`probes` of every duplicate lie.

    Where the policy allows any volume the range is unbounded.
    """
    if policy.any_volume and fingerprint.n_periodic == 3:
        return np.full(N_PROBES, -np.inf), np.full(N_PROBES, np.inf)
    places, partners = _places(len(fingerprint.vector))
    values = fingerprint.vector[places].astype(np.float64)
    # a spread moves by the root mean square of the changes, which grows with the distances, not with the spread
    size = np.hypot(values, fingerprint.vector[partners].astype(np.float64))
    width = policy.max_strain * math.exp(2.0 * policy.max_strain) * size + _SLACK
    width += 2.0 * policy.max_displacement * (1.0 + 2.0 * policy.max_strain)
    return values - width, values + width


@cache
def _places(length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(4,), (4,): where probes stand in a vector of a length, and the spread to each mean, the mean to the spread."""
    n_species = next(s for s in range(1, 120) if 2 * s * s * neighbours_per_species(s) + 2 * s >= length)
    half, shells = length // 2 - n_species, neighbours_per_species(n_species)
    last = half - shells
    means = np.array([shells // 2 - 1, last + shells // 4, last + 3 * shells // 4])
    spread = half + shells // 2 - 1
    return np.array([*means, spread]), np.array([*(means + half), spread - half])
