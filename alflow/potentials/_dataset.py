"""Training examples with everything about them that the weights do not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from ase import Atoms

from alflow.errors import PotentialError, StructureError, TheoryError
from alflow.potentials._engine import Batch
from alflow.potentials._geometry import VOIGT, AtomTable, EdgeList
from alflow.potentials._repulsion import Repulsion
from alflow.structures import LabelledStructure, neighbour_list

if TYPE_CHECKING:
    from numpy.typing import NDArray


LARGEST_ENERGY = 1e7
"""eV per atom: all electrons of the heaviest atoms are bound by less."""
NEAREST = 0.1
"""Å: what a code says of atoms nearer than this is no label."""
ASYMMETRY = 0.02
"""Of the largest component: how much a stress may differ from its transpose by rounding."""


def as_examples(train: Sequence[Atoms | LabelledStructure]) -> list[LabelledStructure]:
    """Read labels and refuse what would spoil a training.

    Raises
    ------
    PotentialError
        if there is nothing, a label is not finite, implausible or of the wrong shape, atoms overlap, or one structure
        is given twice
    StructureError
        if atoms carry no labels
    TheoryError
        if labels are of two theories
    """
    if isinstance(train, Atoms | LabelledStructure):
        raise PotentialError("give a list of labelled structures, [atoms] for a single one")
    if not len(train):
        raise PotentialError("there is nothing to train on: give at least one labelled structure")
    examples = [_as_example(one, i) for i, one in enumerate(train)]
    _refuse_two_theories(examples)
    first: dict[str, int] = {}
    for i, example in enumerate(examples):
        p = example.properties
        reason = why_unusable(example)
        if reason is not None:
            raise PotentialError(f"training structure {i} ({example.structure.formula}): {reason}")
        other = first.setdefault(example.structure.content_hash, i)
        if other != i:
            difference = abs(p.energy - examples[other].properties.energy)
            raise PotentialError(
                f"training structures {other} and {i} are the same {example.structure.formula} with energies that "
                f"differ by {difference:.3g} eV: keep one label per structure"
            )
    return examples


def _as_example(one: Atoms | LabelledStructure, i: int) -> LabelledStructure:
    if isinstance(one, LabelledStructure):
        return one
    if not isinstance(one, Atoms):
        raise PotentialError(f"training structure {i} is a {type(one).__name__}: give ase.Atoms or LabelledStructure")
    try:
        return LabelledStructure.from_atoms(one)
    except StructureError as error:
        raise StructureError(f"training structure {i}: {error}") from error


def _refuse_two_theories(examples: Sequence[LabelledStructure]) -> None:
    known = [(i, e.theory) for i, e in enumerate(examples) if e.theory is not None]
    for i, theory in known:
        if theory != known[0][1]:
            raise TheoryError(
                f"training structures {known[0][0]} and {i} have labels of two theories ({str(known[0][1])[:12]} and "
                f"{theory[:12]}), whose energies do not compare: train on one of them"
            )


def why_unusable(example: LabelledStructure) -> str | None:
    """Say why a training would refuse a label; None where it does not."""
    p, n_atoms = example.properties, example.structure.n_atoms
    shapes = (("energy", p.energy, ()), ("forces", p.forces, (n_atoms, 3)), ("stress", p.stress, (3, 3)))
    for name, value, shape in shapes:
        if value is None and name != "energy":
            continue
        if not isinstance(value, float | int | np.ndarray | np.number):
            return f"{name} is {value!r}, no number"
        if np.shape(value) != shape:
            return f"{name} has shape {np.shape(value)}, not {shape}"
        if not np.isfinite(value).all():
            return f"{name} is not finite"
    if abs(p.energy) > LARGEST_ENERGY * n_atoms:
        return f"an energy of {p.energy:.3g} eV is none of {n_atoms} atoms: is it in eV?"
    if p.stress is not None:
        skew = float(np.abs(p.stress - p.stress.T).max())
        if skew > ASYMMETRY * float(np.abs(p.stress).max()) + 1e-6:
            return f"stress is not symmetric, off by {skew:.3g} eV/Å³: is it a stress, in rows of three?"
    try:
        near = neighbour_list(example.structure, 10 * NEAREST)
    except StructureError as error:  # atoms on one place, or far too many
        return f"{error}: leave it out"
    if len(near) and near.distances.min() < NEAREST:
        k = int(near.distances.argmin())
        return (
            f"atoms {near.centres[k]} and {near.neighbours[k]} overlap, {near.distances[k]:.3g} Å apart: leave it out"
        )
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Labels of a batch without references and repulsion, in the network's precision.

    Parameters
    ----------
    energy
        (n,), eV
    forces
        (N, 3), eV/Å, zero where unknown
    virial
        (n, 6) Voigt, eV, zero where unknown
    has_forces, has_stress
        (N, 1) and (n, 1), 1 where the label exists
    n_atoms, volume
        (n,)
    """

    energy: torch.Tensor
    forces: torch.Tensor
    virial: torch.Tensor
    has_forces: torch.Tensor
    has_stress: torch.Tensor
    n_atoms: torch.Tensor
    volume: torch.Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prepared:
    n_atoms: int
    energy: float
    forces: NDArray[np.float64]
    virial: NDArray[np.float64]
    has_forces: bool
    has_stress: bool
    volume: float


class Trainable(Protocol):
    """What is asked of the core of a committee to train it, the native or another."""

    @property
    def weights(self) -> torch.Tensor:
        """(K, P)."""

    @property
    def references(self) -> NDArray[np.float64]:
        """(n_elements,), eV."""

    @property
    def engine(self) -> Any:
        """An :class:`Engine`, for batches of its own kind."""

    def reference_sum(self, atoms: AtomTable) -> NDArray[np.float64]:
        """Sum of the reference energies of every structure, (n,), eV."""


class TrainingSet:
    """Prepared examples; batches of them in any order."""

    def __init__(
        self,
        core: Trainable,
        examples: Sequence[LabelledStructure],
        edges: Sequence[EdgeList],
        repulsions: Sequence[Repulsion],
    ) -> None:
        self.dtype = core.weights.dtype
        self._geometry = core.engine.geometry(edges)
        self._items = [self._prepare(core, *rest) for rest in zip(examples, edges, repulsions, strict=True)]

    def __len__(self) -> int:
        return len(self._items)

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """(n,)."""
        return np.array([item.n_atoms for item in self._items])

    @staticmethod
    def _prepare(core: Trainable, example: LabelledStructure, edges: EdgeList, push: Repulsion) -> _Prepared:
        p, volume = example.properties, example.structure.volume
        virial = np.zeros(6)
        has_stress = p.stress is not None and volume > 0
        if p.stress is not None and volume > 0:
            virial = np.array([p.stress[a, b] for a, b in VOIGT]) * volume - push.virial[0]
        return _Prepared(
            n_atoms=len(edges.atoms),
            energy=p.energy - push.energy[0] - float(core.reference_sum(edges.atoms)[0]),
            forces=np.zeros((len(edges.atoms), 3)) if p.forces is None else p.forces - push.forces,
            virial=virial,
            has_forces=p.forces is not None,
            has_stress=has_stress,
            volume=volume if volume > 0 else 1.0,
        )

    def batch(self, indices: NDArray[np.int64]) -> tuple[Batch, Labels]:
        """Collate some examples."""
        items = [self._items[i] for i in indices]
        counts = self.n_atoms[indices]

        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=self.dtype)

        labels = Labels(
            energy=column([item.energy for item in items]),
            forces=torch.from_numpy(np.concatenate([item.forces for item in items])).to(self.dtype),
            virial=torch.from_numpy(np.stack([item.virial for item in items])).to(self.dtype),
            has_forces=column(np.repeat([float(item.has_forces) for item in items], counts).tolist()).unsqueeze(1),
            has_stress=column([float(item.has_stress) for item in items]).unsqueeze(1),
            n_atoms=column(counts.tolist()),
            volume=column([item.volume for item in items]),
        )
        return self._geometry.batch(indices), labels
