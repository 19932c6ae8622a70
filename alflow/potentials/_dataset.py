"""Training examples with everything about them that the weights do not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from alflow.errors import PotentialError
from alflow.potentials._geometry import (
    VOIGT,
    EdgeBatch,
    EdgeFunctions,
    EdgeList,
    PairTable,
    Repulsion,
    SummedBatch,
    n_features,
)
from alflow.structures import LabelledStructure

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from alflow.potentials._core import CommitteeCore

SUMMED_BYTES = 2**30
"""Up to this much memory the slopes of all pairs are kept; larger training sets go back to their edges."""


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
    edges: EdgeList
    pairs: PairTable
    edge_pair: NDArray[np.int64]
    functions: EdgeFunctions | None
    values: torch.Tensor | None
    slopes: torch.Tensor | None
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
        tables = [PairTable.of(e) for e in edges]
        n_bytes = sum(len(pairs) for pairs, _ in tables) * n_features(core.spec) * 10 * core.weights.element_size()
        self.summed = n_bytes <= SUMMED_BYTES
        self._items = [self._prepare(core, *rest) for rest in zip(examples, edges, tables, repulsions, strict=True)]

    def __len__(self) -> int:
        return len(self._items)

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """(n,)."""
        return np.array([len(item.edges.atoms) for item in self._items])

    def _prepare(
        self,
        core: CommitteeCore,
        example: LabelledStructure,
        edges: EdgeList,
        table: tuple[PairTable, NDArray[np.int64]],
        push: Repulsion,
    ) -> _Prepared:
        pairs, edge_pair = table
        # Geometry in float64 and rounded once: a float32 training then sees the best float32 geometry.
        exact = EdgeFunctions.of(edges, core.numbers, core.spec, torch.float64)
        functions, values, slopes = None, None, None
        if self.summed:
            index = torch.from_numpy(edge_pair)
            values = exact.pair_values(index, len(pairs)).to(self.dtype)
            slopes = exact.pair_slopes(index, len(pairs), torch.from_numpy(edges.vectors)).to(self.dtype)
        else:
            functions = exact.to(self.dtype)
        p, volume = example.properties, example.structure.volume
        virial = np.zeros(6)
        has_stress = p.stress is not None and volume > 0
        if p.stress is not None and volume > 0:
            virial = np.array([p.stress[a, b] for a, b in VOIGT]) * volume - push.virial[0]
        return _Prepared(
            edges=edges,
            pairs=pairs,
            edge_pair=edge_pair,
            functions=functions,
            values=values,
            slopes=slopes,
            energy=p.energy - push.energy[0] - float(core.reference_sum(edges.atoms)[0]),
            forces=np.zeros((len(edges.atoms), 3)) if p.forces is None else p.forces - push.forces,
            virial=virial,
            has_forces=p.forces is not None,
            has_stress=has_stress,
            volume=volume if volume > 0 else 1.0,
        )

    def batch(self, indices: NDArray[np.int64]) -> tuple[SummedBatch | EdgeBatch, Labels]:
        """Collate some examples."""
        items = [self._items[i] for i in indices]
        pairs = PairTable.join([item.pairs for item in items])
        counts = pairs.atoms.counts

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
        return self._collate(items, pairs), labels

    def _collate(self, items: list[_Prepared], pairs: PairTable) -> SummedBatch | EdgeBatch:
        if self.summed:
            values = torch.cat([item.values for item in items if item.values is not None])
            return SummedBatch(pairs, values, torch.cat([i.slopes for i in items if i.slopes is not None]))
        first = np.cumsum([0] + [len(item.pairs) for item in items])
        edge_pair = np.concatenate([item.edge_pair + k for item, k in zip(items, first, strict=False)])
        functions = EdgeFunctions.join([item.functions for item in items if item.functions is not None])
        return EdgeBatch(EdgeList.join([item.edges for item in items]), pairs, edge_pair, functions)
