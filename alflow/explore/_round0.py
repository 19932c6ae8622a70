"""Round 0: what a campaign labels first, designed instead of left to chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alflow.explore._derivative import hermite_normal_forms, short_cell
from alflow.explore._distort import deform, random_strain, rattle
from alflow.explore._prototypes import elemental_volume, prototype
from alflow.explore._settings import Round0Settings
from alflow.explore._source import Proposal
from alflow.structures import Structure, atomic_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SOURCE = "round0"
_SHAPES = 6


def round0(settings: Round0Settings, elements: Sequence[str], rng: np.random.Generator) -> Iterator[Proposal]:
    """Elemental references in common prototypes, then small random cells spread over composition, volume, distortion.

    The spread is a Latin hypercube over composition, volume, strain, displacement and size of the cell, so that even
    ten structures cover every range evenly.

    Parameters
    ----------
    settings
        sizes and ranges
    elements
        symbols of the campaign
    rng
        the only randomness

    Yields
    ------
    Proposal
        at most ``settings.size(len(elements))`` of them

    Raises
    ------
    StructureError
        for an unknown element
    """
    names = tuple(dict.fromkeys(elements))
    yield from _references(settings, names)
    yield from _spread(settings, names, rng)


def _references(settings: Round0Settings, elements: Sequence[str]) -> Iterator[Proposal]:
    for element in elements:
        for name in settings.prototypes:
            for factor in settings.reference_volumes:
                lattice = prototype(name).scaled(factor * elemental_volume(element, name, settings.volumes))
                yield Proposal(
                    structure=_crystal(lattice.cell, lattice.fractional, [element] * lattice.n_sites),
                    source=_SOURCE,
                    parameters={"design": "reference", "prototype": name, "element": element, "volume_factor": factor},
                )


def _spread(settings: Round0Settings, elements: Sequence[str], rng: np.random.Generator) -> Iterator[Proposal]:
    n, n_elements = settings.n_spread, len(elements)
    design = _latin_hypercube(n, 4 + n_elements - 1, rng)
    for i, (volume, strain, rattled, size, *cuts) in enumerate(design):
        name = settings.parents[i % len(settings.parents)]
        lattice = prototype(name)
        smallest = max(2, min(n_elements, settings.max_atoms))
        n_atoms = smallest + int(size * (settings.max_atoms - smallest + 1))
        n_cells = max(1, min(round(n_atoms / lattice.n_sites), settings.max_atoms // lattice.n_sites))
        # The gaps between sorted uniform numbers are distributed evenly over all compositions.
        fractions = np.diff(np.concatenate([[0.0], np.sort(cuts), [1.0]]))
        counts = _whole_numbers(fractions, n_cells * lattice.n_sites)
        species = [e for e, count in zip(elements, counts, strict=True) for _ in range(count)]
        species = [species[k] for k in rng.permutation(len(species))]
        factor = settings.volume[0] + volume * (settings.volume[1] - settings.volume[0])
        total = factor * sum(elemental_volume(e, name, settings.volumes) for e in species)
        structure = _random_cell(lattice.cell, lattice.fractional, n_cells, species, total, rng)
        structure = deform(structure, random_strain(rng, strain * settings.strain, traceless=True))
        structure = rattle(structure, rng, rattled * settings.rattle)
        yield Proposal(
            structure=structure,
            source=_SOURCE,
            parameters={
                "design": "spread",
                "parent": name,
                "volume_factor": float(factor),
                "strain": float(strain * settings.strain),
                "rattle": float(rattled * settings.rattle),
            },
        )


def _random_cell(
    cell: NDArray[np.float64],
    fractional: NDArray[np.float64],
    n_cells: int,
    species: Sequence[str],
    volume: float,
    rng: np.random.Generator,
) -> Structure:
    """Random superlattice of a parent, the most compact of a few, filled in the given order."""
    forms = hermite_normal_forms(n_cells)
    tried = forms[rng.integers(len(forms), size=_SHAPES)]
    cells = [short_cell(form @ cell) for form in tried]
    best = int(np.argmin([np.linalg.norm(c, axis=1).max() for c in cells]))
    inverse = np.linalg.inv(tried[best])
    reach = np.abs(tried[best]).sum(axis=0).max()
    grid = np.stack(np.meshgrid(*[np.arange(reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = grid[((grid @ inverse > -1e-9) & (grid @ inverse < 1 - 1e-9)).all(axis=1)]
    sites = (fractional[None] + inside[:, None]).reshape(-1, 3) @ cell @ np.linalg.inv(cells[best])
    scale = (volume / abs(np.linalg.det(cells[best]))) ** (1 / 3)
    return _crystal(cells[best] * scale, sites - np.floor(sites + 1e-9), species)


def _crystal(cell: NDArray[np.float64], fractional: NDArray[np.float64], species: Sequence[str]) -> Structure:
    return Structure(
        cell=cell,
        pbc=np.ones(3, dtype=bool),
        numbers=np.array([atomic_number(s) for s in species]),
        positions=fractional @ cell,
    )


def _latin_hypercube(n: int, dimensions: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, dimensions) in [0, 1): every n-th of every axis holds exactly one point."""
    strata = np.stack([rng.permutation(n) for _ in range(dimensions)], axis=1)
    return np.asarray((strata + rng.uniform(size=strata.shape)) / max(n, 1))


def _whole_numbers(fractions: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Round fractions that sum to one to whole numbers that sum to ``total``, the largest remainders up."""
    exact = fractions * total
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]] += 1
    return np.asarray(counts)
