r"""Any torch module that maps edges to energies as an engine for K members, whose weights are the rows of a matrix.

With edge vectors v the energy E(v) says everything: the pull of an edge is ∂E/∂v, the force on an atom the sum of the
pulls of its edges, each with the sign of its end, and the virial :math:`\sum_e v_e \otimes \partial E/\partial v_e`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from alflow.potentials._device import wanted_device
from alflow.potentials._geometry import VOIGT, EdgeList
from alflow.potentials._network import NetworkOutput


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """What a module sees of a batch.

    Parameters
    ----------
    numbers
        (N,) atomic numbers
    centres, neighbours
        (E,) atoms; vectors lead from the centre to the neighbour
    structure
        (N,) which structure an atom belongs to
    n_structures
        number of structures
    """

    numbers: torch.Tensor
    centres: torch.Tensor
    neighbours: torch.Tensor
    structure: torch.Tensor
    n_structures: int


class EdgeModule(torch.nn.Module):
    """A module from edges to energies."""

    def forward(self, vectors: torch.Tensor, graph: Graph) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies (n,), eV, and invariant features (N, d) from edge vectors (E, 3), Å."""
        raise NotImplementedError


class ModuleBatch:
    """Structures side by side on the module's device.

    Attributes
    ----------
    structure
        (N,), on the CPU, where the loss is taken
    """

    def __init__(self, edges: EdgeList, dtype: torch.dtype, device: torch.device) -> None:
        def there(values: NDArray[np.int64]) -> torch.Tensor:
            return torch.tensor(values, device=device)  # a copy: arrays of structures are read-only

        self.n_structures = len(edges.atoms.counts)
        self.structure = torch.tensor(edges.atoms.structure)
        self.vectors = torch.from_numpy(edges.vectors).to(device, dtype)
        self.graph = Graph(
            numbers=there(edges.atoms.numbers),
            centres=there(edges.centres),
            neighbours=there(edges.neighbours),
            structure=there(edges.atoms.structure),
            n_structures=self.n_structures,
        )

    def sum_structures(self, per_atom: torch.Tensor) -> torch.Tensor:
        """(K, N, ...) → (K, n_structures, ...)."""
        total = per_atom.new_zeros(per_atom.shape[0], self.n_structures, *per_atom.shape[2:])
        return total.index_add(1, self.structure, per_atom)


class ModuleGeometry:
    """Structures made ready for a training: their edges."""

    def __init__(self, edges: Sequence[EdgeList], dtype: torch.dtype, device: torch.device) -> None:
        self.edges, self.dtype, self.device = edges, dtype, device

    def batch(self, indices: NDArray[np.int64]) -> ModuleBatch:
        """The given structures side by side."""
        return ModuleBatch(EdgeList.join([self.edges[i] for i in indices]), self.dtype, self.device)


class ModuleEngine:
    """Evaluates one module for every row of a matrix of weights.

    Parameters
    ----------
    module
        moved to the device; its own weights count only where the matrix has none for them
    names
        parameters whose values stand in the matrix, in this order
    dtype, device
        of the evaluation; None: the device that ``ALFLOW_DEVICE`` names
    chunk_atoms
        atoms that are evaluated together
    """

    edge_bytes = 32 * 1024
    spare_bytes: int | None = None

    def __init__(
        self,
        module: EdgeModule,
        names: Sequence[str],
        dtype: torch.dtype,
        device: torch.device | None = None,
        *,
        chunk_atoms: int = 256,
    ) -> None:
        self.dtype, self.device, self.chunk_atoms = dtype, device or wanted_device(), chunk_atoms
        self.module = module.to(self.device)
        own = dict(module.named_parameters())
        self.shapes = {name: own[name].shape for name in names}
        for parameter in own.values():
            parameter.requires_grad_(False)

    @property
    def size(self) -> int:
        """Weights P of one member."""
        return sum(shape.numel() for shape in self.shapes.values())

    def row(self) -> torch.Tensor:
        """(P,) the module's own values, on the CPU."""
        own = dict(self.module.named_parameters())
        parts = [own[name].detach().reshape(-1) for name in self.shapes]
        return torch.cat(parts).to("cpu", self.dtype) if parts else torch.zeros(0, dtype=self.dtype)

    def batch(self, edges: EdgeList) -> ModuleBatch:
        """Structures made ready for one evaluation."""
        return ModuleBatch(edges, self.dtype, self.device)

    def geometry(self, edges: Sequence[EdgeList]) -> ModuleGeometry:
        """Structures made ready for a training."""
        return ModuleGeometry(edges, self.dtype, self.device)

    def evaluate(
        self, matrix: torch.Tensor, batch: ModuleBatch, *, training: bool = False, derivatives: bool = True
    ) -> NetworkOutput:
        """Energies, forces, virials and features of every member, on the CPU.

        Parameters
        ----------
        matrix
            (K, P)
        batch
            of this engine
        training
            whether the results carry gradients by the matrix
        derivatives
            whether forces and virials are wanted
        """
        members = [self._member(row.to(self.device), batch, training, derivatives) for row in matrix]
        energy, forces, virial, features = zip(*members, strict=True)
        return NetworkOutput(
            energy=torch.stack(energy).cpu(),
            forces=torch.stack(forces).cpu() if derivatives else None,
            virial=torch.stack(virial).cpu() if derivatives else None,
            features=torch.stack(features).cpu(),
        )

    def _member(
        self, row: torch.Tensor, batch: ModuleBatch, training: bool, derivatives: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
        graph = batch.graph
        vectors = batch.vectors.detach().requires_grad_(derivatives)
        parts = torch.split(row if training else row.detach(), [s.numel() for s in self.shapes.values()])
        weights = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        with torch.set_grad_enabled(training or derivatives):
            energy, features = torch.func.functional_call(self.module, weights, (vectors, graph))
        if not derivatives:
            return energy if training else energy.detach(), None, None, features.detach()
        if len(vectors):
            (pull,) = torch.autograd.grad(energy.sum(), vectors, create_graph=training)
        else:
            pull = torch.zeros_like(vectors)
        atoms = len(graph.numbers)
        forces = pull.new_zeros(atoms, 3).index_add(0, graph.centres, pull)
        forces = forces.index_add(0, graph.neighbours, pull, alpha=-1)
        work = torch.stack([0.5 * (vectors[:, a] * pull[:, b] + vectors[:, b] * pull[:, a]) for a, b in VOIGT], dim=1)
        where = graph.structure.index_select(0, graph.centres)
        virial = work.new_zeros(graph.n_structures, 6).index_add(0, where, work)
        if not training:
            energy, forces, virial = energy.detach(), forces.detach(), virial.detach()
        return energy, forces, virial, features.detach()
