"""Reference energies per element and the scales of the network, from the training labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from alflow.potentials._geometry import EdgeList
from alflow.potentials._network import Constants
from alflow.potentials._radial import INNER_FRACTION, bond_lengths, radial_basis
from alflow.potentials._repulsion import Repulsion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._spec import CommitteeSpec
    from alflow.structures import LabelledStructure

SMALLEST_SCALE = 0.05
"""eV: where all labels agree there is no scale to see; what structures of one composition differ by per atom, unless
many labels say otherwise."""
UNSEEN, TINY = 1e-9, 1e-18
"""Of the largest singular value; and eV²: what is below is rounding."""
MAX_ITERATIONS = 50
FAR_OFF = 7.5
"""Of the median distance from the fit, five standard deviations of normal ones: from there on structures count less."""
RARE, BEYOND = 0.1, 5.0
"""Share of the structures that may be larger than all others, and how much they then count for in a scale: such times
the largest of the others. No structure of the published Si, Mo, Li and NbMoTaW sets is cut, 7 of 1,000 of MPtrj are.
"""


def fit_references(counts: NDArray[np.float64], energies: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Energies per element by regression of the energy per atom on the composition.

    Minimises :math:`\sum_s (E_s/n_s - \bar e - x_s \cdot w)^2 + \lambda |w|^2` with the fractions x and the mean energy
    per atom :math:`\bar e`; the energies per element are :math:`\bar e + w`. The strength is the variance that
    composition does not explain over the variance of w, both estimated from these labels (MacKay, Neural Computation 4,
    415, 1992, section 4). So elements that the data cannot tell apart get the same energy, a split that only noise
    decides is not believed, and where the zeros of energy lie far apart, as in all-electron codes, nothing of that is
    left in the remainder. Structures far off the others, as with two atoms on each other, count less (Huber, Annals of
    Mathematical Statistics 35, 73, 1964).

    Parameters
    ----------
    counts
        (n, n_elements) atoms of each element
    energies
        (n,), eV

    Returns
    -------
    (n_elements,), eV
    """
    weights = np.ones(len(energies))
    for _ in range(MAX_ITERATIONS):
        found = _ridge(counts, energies, weights)
        away = np.abs(energies - counts @ found) / counts.sum(axis=1)
        most = max(FAR_OFF * float(np.median(away)), SMALLEST_SCALE)
        before, weights = weights, np.minimum(1.0, most / np.maximum(away, TINY))
        if np.abs(weights - before).max() < 1e-3:
            break
    return found


def _ridge(
    counts: NDArray[np.float64], energies: NDArray[np.float64], importance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The regression of :func:`fit_references` with weights (n,) of the structures."""
    total, root = counts.sum(axis=1), np.sqrt(importance)
    fractions, per_atom = counts / total[:, None], energies / total
    mean = float(np.average(per_atom, weights=importance))
    left, size, right = np.linalg.svd(root[:, None] * fractions, full_matrices=False)
    seen = size > UNSEEN * size[0]
    left, size, right = left[:, seen], size[seen], right[seen]
    along = left.T @ (root * (per_atom - mean))
    strength = 0.0
    for _ in range(MAX_ITERATIONS):
        decided = size**2 / (size**2 + strength)  # share that the labels decide, direction by direction
        weights = decided * along / size
        found: NDArray[np.float64] = mean + right.T @ weights
        signal, n_decided = float(weights @ weights), float(decided.sum())
        if signal < TINY:
            return np.full(counts.shape[1], mean)
        residual = float(np.sum((importance * (per_atom - fractions @ found)) ** 2))  # far ones are as far as is usual
        noise = (residual + SMALLEST_SCALE**2) / (max(float(importance.sum()) - n_decided, 0.0) + 1.0)
        before, strength = strength, noise * n_decided / signal
        if abs(strength - before) <= 1e-6 * strength:
            break
    return found


def derive_constants(
    examples: Sequence[LabelledStructure],
    edges: Sequence[EdgeList],
    repulsions: Sequence[Repulsion],
    numbers: NDArray[np.int64],
    spec: CommitteeSpec,
) -> tuple[Constants, NDArray[np.float64]]:
    """Constants of the network and the reference energy of an isolated atom per element.

    An isolated atom among the labels sets its element's reference exactly; atoms in matter are referred to the ridge
    fit, and the network's energy fades between the two with the coordination.

    Returns
    -------
    constants
    references: (n_elements,), eV
    """
    counts = composition(examples, numbers)
    energies = np.array([e.properties.energy - r.energy[0] for e, r in zip(examples, repulsions, strict=True)])
    isolated = np.array([len(e.centres) == 0 for e in edges])
    matter = ~isolated if (~isolated).any() else np.ones(len(energies), dtype=bool)
    in_matter = fit_references(counts[matter], energies[matter])
    lonely = lonely_energies(examples, edges, numbers)
    references = np.where(np.isnan(lonely), in_matter, lonely)
    residual = (energies - counts @ in_matter)[matter] / counts[matter].sum(axis=1)
    forces = [
        e.properties.forces - r.forces
        for e, r in zip(examples, repulsions, strict=True)
        if e.properties.forces is not None
    ]
    scale = energy_scale(residual, forces)
    n_atoms = sum(len(e.atoms) for e, m in zip(edges, matter, strict=True) if m)
    n_edges = sum(len(e.centres) for e in edges)
    neighbours = max(n_edges / n_atoms, 1.0)
    density = _mean_density(edges, numbers, spec) / n_atoms
    constants = Constants(
        scale=scale,
        neighbours=neighbours,
        coordination=max(float(density[:, 0].sum()), 1e-3),
        cohesion=tuple(float(x) for x in in_matter - references),
        density=tuple(tuple(float(x) / math.sqrt(neighbours) for x in row) for row in density),
    )
    return constants, references


def energy_scale(residual: NDArray[np.float64], forces: Sequence[NDArray[np.float64]]) -> float:
    """Size of energies per atom (eV) and forces (eV/Å) that a network is to give: the larger of their rms.

    Few structures far beyond the rest, as with two atoms on each other, are cut: they would make the network coarse for
    all others.

    Parameters
    ----------
    residual
        (n,) eV per atom, beyond what composition explains
    forces
        (n_atoms, 3) of each structure that has them
    """
    per_structure = np.array([np.sqrt(np.mean(f**2)) for f in forces])
    sizes = [_usual_rms(np.abs(residual), np.ones(len(residual)))]
    if forces:
        sizes.append(_usual_rms(per_structure, np.array([len(f) for f in forces])))
    return max(*sizes, SMALLEST_SCALE)


def _usual_rms(sizes: NDArray[np.float64], weights: NDArray[np.int64] | NDArray[np.float64]) -> float:
    """Weighted rms of sizes of structures, of which the largest are cut."""
    most = BEYOND * float(np.quantile(sizes, 1 - RARE, method="lower"))
    cut = np.minimum(sizes, most) if most > 0 else sizes
    return float(np.sqrt(np.average(cut**2, weights=weights)))


def composition(examples: Sequence[LabelledStructure], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Atoms of each element in each structure, (n, n_elements)."""
    return np.array([[np.sum(e.structure.numbers == z) for z in numbers] for e in examples], dtype=np.float64)


def lonely_energies(
    examples: Sequence[LabelledStructure], edges: Sequence[EdgeList], numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Energies of labelled atoms without neighbours, (n_elements,) eV: the median of several, nan where none is."""
    counts = composition(examples, numbers)
    isolated = np.array([len(e.centres) == 0 for e in edges])
    energies = np.array([e.properties.energy for e in examples])
    found = np.full(len(numbers), np.nan)
    for k in range(len(numbers)):
        alone = isolated & (counts[:, k] > 0) & (counts.sum(axis=1) == counts[:, k])
        if alone.any():
            found[k] = np.median(energies[alone] / counts[alone, k])
    return found


def _mean_density(edges: Sequence[EdgeList], numbers: NDArray[np.int64], spec: CommitteeSpec) -> NDArray[np.float64]:
    """Sum of the radial functions over all edges by the element of the neighbour, (n_elements, n_radial)."""
    total = np.zeros((len(numbers), spec.n_radial))
    lengths = INNER_FRACTION * bond_lengths(numbers)
    for e in edges:
        species = e.atoms.species
        inner = torch.from_numpy(lengths[species[e.centres], species[e.neighbours]])
        radial, _ = radial_basis(torch.from_numpy(e.vectors).norm(dim=1), spec.r_max, spec.n_radial, inner)
        np.add.at(total, species[e.neighbours], radial.numpy())
    return total
