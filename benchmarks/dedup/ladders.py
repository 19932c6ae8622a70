"""Pairs that are further apart from step to step: noise on a copy in disguise, homogeneous strain.

What was done to a pair bounds how far apart it is. The displacements themselves, without their mean, and the strain are
one way of laying one on the other: a pair is *known to be within* a policy where these are. Strain changes the volume,
whichever way the lattices are laid on each other, and the largest of three principal strains is at least their mean: a
pair is *known to be beyond* a policy where this mean is. Between the two only the search knows.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from alflow.structures import DuplicatePolicy, Structure
from tests.crystals import perovskite, random_crystal
from tests.disguises import Disguise, disguise, random_orthogonal, repeated
from tests.structures.families import stacked

_PAIRS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Rung:
    """Pairs of one step, and the displacements (n,), Å, and logarithmic strain that each was given."""

    step: str
    pairs: list[tuple[Structure, Structure]]
    largest: np.ndarray
    rms: np.ndarray
    strain: float = 0.0
    mean_strain: float = 0.0

    def within(self, policy: DuplicatePolicy) -> np.ndarray:
        """(n,) pairs that the policy has to match."""
        fits = (self.largest <= policy.max_displacement) & (self.rms <= policy.rms_displacement)
        return np.asarray(fits & (self.strain <= policy.max_strain))

    def beyond(self, policy: DuplicatePolicy) -> np.ndarray:
        """(n,) pairs that the policy must not match."""
        return np.full(len(self.pairs), self.mean_strain > policy.max_strain * (1.0 + 1e-6))


def bases(rng: np.random.Generator) -> list[Atoms]:
    """Crystals of 1 to 20 atoms, symmetric and not."""
    symmetric = [bulk("Cu"), bulk("Mg"), bulk("Si", cubic=True), bulk("NaCl", "rocksalt", a=5.6), perovskite()]
    return [*symmetric, stacked((1, 1, -1, -1)), *(random_crystal(rng, n, ("Cu", "Au", "O")) for n in range(3, 21, 2))]


def noise(rng: np.random.Generator) -> Iterator[Rung]:
    """Gaussian noise in every coordinate of a disguised copy, compared with its source and with another noisy copy."""
    for size in (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05):
        for kind in ("source and copy", "source and supercell", "two copies"):
            pairs, fields = [], []
            for atoms in bases(rng):
                for _ in range(_PAIRS):
                    plain = repeated(atoms, np.diag(rng.permutation([2, 1, 1]))) if "supercell" in kind else atoms
                    steps = rng.normal(size=(2, len(plain), 3)) * size
                    if kind != "two copies":
                        steps[0] = 0.0
                    clean = atoms if kind != "two copies" else _moved(plain, steps[0])
                    one, other = (
                        Structure.from_atoms(disguise(x, rng, Disguise(supercell=1)))
                        for x in (clean, _moved(plain, steps[1]))
                    )
                    pairs.append((one, other))
                    field = steps[1] - steps[0]
                    fields.append(np.linalg.norm(field - field.mean(axis=0), axis=1))
            yield Rung(
                step=f"{size} Å, {kind}",
                pairs=pairs,
                largest=np.array([f.max() for f in fields]),
                rms=np.array([math.sqrt((f**2).mean()) for f in fields]),
            )


def _moved(atoms: Atoms, steps: np.ndarray) -> Atoms:
    copy = atoms.copy()
    copy.positions += steps
    return copy


def strain(rng: np.random.Generator) -> Iterator[Rung]:
    """All axes, or one of three, stretched or compressed."""
    for size in (5e-6, 2e-5, 0.0005, 0.001, 0.0019, 0.0021, 0.003, 0.005, 0.0099, 0.0101, 0.015):
        for kind in ("all axes", "one axis"):
            pairs = []
            for atoms in bases(rng):
                for _ in range(_PAIRS // 4):
                    sign = float(rng.choice([-1.0, 1.0]))
                    axes = random_orthogonal(rng, mirror=False)
                    amounts = np.exp(sign * size * np.array([1.0, 1.0, 1.0] if kind == "all axes" else [1.0, 0.0, 0.0]))
                    other = atoms.copy()
                    other.set_cell(atoms.cell.array @ (axes @ np.diag(amounts) @ axes.T), scale_atoms=True)
                    pairs.append(tuple(Structure.from_atoms(disguise(x, rng)) for x in (atoms, other)))
            yield Rung(
                step=f"{size:g}, {kind}",
                pairs=pairs,
                largest=np.zeros(len(pairs)),
                rms=np.zeros(len(pairs)),
                strain=size,
                mean_strain=size if kind == "all axes" else size / 3.0,
            )


LADDERS: dict[str, Callable[[np.random.Generator], Iterator[Rung]]] = {"noise": noise, "strain": strain}
