"""Training examples with everything about them that the weights do not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from alflow.errors import PotentialError
from alflow.potentials._engine import Batch
from alflow.potentials._geometry import VOIGT, EdgeList, Repulsion
from alflow.structures import LabelledStructure

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from alflow.potentials._core import CommitteeCore


def as_examples(train: Sequence[Atoms | LabelledStructure]) -> list[LabelledStructure]:
    """Read labels and refuse what would spoil a training.

    Raises
    ------
    PotentialError
        if there is nothing, a label is not finite, or one structure carries two different energies
    StructureError
        if atoms carry no labels
    """
    if not len(train):
        raise PotentialError("there is nothing to train on: give at least one labelled structure")
    examples = [t if isinstance(t, LabelledStructure) else LabelledStructure.from_atoms(t) for t in train]
    first: dict[str, int] = {}
    for i, example in enumerate(examples):
        p = example.properties
        for name, value in (("energy", p.energy), ("forces", p.forces), ("stress", p.stress)):
            if value is not None and not np.isfinite(value).all():
                raise PotentialError(f"training structure {i} ({example.structure.formula}): {name} is not finite")
        if p.forces is not None and p.forces.shape != (example.structure.n_atoms, 3):
            raise PotentialError(
                f"training structure {i} ({example.structure.formula}): forces have shape {p.forces.shape}, "
                f"not ({example.structure.n_atoms}, 3)"
            )
        other = first.setdefault(example.structure.content_hash, i)
        if other != i:
            difference = abs(p.energy - examples[other].properties.energy)
            raise PotentialError(
                f"training structures {other} and {i} are the same {example.structure.formula} with energies that "
                f"differ by {difference:.3g} eV: keep one label per structure"
            )
    return examples


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


class TrainingSet:
    """Prepared examples; batches of them in any order."""

    def __init__(
        self,
        core: CommitteeCore,
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
    def _prepare(core: CommitteeCore, example: LabelledStructure, edges: EdgeList, push: Repulsion) -> _Prepared:
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
