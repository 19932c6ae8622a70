"""Structures for `alflow dedup`, and what it writes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from alflow.structures import frames_of
from tests.disguises import disguise, jiggled

if TYPE_CHECKING:
    pass


def rattled(symbol: str = "Cu", seed: int = 0, size: tuple[int, int, int] = (1, 1, 1)) -> Atoms:
    """A cell without symmetry."""
    atoms = bulk(symbol, "fcc", a=3.6, cubic=True) * size
    atoms.rattle(0.08, seed=seed)
    return atoms


def labelled(atoms: Atoms, energy: float) -> Atoms:
    """A copy with the results of a calculation."""
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=np.full((len(copy), 3), 0.25))
    return copy


def mixed(n: int = 6, seed: int = 1) -> list[Atoms]:
    """Families of disguised copies and strangers, in random order."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        parent = rattled("Ni" if k % 3 == 1 else "Cu", seed=k)
        if k % 3 == 2:
            parent.numbers[0] = 28
        found += [parent, *(disguise(parent, rng) for _ in range(k % 3)), jiggled(disguise(parent, rng), rng, 0.04)]
        found.append(jiggled(parent, rng, 0.005))
    found += [molecule("H2O"), disguise(molecule("H2O"), rng), molecule("CO2")]
    return [found[i] for i in rng.permutation(len(found))]


def table(path: str = "unique.csv") -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def texts(path: str | Path) -> list[str | None]:
    return [frame.text for frame in frames_of(path)]


def frames(path: str | Path) -> list[Atoms]:
    return [frame.load() for frame in frames_of(path)]
