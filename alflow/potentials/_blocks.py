"""A structure too large for the memory in blocks: each has some of its atoms, and as neighbours what these can see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from alflow.potentials._geometry import AtomTable, EdgeList

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Part of a structure that is evaluated on its own.

    The energies of all blocks together are those of the structure, and so are their derivatives: each block pulls on
    its neighbours too.

    Parameters
    ----------
    edges
        of its own atoms, and with two layers of their neighbours; ``atoms.owned`` says which atoms are its own
    atoms
        (n,) where its atoms stand in the structure, rising
    """

    edges: EdgeList
    atoms: NDArray[np.int64]


def blocks_of(edges: EdgeList, n_layers: int, most_edges: int) -> Iterator[Block]:
    """Cut one structure into blocks of at most `most_edges` edges each, as far as atoms can be parted.

    Atoms that see each other stand together: they are taken in the order of Cuthill and McKee (Proc. 24th ACM National
    Conference, 157, 1969), which goes through a crystal layer by layer.
    """
    first = np.searchsorted(edges.centres, np.arange(len(edges.atoms) + 1))
    graph = csr_array((np.ones(len(edges.neighbours), dtype=np.int8), edges.neighbours, first))
    waiting = [reverse_cuthill_mckee(graph, symmetric_mode=True).astype(np.int64)]
    while waiting:
        own = waiting.pop()
        block = _block(edges, first, np.sort(own), n_layers)
        if len(block.edges.centres) <= most_edges or len(own) == 1:
            yield block
        else:
            waiting += [own[len(own) // 2 :], own[: len(own) // 2]]


def _block(edges: EdgeList, first: NDArray[np.int64], own: NDArray[np.int64], n_layers: int) -> Block:
    centres = own
    for _ in range(n_layers - 1):
        centres = np.union1d(centres, edges.neighbours[_edges_from(first, centres)])
    chosen = _edges_from(first, centres)
    atoms = np.union1d(centres, edges.neighbours[chosen])
    table = AtomTable(
        species=edges.atoms.species[atoms],
        numbers=edges.atoms.numbers[atoms],
        counts=np.array([len(atoms)]),
        owned=np.isin(atoms, own, assume_unique=True),
    )
    part = EdgeList(
        atoms=table,
        centres=np.searchsorted(atoms, edges.centres[chosen]),
        neighbours=np.searchsorted(atoms, edges.neighbours[chosen]),
        vectors=edges.vectors[chosen],
    )
    return Block(edges=part, atoms=atoms)


def _edges_from(first: NDArray[np.int64], centres: NDArray[np.int64]) -> NDArray[np.int64]:
    """Edges of some centres, in order."""
    counts = first[centres + 1] - first[centres]
    start = np.repeat(first[centres] - (np.cumsum(counts) - counts), counts)
    return start + np.arange(int(counts.sum()))
