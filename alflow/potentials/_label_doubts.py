"""What labels look like, and what a person should look at again: units, signs of two theories, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alflow.errors import StructureError
from alflow.potentials._radial import bond_lengths
from alflow.potentials._references import composition, fit_references
from alflow.structures import neighbour_list

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.structures import LabelledStructure

REMAINDER = 1.0
"""eV per atom, rms: more than structures of one composition usually differ by."""
STRESS = 0.3
"""eV/Å³ (48 GPa): where half of the stresses are larger, another unit is likelier."""
FAR_APART, LOOKED_AT, SHELL = 1.6, 200, 2.5
"""Of the sum of covalent radii; structures that are looked at; of the same, how far neighbours are searched."""


@dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """How many labels there are of each kind, and how large they are.

    Parameters
    ----------
    n_energy, n_forces, n_stress
        structures with such a label
    energy
        least and largest energy per atom, eV
    force_rms, force_max
        of the components, eV/Å; None without forces
    stress_max
        largest component, eV/Å³; None without stresses
    doubts
        sentences
    """

    n_energy: int
    n_forces: int
    n_stress: int
    energy: tuple[float, float]
    force_rms: float | None
    force_max: float | None
    stress_max: float | None
    doubts: tuple[str, ...]


def summarise_labels(examples: Sequence[LabelledStructure]) -> LabelSummary:
    """Count labels, and say what is doubtful about them; nothing here is an error."""
    energies = np.array([e.properties.energy / e.structure.n_atoms for e in examples])
    forces = [e.properties.forces.ravel() for e in examples if e.properties.forces is not None]
    stresses = np.array([np.abs(e.properties.stress).max() for e in examples if e.properties.stress is not None])
    components = np.concatenate(forces) if forces else None
    return LabelSummary(
        n_energy=len(examples),
        n_forces=len(forces),
        n_stress=len(stresses),
        energy=(float(energies.min()), float(energies.max())),
        force_rms=None if components is None else float(np.sqrt(np.mean(components**2))),
        force_max=None if components is None else float(np.abs(components).max()),
        stress_max=float(stresses.max()) if len(stresses) else None,
        doubts=tuple(_doubts(examples, energies, stresses, bool(forces))),
    )


def _doubts(
    examples: Sequence[LabelledStructure],
    energies: NDArray[np.float64],
    stresses: NDArray[np.float64],
    with_forces: bool,
) -> list[str]:
    found = []
    if not with_forces:
        found.append("no label has forces: a structure with forces teaches as much as many without")
    if not len(stresses) and any(all(e.structure.pbc.tolist()) for e in examples):
        found.append("no label has a stress: cells, elastic constants and volumes will be less exact")
    if len(stresses) and np.median(stresses) > STRESS:
        found.append(
            f"half of the stresses have components above {np.median(stresses):.2g} eV/Å³ "
            f"({160.2 * np.median(stresses):.0f} GPa): are they in eV/Å³?"
        )
    numbers = np.unique(np.concatenate([e.structure.numbers for e in examples]))
    counts = composition(examples, numbers)
    total = counts.sum(axis=1)
    left = energies - counts @ fit_references(counts, energies * total) / total
    remainder = float(np.sqrt(np.mean(left**2)))
    if remainder > REMAINDER:
        found.append(
            f"energies differ by {remainder:.2g} eV/atom (rms) beyond what composition explains: are all of one "
            "theory, of the whole cell, and in eV?"
        )
    apart = _nearest(examples)
    if apart > FAR_APART:
        found.append(f"atoms lie {apart:.2g} covalent bond lengths apart (median): are positions and cells in Å?")
    return found


def _nearest(examples: Sequence[LabelledStructure]) -> float:
    """Median over structures of the shortest distance, in sums of covalent radii; 0 where no atoms meet."""
    ratios = []
    for example in examples[:: max(1, len(examples) // LOOKED_AT)]:
        numbers = np.asarray(example.structure.numbers)
        lengths = bond_lengths(numbers)
        try:
            pairs = neighbour_list(example.structure, SHELL * float(lengths.max()))
        except StructureError:  # atoms on one place: refused, with its name, by whoever uses the structure
            continue
        if len(pairs):
            ratios.append(float((pairs.distances / lengths[pairs.centres, pairs.neighbours]).min()))
    return float(np.median(ratios)) if ratios else 0.0
