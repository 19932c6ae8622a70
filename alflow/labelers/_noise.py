"""The noise of a labeler: the same crystal in another cell, in another orientation, and repeated.

All three are the same physics, but k-meshes, grids and symmetry are not, so a code gives slightly different numbers.
Nothing can be learned from labels below that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import covalent_radii
from scipy.spatial.transform import Rotation

from alflow.errors import StructureError
from alflow.labelers._protocol import Labeler
from alflow.labelers._result import LabelResult
from alflow.structures import Structure, atomic_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNITS: Mapping[str, str] = {"energy": "eV/atom", "force": "eV/Å", "stress": "eV/Å³"}
_TURN = (0.4, 0.9, -0.7)
"""Rotation vector without any relation to a lattice, radians."""
_SHIFT = (0.13, 0.29, 0.41)
"""In fractions of the cell."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Disguise:
    """A crystal in other clothes.

    Parameters
    ----------
    name
        what was changed
    structure
        the same crystal
    sites
        (n_atoms,): which site of the original each atom is
    rotation
        (3, 3): x' = R x
    """

    name: str
    structure: Structure
    sites: NDArray[np.int64]
    rotation: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far a disguise's label is from the original's: eV/atom; eV/Å of the worst atom; eV/Å³, Frobenius norm."""

    name: str
    n_atoms: int
    energy: float
    force: float | None
    stress: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What the labels of one crystal differ by; each number is the largest over the disguises."""

    structure: str
    disguises: tuple[Difference, ...]

    @property
    def energy(self) -> float:
        """The largest difference of the energy, eV/atom."""
        return max(d.energy for d in self.disguises)

    @property
    def force(self) -> float | None:
        """The largest difference of the force on an atom, eV/Å; None where there are no forces."""
        return max((d.force for d in self.disguises if d.force is not None), default=None)

    @property
    def stress(self) -> float | None:
        """The largest difference of the stress (Frobenius norm), eV/Å³; None where there is no stress."""
        return max((d.stress for d in self.disguises if d.stress is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as a theory in the ledger keeps them."""
        return {
            "energy": self.energy,
            "force": self.force,
            "stress": self.stress,
            "structure": self.structure,
            "disguises": [vars(d) for d in self.disguises],
        }


def disguises(structure: Structure) -> tuple[Disguise, ...]:
    """The crystal in another cell of the same lattice, turned and moved, and doubled along its shortest vector.

    Raises
    ------
    StructureError
        if it is not periodic in all three directions
    """
    if not structure.pbc.all():
        raise StructureError(
            f"{structure.formula} is periodic in {structure.n_periodic} directions: noise is measured with a crystal, "
            "which has other cells"
        )
    same = np.eye(3, dtype=np.int64)
    sheared = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    shortest = int(np.argmin(np.linalg.norm(structure.cell, axis=1)))
    doubled = np.diag([2 if axis == shortest else 1 for axis in range(3)])
    turn = Rotation.from_rotvec(_TURN).as_matrix()
    return (
        _disguise("another cell", structure, sheared, np.eye(3), np.zeros(3)),
        _disguise("turned and moved", structure, same, turn, np.array(_SHIFT) @ structure.cell),
        _disguise("doubled", structure, doubled, np.eye(3), np.zeros(3)),
    )


def _disguise(
    name: str,
    structure: Structure,
    matrix: NDArray[np.int64],
    rotation: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> Disguise:
    """Rows of ``matrix`` are the new cell vectors in the old ones: a unit matrix, sheared or with one row doubled."""
    copies = round(abs(np.linalg.det(matrix)))
    steps = [k * structure.cell[int(np.argmax(np.diag(matrix)))] for k in range(copies)]
    positions = np.concatenate([structure.positions + shift + step for step in steps])
    moments = structure.moments
    if moments is not None:
        moments = np.concatenate([moments] * copies)
        if moments.ndim == 2:
            moments = moments @ rotation.T
    return Disguise(
        name=name,
        structure=Structure(
            cell=matrix @ structure.cell @ rotation.T,
            pbc=structure.pbc,
            numbers=np.tile(structure.numbers, copies),
            positions=positions @ rotation.T,
            charge=structure.charge * copies,
            moments=moments,
        ),
        sites=np.tile(np.arange(structure.n_atoms), copies),
        rotation=rotation,
    )


def measure_noise(labeler: Labeler, structure: Structure) -> Iterator[Difference]:
    """Label a crystal and its disguises, one after the other; the first result comes after two calculations.

    Parameters
    ----------
    structure
        a crystal with forces and stress that do not vanish, or little is learned about these

    Raises
    ------
    StructureError
        if it is no crystal
    LabelFailure
        if it cannot be labelled
    """
    others = disguises(structure)
    original = labeler.label(structure)
    for other in others:
        yield _difference(original, labeler.label(other.structure), other)


def _difference(original: LabelResult, found: LabelResult, disguise: Disguise) -> Difference:
    one, other, turn = original.properties, found.properties, disguise.rotation
    force = stress = None
    if one.forces is not None and other.forces is not None:
        expected = one.forces[disguise.sites] @ turn.T
        force = float(np.linalg.norm(other.forces - expected, axis=1).max())
    if one.stress is not None and other.stress is not None:
        stress = float(np.linalg.norm(other.stress - turn @ one.stress @ turn.T))
    per_atom = one.energy / original.structure.n_atoms, other.energy / found.structure.n_atoms
    return Difference(
        name=disguise.name,
        n_atoms=found.structure.n_atoms,
        energy=abs(per_atom[1] - per_atom[0]),
        force=force,
        stress=stress,
        seconds=found.seconds,
    )


def below_noise(noise: Mapping[str, Any] | None, targets: Mapping[str, float]) -> list[str]:
    """Sentences about targets that are below twice a theory's noise: no committee can reach them.

    Parameters
    ----------
    noise
        as a theory keeps it (:meth:`Noise.to_dict`); None where it was never measured
    targets
        ``energy`` eV/atom, ``force`` eV/Å, ``stress`` eV/Å³
    """
    return [
        f"the target {kind}: {target:g} {UNITS[kind]} is below twice the noise of the theory ({noise[kind]:.2g}): "
        "raise it, or converge the theory better"
        for kind, target in targets.items()
        if noise is not None and noise.get(kind) is not None and target < 2 * noise[kind]
    ]


def small_crystal(elements: tuple[str, ...]) -> Structure:
    """Two atoms of the first one or two elements, close-packed by their covalent radii and slightly out of place.

    For trials: nothing in it vanishes by symmetry, and it costs little.
    """
    numbers = [atomic_number(symbol) for symbol in (elements * 2)[:2]]
    distance = 2 * max(float(covalent_radii[z]) for z in numbers)
    strain = np.eye(3) + np.array([[0.01, 0.004, 0.0], [0.004, -0.006, 0.002], [0.0, 0.002, 0.003]])
    cell = distance * np.diag([1.0, 1.0, np.sqrt(2.0)]) @ strain
    fractions = np.array([[0.0, 0.0, 0.0], [0.53, 0.48, 0.51]])
    return Structure(cell=cell, pbc=np.ones(3, dtype=bool), numbers=np.array(numbers), positions=fractions @ cell)
