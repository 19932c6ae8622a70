"""Weights, network and references together: prediction on edges in chunks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from alflow.potentials._blocks import blocks_of
from alflow.potentials._distance import FeatureDistance
from alflow.potentials._engine import Engine, choose_engine
from alflow.potentials._geometry import VOIGT, AtomTable, EdgeList
from alflow.potentials._network import CommitteeNetwork, Constants
from alflow.potentials._repulsion import Repulsion
from alflow.structures import element_symbol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._spec import CommitteeSpec

CHUNK_BYTES = 256 * 2**20
"""Rough bound of the memory that the edges of one chunk may take on a CPU."""
BLOCK_BYTES = 2**30
"""Rough bound of the memory that the edges of one structure may take on a CPU before it is evaluated in blocks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RawPrediction:
    """Members' predictions as flat arrays: energy (K, n), forces (K, N, 3), virial (K, n, 6), features (n, d).

    `distance` (n,) is that of the furthest atom from the training atoms, None where the core does not know them.
    """

    energy: NDArray[np.float64]
    forces: NDArray[np.float64]
    virial: NDArray[np.float64]
    features: NDArray[np.float64] | None
    distance: NDArray[np.float64] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class CommitteeCore:
    """What a trained committee is made of.

    Parameters
    ----------
    spec
        sizes
    numbers
        (n_elements,) atomic numbers, rising
    constants
        scales of the network
    references
        (n_elements,), eV: energies of isolated atoms (or of atoms in matter where no isolated one was labelled)
    weights
        (K, P)
    familiar
        the training atoms, as far as distances from them need it; None: not known
    """

    spec: CommitteeSpec
    numbers: NDArray[np.int64]
    constants: Constants
    references: NDArray[np.float64]
    weights: torch.Tensor
    familiar: FeatureDistance | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", CommitteeNetwork(self.spec, len(self.numbers), self.constants))

    network: CommitteeNetwork = None  # type: ignore[assignment]  # made from the other fields

    @cached_property
    def engine(self) -> Engine:
        """Who evaluates the network here."""
        return choose_engine(self.network, self.numbers, self.weights.dtype)

    @property
    def elements(self) -> tuple[str, ...]:
        """Element symbols by rising atomic number."""
        return tuple(element_symbol(int(z)) for z in self.numbers)

    def to(self, dtype: torch.dtype) -> CommitteeCore:
        """Return the same committee in another precision."""
        if self.weights.dtype == dtype:
            return self
        familiar = None if self.familiar is None else self.familiar.to(dtype)
        return replace(self, weights=self.weights.to(dtype), familiar=familiar)

    def reference_sum(self, atoms: AtomTable) -> NDArray[np.float64]:
        """Sum of the isolated atoms' energies of every structure, (n,), eV."""
        each = self.references[atoms.species] if atoms.owned is None else self.references[atoms.species] * atoms.owned
        sums = np.bincount(atoms.structure, weights=each, minlength=len(atoms.counts))
        return sums.astype(np.float64)

    def predict(self, edges: Sequence[EdgeList], *, derivatives: bool = True, features: bool = False) -> RawPrediction:
        """Predict for structures given by their edges: small ones together, a very large one block by block."""
        k, n = self.spec.n_members, len(edges)
        counts = np.array([len(e.atoms) for e in edges], dtype=np.int64)
        last = np.cumsum(counts)
        energy, virial = np.zeros((k, n)), np.zeros((k, n, 6))
        forces = np.zeros((k, int(last[-1]) if n else 0, 3))
        described: NDArray[np.float64] | None = None
        distance = None if self.familiar is None else np.zeros(n)
        for chunk, joined, rows in self._parts(edges, last - counts):
            batch = self.engine.batch(joined)
            out = self.engine.evaluate(self.weights, batch, derivatives=derivatives)
            push = Repulsion.of(joined, active=self.spec.repulsion)
            energy[:, chunk] += out.energy.double().numpy() + self.reference_sum(joined.atoms) + push.energy
            if out.forces is not None and out.virial is not None:
                forces[:, rows] += out.forces.double().numpy() + push.forces
                virial[:, chunk] += out.virial.double().numpy() + push.virial
            found, species, own = _own_features(out.features, joined.atoms)
            if distance is not None and self.familiar is not None:
                distance[chunk] = np.maximum(distance[chunk], self.familiar.of_structures(found, species, own))
            if features:
                owner = torch.repeat_interleave(torch.from_numpy(own))
                total = found.new_zeros(k, len(own), found.shape[2]).index_add_(1, owner, found)
                mean = total.double().numpy() / counts[chunk][None, :, None]
                if described is None:
                    described = np.zeros((n, k * mean.shape[2]))
                described[chunk] += mean.transpose(1, 0, 2).reshape(len(chunk), -1)
        return RawPrediction(energy=energy, forces=forces, virial=virial, features=described, distance=distance)

    def predict_atoms(self, edges: EdgeList) -> RawPrediction:
        """Predict for the atoms of one structure, each on its own: energy (K, N), and its part of the virial (K, N, 6).

        For programs that keep the atoms themselves and give some of them to others; see ``AtomTable.owned``. Forces are
        derivatives of the energy of all owned atoms together. All atoms are evaluated at once: memory grows with them.
        """
        singles = replace(edges, atoms=replace(edges.atoms, counts=np.ones(len(edges.atoms), dtype=np.int64)))
        out = self.engine.evaluate(self.weights, self.engine.batch(singles))
        push = Repulsion.of(singles, active=self.spec.repulsion)
        assert out.forces is not None
        assert out.virial is not None
        return RawPrediction(
            energy=out.energy.double().numpy() + self.reference_sum(singles.atoms) + push.energy,
            forces=out.forces.double().numpy() + push.forces,
            virial=out.virial.double().numpy() + push.virial,
            features=None,
            distance=None,
        )

    def learn_familiar(self, edges: Sequence[EdgeList]) -> CommitteeCore:
        """Return the same core that knows the atoms of its training structures, given by their edges."""
        parts = (EdgeList.join([edges[i] for i in chunk]) for chunk in self._chunks(edges))
        familiar = FeatureDistance.learn(self.engine, self.weights, parts, len(self.numbers))
        return replace(self, familiar=familiar)

    def _parts(
        self, edges: Sequence[EdgeList], first: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], EdgeList, NDArray[np.int64]]]:
        """What is evaluated at once: structures, their edges, and rows of their atoms, the first of each at `first`."""
        most = self._room(BLOCK_BYTES)
        for chunk in self._chunks(edges):
            if len(chunk) == 1 and len(edges[chunk[0]].centres) > most:
                for block in blocks_of(edges[chunk[0]], self.spec.n_layers, most):
                    yield chunk, block.edges, first[chunk[0]] + block.atoms
            else:
                rows = [np.arange(first[i], first[i] + len(edges[i].atoms)) for i in chunk]
                yield chunk, EdgeList.join([edges[i] for i in chunk]), np.concatenate(rows)

    def _room(self, on_cpu: int) -> int:
        """Edges that one evaluation may hold: in so many bytes on a CPU, in what is free on a GPU."""
        spare = self.engine.spare_bytes
        return (on_cpu if spare is None else spare) // self.engine.edge_bytes

    def _chunks(self, edges: Sequence[EdgeList]) -> list[NDArray[np.int64]]:
        """Split into chunks; structures with alike rows stand together, so that little is padded."""
        most_atoms = self.engine.chunk_atoms
        most_edges = self._room(CHUNK_BYTES)
        atoms = np.array([len(e.atoms) for e in edges], dtype=np.int64)
        counts = np.array([len(e.centres) for e in edges], dtype=np.int64)
        chunks: list[list[int]] = []
        filled_atoms = filled_edges = 0
        for i in np.argsort(atoms, kind="stable"):
            if not chunks or filled_atoms + atoms[i] > most_atoms or filled_edges + counts[i] > most_edges:
                chunks.append([])
                filled_atoms = filled_edges = 0
            chunks[-1].append(int(i))
            filled_atoms += int(atoms[i])
            filled_edges += int(counts[i])
        return [np.array(chunk) for chunk in chunks]


def _own_features(features: torch.Tensor, atoms: AtomTable) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.int64]]:
    """Features (K, N, d) and species of atoms that are no neighbours only, and how many each structure has of them."""
    species = torch.from_numpy(atoms.species)
    if atoms.owned is None:
        return features, species, atoms.counts
    mine = torch.from_numpy(np.flatnonzero(atoms.owned))
    return features[:, mine], species[mine], np.array([len(mine)])


def stress_from_virial(virial: NDArray[np.float64], volumes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K, n, 6) Voigt, eV and (n,) Å³ → (K, n, 3, 3), eV/Å³; nan where the volume is zero (not a crystal)."""
    stress = np.empty((*virial.shape[:2], 3, 3))
    safe = np.where(volumes > 0, volumes, np.nan)
    for k, (a, b) in enumerate(VOIGT):
        stress[..., a, b] = stress[..., b, a] = virial[..., k] / safe
    return stress
