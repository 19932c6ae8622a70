"""Structures side by side as the kernels read them: edges in rows, with their functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch

from alflow.potentials._geometry import EdgeFunctions, EdgeList, inner_lengths
from alflow.potentials.kernels import EdgeTensors, edge_functions

if TYPE_CHECKING:
    import ctypes

    from numpy.typing import NDArray

    from alflow.potentials._network import CommitteeNetwork


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelBatch:
    """Structures as the kernels read them.

    Parameters
    ----------
    edges
        sorted by centre and species of the neighbour
    vectors
        (E, 3), Å
    species, structure
        (N,)
    row_atom, row_species
        (R,) of the rows of the density
    n_structures
        number of structures
    owned
        (N,) 1 where an atom's energy counts, else 0; None: all count. For predictions, trainings own every atom
    """

    edges: EdgeTensors
    vectors: torch.Tensor
    species: torch.Tensor
    structure: torch.Tensor
    row_atom: torch.Tensor
    row_species: torch.Tensor
    n_structures: int
    owned: torch.Tensor | None = None

    @property
    def n_atoms(self) -> int:
        """N."""
        return len(self.species)

    def sum_structures(self, per_atom: torch.Tensor) -> torch.Tensor:
        """(K, N, ...) → (K, n_structures, ...)."""
        total = per_atom.new_zeros(per_atom.shape[0], self.n_structures, *per_atom.shape[2:])
        return total.index_add_(1, self.structure, per_atom)

    @classmethod
    def of(
        cls,
        edges: EdgeList,
        numbers: NDArray[np.int64],
        network: CommitteeNetwork,
        dtype: torch.dtype,
        kernels: ctypes.CDLL | None = None,
    ) -> KernelBatch:
        """Prepare structures; without `kernels` functions of the edges are evaluated in float64 and rounded once."""
        species = edges.atoms.species
        if network.n_elements > 1:
            order = np.lexsort((species[edges.neighbours], edges.centres))
            edges = EdgeList(
                atoms=edges.atoms,
                centres=edges.centres[order],
                neighbours=edges.neighbours[order],
                vectors=edges.vectors[order],
            )
        vectors = torch.from_numpy(edges.vectors).to(dtype)
        if kernels is None:
            exact = EdgeFunctions.of(edges, numbers, network.spec, torch.float64).to(dtype)
            functions = {f.name: getattr(exact, f.name).contiguous() for f in fields(EdgeFunctions)}
        else:
            inner = torch.from_numpy(inner_lengths(edges, numbers)).to(dtype)
            spec = network.spec
            functions = edge_functions(vectors, inner, spec.r_max, spec.n_radial, spec.l_max, kernels)
        n_atoms, n_elements = len(species), network.n_elements
        row_of_edge = edges.centres * n_elements + species[edges.neighbours]
        per_row = np.bincount(row_of_edge, minlength=n_atoms * n_elements)
        rows = np.arange(n_atoms * n_elements)
        if not network.one_hot:  # of many elements only those that are there
            rows = np.flatnonzero(per_row)
            per_row = per_row[rows]
        return cls(
            edges=EdgeTensors(
                first=_starts(np.bincount(edges.centres, minlength=n_atoms)),
                rows=_starts(per_row),
                neighbour=torch.from_numpy(edges.neighbours),
                **functions,
            ),
            vectors=vectors,
            species=torch.from_numpy(species),
            structure=torch.from_numpy(edges.atoms.structure),
            row_atom=torch.from_numpy(rows // n_elements),
            row_species=torch.from_numpy(rows % n_elements),
            n_structures=len(edges.atoms.counts),
            owned=None if edges.atoms.owned is None else torch.from_numpy(edges.atoms.owned).to(dtype),
        )

    @staticmethod
    def join(parts: Sequence[KernelBatch]) -> KernelBatch:
        """Number the atoms, edges, rows and structures of several batches through."""
        if len(parts) == 1:
            return parts[0]
        atoms = _offsets([p.n_atoms for p in parts])
        edges = _offsets([p.edges.n_edges for p in parts])
        structures = _offsets([p.n_structures for p in parts])

        def joined(name: str) -> torch.Tensor:
            return torch.cat([getattr(p.edges, name) for p in parts])

        def moved(name: str, offsets: Sequence[int]) -> torch.Tensor:
            return torch.cat([getattr(p.edges, name) + k for p, k in zip(parts, offsets, strict=True)])

        def starts(name: str) -> torch.Tensor:
            last = parts[-1].edges.n_edges + edges[-1]
            pieces = [getattr(p.edges, name)[:-1] + k for p, k in zip(parts, edges, strict=True)]
            return torch.cat([*pieces, torch.tensor([last])])

        return KernelBatch(
            edges=EdgeTensors(
                first=starts("first"),
                rows=starts("rows"),
                neighbour=moved("neighbour", atoms),
                **{f.name: joined(f.name) for f in fields(EdgeFunctions)},
            ),
            vectors=torch.cat([p.vectors for p in parts]),
            species=torch.cat([p.species for p in parts]),
            structure=torch.cat([p.structure + k for p, k in zip(parts, structures, strict=True)]),
            row_atom=torch.cat([p.row_atom + k for p, k in zip(parts, atoms, strict=True)]),
            row_species=torch.cat([p.row_species for p in parts]),
            n_structures=structures[-1] + parts[-1].n_structures,
        )


def _starts(counts: NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _offsets(counts: Sequence[int]) -> list[int]:
    return [int(x) for x in np.cumsum([0, *counts[:-1]])]
