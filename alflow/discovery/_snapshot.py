"""The hull of one round: every entry's distance to it, as each committee member sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.discovery._lower_hull import hull_energies

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_ON_HULL = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class HullSnapshot:
    """Distances to the convex hull of labelled and predicted energies.

    The hull takes the lowest of many energies, and the lowest of many noisy predictions is too low: expect predicted
    entries on the hull to move up once they are labelled, the more so the larger their spread and their number. This
    is why nothing is *reported* stable from a prediction.

    Parameters
    ----------
    ids
        n entries
    elements
        d element symbols, alphabetical
    fractions
        (n, d) atomic fractions
    labelled
        (n,) True where the energy is a label
    energy
        (n,) eV/atom, committee mean or label
    formation_energy
        (n,) eV/atom against the lowest entry of each element; nan where an element has no entry of its own
    e_hull
        (n,) eV/atom above the hull of the mean energies, >= 0
    e_hull_members
        (K, n) eV/atom above each member's own hull
    spread
        (n,) eV/atom, standard deviation of e_hull over the members; 0 for a single member
    p_stable
        (n,) share of the members whose hull passes through the entry (within `tolerance`)
    tolerance
        eV/atom above the hull that counts as on it
    """

    ids: tuple[int, ...]
    elements: tuple[str, ...]
    fractions: NDArray[np.float64]
    labelled: NDArray[np.bool_]
    energy: NDArray[np.float64]
    formation_energy: NDArray[np.float64]
    e_hull: NDArray[np.float64]
    e_hull_members: NDArray[np.float64]
    spread: NDArray[np.float64]
    p_stable: NDArray[np.float64]
    tolerance: float

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def stable(self) -> tuple[int, ...]:
        """Ids on the hull of the mean energies, labelled or not."""
        return tuple(self.ids[row] for row in np.flatnonzero(self.e_hull <= _ON_HULL))

    def entries(self) -> list[dict[str, Any]]:
        """One JSON-ready record per entry."""
        return [
            {
                "id": self.ids[row],
                "composition": {e: float(x) for e, x in zip(self.elements, self.fractions[row], strict=True) if x > 0},
                "labelled": bool(self.labelled[row]),
                "energy": float(self.energy[row]),
                "formation_energy": _or_none(self.formation_energy[row]),
                "e_hull": float(self.e_hull[row]),
                "spread": float(self.spread[row]),
                "p_stable": float(self.p_stable[row]),
            }
            for row in range(len(self.ids))
        ]

    def stable_entries(self) -> list[dict[str, Any]]:
        """The records of :attr:`stable`, in order of composition."""
        on_hull = set(self.stable)
        found = [entry for entry in self.entries() if entry["id"] in on_hull]
        return sorted(found, key=lambda entry: [entry["composition"].get(e, 0.0) for e in self.elements])

    def summary(self) -> dict[str, Any]:
        """JSON-ready figures of the whole hull."""
        predicted = self.spread[~self.labelled]
        on_hull = self.e_hull <= _ON_HULL
        return {
            "n_entries": len(self.ids),
            "n_labelled": int(self.labelled.sum()),
            "n_members": len(self.e_hull_members),
            "n_stable": int(on_hull.sum()),
            "n_stable_predicted": int((on_hull & ~self.labelled).sum()),
            "median_spread": float(np.median(predicted)) if len(predicted) else None,
            "largest_spread_on_hull": float(self.spread[on_hull].max()) if on_hull.any() else None,
        }


def build_hull(
    *,
    ids: Sequence[int],
    compositions: Sequence[Mapping[str, int]],
    energies: ArrayLike,
    labelled: ArrayLike,
    energy_error: ArrayLike | None = None,
    tolerance: float = 1e-3,
) -> HullSnapshot:
    """Build one hull per member, and one of the mean energies.

    Parameters
    ----------
    ids
        n entries
    compositions
        n mappings from element to number of atoms
    energies
        (K, n) eV per structure, or (n,) for one; columns of labelled entries are replaced by their mean, so give the
        label in every row
    labelled
        (n,) True where the energy is a label; labels and predictions must be the same kind of energy (extrapolated or
        force-consistent): mixed, they differ by the electronic entropy
    energy_error
        (n,) calibrated error of the mean, eV/atom: the members' deviations of predicted entries are stretched to it,
        since the raw spread is usually too small. None: as predicted
    tolerance
        eV/atom above a member's hull that still counts as stable for that member

    Raises
    ------
    ValueError
        if shapes disagree, there is no entry, or an energy is not finite
    """
    members = np.atleast_2d(np.asarray(energies, dtype=np.float64))
    known = np.asarray(labelled, dtype=bool).reshape(-1)
    n = len(ids)
    if n == 0:
        raise ValueError("a hull needs at least one entry")
    if len(compositions) != n or members.shape[1] != n or len(known) != n:
        raise ValueError(f"{n} ids, {len(compositions)} compositions, {members.shape[1]} energies, {len(known)} flags")
    if not np.isfinite(members).all():
        raise ValueError("hull energies must be finite numbers")
    elements = tuple(
        sorted({element for composition in compositions for element, amount in composition.items() if amount})
    )
    counts = np.array([[composition.get(element, 0) for element in elements] for composition in compositions], float)
    n_atoms = counts.sum(axis=1)
    fractions = counts / n_atoms[:, None]
    per_atom = members / n_atoms
    mean = per_atom.mean(axis=0)
    deviation = np.where(known, 0.0, per_atom - mean)
    if energy_error is not None and len(members) > 1:
        raw = deviation.std(axis=0, ddof=1)
        wanted = np.nan_to_num(np.asarray(energy_error, dtype=np.float64).reshape(-1), nan=0.0)
        deviation *= np.where((raw > 0) & (wanted > 0), wanted / np.where(raw > 0, raw, 1.0), 1.0)
    per_member = mean + deviation
    hulls = hull_energies(fractions, np.concatenate([mean[None], per_member]))
    above = np.maximum(per_member - hulls[1:], 0.0)
    return HullSnapshot(
        ids=tuple(int(i) for i in ids),
        elements=elements,
        fractions=fractions,
        labelled=known,
        energy=mean,
        formation_energy=_formation_energies(fractions, mean),
        e_hull=np.maximum(mean - hulls[0], 0.0),
        e_hull_members=above,
        spread=above.std(axis=0, ddof=1) if len(members) > 1 else np.zeros(n),
        p_stable=(above <= tolerance).mean(axis=0),
        tolerance=tolerance,
    )


def phase_diagram(compositions: Sequence[Mapping[str, int]], energies: ArrayLike) -> Any:
    """The pymatgen ``PhaseDiagram`` of the same entries, for its decompositions and plots.

    Parameters
    ----------
    compositions
        n mappings from element to number of atoms; every element needs an entry of its own
    energies
        (n,) eV per structure
    """
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core.composition import Composition

    values = np.asarray(energies, dtype=np.float64)
    return PhaseDiagram([PDEntry(Composition(dict(c)), float(e)) for c, e in zip(compositions, values, strict=True)])


def _formation_energies(fractions: NDArray[np.float64], energy: NDArray[np.float64]) -> NDArray[np.float64]:
    references = np.full(fractions.shape[1], np.nan)
    for column in range(fractions.shape[1]):
        pure = fractions[:, column] == 1.0
        if pure.any():
            references[column] = energy[pure].min()
    # 0 · nan would make every entry depend on elements that it does not hold
    formation: NDArray[np.float64] = energy - np.where(fractions > 0, fractions * references, 0.0).sum(axis=1)
    return formation


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
