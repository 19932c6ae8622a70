"""Small structures of every kind, for tests: crystals of high and low symmetry, slabs, wires, molecules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule, mx2
from ase.spacegroup import crystal

if TYPE_CHECKING:
    from collections.abc import Sequence


def random_crystal(rng: np.random.Generator, n_atoms: int, elements: Sequence[str], closest: float = 1.6) -> Atoms:
    """Atoms at random in a random cell of 14 Å³ per atom, no two of them closer than ``closest`` Å."""
    length = (14.0 * n_atoms) ** (1.0 / 3.0)
    while True:
        cell = np.eye(3) * length + rng.normal(size=(3, 3)) * 0.1 * length
        atoms = Atoms(cell=cell, pbc=True)
        for _ in range(400):
            trial = atoms + Atoms([str(rng.choice(list(elements)))], positions=[rng.random(3) @ cell])
            distances = trial.get_all_distances(mic=True)[-1][:-1]
            if len(distances) == 0 or distances.min() > closest:
                atoms = trial
            if len(atoms) == n_atoms:
                return atoms


def perovskite() -> Atoms:
    """Cubic SrTiO3, five atoms."""
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
    return crystal(["Sr", "Ti", "O"], sites, spacegroup=221, cellpar=[3.9, 3.9, 3.9, 90, 90, 90])


def zoo() -> dict[str, Atoms]:
    """One structure of every kind that the duplicate search must know, by name."""
    rng = np.random.default_rng(11)
    rattled = bulk("Si", cubic=True)
    rattled.positions += rng.normal(size=(8, 3)) * 0.03
    disulphide = mx2(vacuum=5.0)
    disulphide.pbc = (True, True, False)
    slab = fcc111("Cu", (2, 1, 3), vacuum=5.0)
    slab.pbc = (True, True, False)
    wire = Atoms("CuAuCu", [[0, 0, 0], [0.8, 1.5, 2], [1, -0.7, 3.3]], cell=[0, 0, 5.0], pbc=[False, False, True])
    return {
        "copper": bulk("Cu", "fcc", a=3.6),
        "magnesium": bulk("Mg", "hcp", a=3.2, c=5.2),
        "salt": bulk("NaCl", "rocksalt", a=5.6),
        "diamond": bulk("C", "diamond", a=3.57),
        "perovskite": perovskite(),
        "rattled silicon": rattled,
        "random alloy": random_crystal(rng, 7, ("Cu", "Au")),
        "slab": slab,
        "two-dimensional": disulphide,
        "wire": wire,
        "chain": Atoms("CuAu", [[0, 0, 0], [0, 0, 2.5]], cell=[0, 0, 5.0], pbc=[False, False, True]),
        "ethanol": molecule("CH3CH2OH"),
        "linear molecule": molecule("CO2"),
        "planar molecule": molecule("C6H6"),
        "atom": Atoms("He"),
    }
