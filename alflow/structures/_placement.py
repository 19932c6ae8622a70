"""Trial placements: a source laid on a target by given linear maps, one anchor site at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alflow.structures._lattice import wrap_small
from alflow.structures.kernels import CompiledTrial, compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_CHUNK = 60_000
_FEW = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """One way to lay a source on a target: ``y = x @ linear + shift``.

    ``sites`` (n_source,) names the site of the target under each site of the source.
    """

    linear: NDArray[np.float64]
    shift: NDArray[np.float64]
    sites: NDArray[np.int64]
    largest: float
    rms: float
    moment_sign: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """What all placements of a pair share.

    Parameters
    ----------
    x, y
        (n_x, 3) and (n_y, 3), Å, sites of source and target
    lattice
        (d, 3), Å, reduced lattice of the target
    maps
        (m, 3, 3), row maps to try
    pairs
        (n_x, n_y), sites that may correspond
    copies
        sites of the source for every site of the target
    order
        (n_x,), sites of the source, those with the fewest partners first; the first is the anchor
    gate
        Å, beyond which no site may be from its partner while the anchor lies on its own
    rms
        Å, largest root mean square displacement that is of any interest
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    lattice: NDArray[np.float64]
    maps: NDArray[np.float64]
    pairs: NDArray[np.bool_]
    copies: int
    order: NDArray[np.int64]
    gate: float
    rms: float

    @property
    def turned(self) -> bool:
        """True where the lattice leaves a rotation open, so that a placement is turned into its best orientation."""
        return len(self.lattice) < 2

    def starts(self, alike: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(c,) indices of maps and (c, 3) shifts to try; ``alike`` (n_y,) sorts the partners of the anchor."""
        if not len(self.lattice):
            return np.arange(len(self.maps)), self.y.mean(axis=0) - self.x.mean(axis=0) @ self.maps
        lead = self.order[0]
        anchors = np.flatnonzero(self.pairs[lead])
        anchors = anchors[np.argsort(alike[anchors], kind="stable")]
        shifts = (self.y[anchors][:, None] - (self.x[lead] @ self.maps)[None]).reshape(-1, 3)
        return np.tile(np.arange(len(self.maps)), len(anchors)), shifts

    def placements(
        self, linears: NDArray[np.int64], shifts: NDArray[np.float64], better_than: Callable[[], float]
    ) -> Iterator[Placement]:
        """One-to-one placements within the gate, each with its least-squares shift (and turn).

        Parameters
        ----------
        linears, shifts
            some of the starts
        better_than
            asked before each placement: Å, the root mean square displacement from which on none is of any interest
        """
        kernels = compiled()
        if kernels is None:
            yield from self._plain_placements(linears, shifts)
            return
        trial = CompiledTrial(
            kernels,
            self.x,
            self.y,
            self.lattice,
            self.maps,
            self.pairs,
            self.copies,
            self.order,
            self.gate,
            turned=self.turned,
        )
        linears, shifts = np.ascontiguousarray(linears), np.ascontiguousarray(shifts)
        start = 0
        while start < len(linears):
            scatter = len(self.x) * min(self.rms, better_than()) ** 2
            found = trial.next_placement(linears, shifts, start, len(linears), scatter)
            if found is None:
                return
            start, sites, residue = found
            yield self._finished(self.maps[linears[start]], shifts[start], residue, sites)
            start += 1

    def _plain_placements(self, linears: NDArray[np.int64], shifts: NDArray[np.float64]) -> Iterator[Placement]:
        linears, shifts = self._survivors(linears, shifts)
        step = max(1, _CHUNK // (len(self.x) * len(self.y)))
        for start in range(0, len(linears), step):
            chunk = slice(start, start + step)
            carried = self.x @ self.maps[linears[chunk]] + shifts[chunk][:, None]
            nearest, residue = nearest_sites(carried, self.y, self.lattice, self.pairs)
            fits = np.einsum("cij,cij->ci", residue, residue).max(axis=1) <= self.gate**2
            if not self.turned:
                centred = residue - residue.mean(axis=1)[:, None]
                fits &= np.einsum("cij,cij->c", centred, centred) <= len(self.x) * self.rms**2
            for k in np.flatnonzero(fits):
                if (np.bincount(nearest[k], minlength=len(self.y)) == self.copies).all():
                    yield self._finished(self.maps[linears[chunk][k]], shifts[chunk][k], residue[k], nearest[k])

    def _survivors(
        self, linears: NDArray[np.int64], shifts: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Drop starts site by site: one too far from every partner, or too much scatter among those seen so far.

        The scatter about the mean of some displacements never exceeds the scatter of all of them about theirs.
        """
        total, square = np.zeros((len(linears), 3)), np.zeros(len(linears))
        for count, i in enumerate(self.order[1:], start=2):
            if len(linears) <= _FEW:
                break
            carried = (self.x[i] @ self.maps)[linears] + shifts
            gap = wrap_small(carried[:, None] - self.y[self.pairs[i]][None], self.lattice)
            squares = np.einsum("ijk,ijk->ij", gap, gap)
            best = squares.argmin(axis=1)
            rows = np.arange(len(best))
            least = squares[rows, best]
            total, square = total + gap[rows, best], square + least
            alive = least <= self.gate**2
            if not self.turned:
                scatter = square - np.einsum("ij,ij->i", total, total) / count
                alive &= scatter <= len(self.x) * self.rms**2 * (1.0 + 1e-9) + 1e-12
            linears, shifts, total, square = linears[alive], shifts[alive], total[alive], square[alive]
        return linears, shifts

    def _finished(
        self,
        linear: NDArray[np.float64],
        shift: NDArray[np.float64],
        residue: NDArray[np.float64],
        sites: NDArray[np.int64],
    ) -> Placement:
        if self.turned:
            linear, shift, residue = _turn(self.x, linear, shift, residue, self.lattice)
        mean = residue.mean(axis=0)
        square = ((residue - mean) ** 2).sum(axis=1)
        return Placement(
            linear=linear,
            shift=shift - mean,
            sites=sites,
            largest=math.sqrt(square.max()),
            rms=math.sqrt(square.mean()),
        )


def nearest_sites(
    carried: NDArray[np.float64], y: NDArray[np.float64], lattice: NDArray[np.float64], pairs: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(c, n) allowed site nearest to each carried point (c, n, 3), and the (c, n, 3) way from it."""
    gap = wrap_small(carried[:, :, None] - y[None, None], lattice)
    square = np.einsum("cijk,cijk->cij", gap, gap)
    square[:, ~pairs] = np.inf
    nearest = square.argmin(axis=2)
    return nearest, np.take_along_axis(gap, nearest[:, :, None, None], axis=2)[:, :, 0]


def _turn(
    x: NDArray[np.float64],
    linear: NDArray[np.float64],
    shift: NDArray[np.float64],
    residue: NDArray[np.float64],
    lattice: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Turn a molecule (freely) or a wire (about its axis) onto its partner by least squares (Kabsch 1976)."""
    carried = x @ linear + shift
    goal = carried - residue
    centre, aim = carried.mean(axis=0), goal.mean(axis=0)
    spread, wanted = carried - centre, goal - aim
    along = np.zeros((3, 3))
    if len(lattice):
        axis = lattice[0] / np.linalg.norm(lattice[0])
        along = np.outer(axis, axis)
    across = np.eye(3) - along
    u, _, vt = np.linalg.svd(across @ (spread.T @ wanted) @ across + along * float((spread**2).sum() + 1.0))
    # keep the handedness of the map: a reflection of the remaining displacement would be another map
    sign = np.sign(np.linalg.det(u @ vt))
    turn = u @ np.diag([1.0, 1.0, sign]) @ vt
    new_shift = (shift - centre) @ turn + aim
    return linear @ turn, new_shift, x @ (linear @ turn) + new_shift - goal
