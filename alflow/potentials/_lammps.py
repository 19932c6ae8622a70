"""Committees in LAMMPS through ML-IAP's unified interface: LAMMPS keeps atoms and neighbours, the committee predicts.

LAMMPS gives every process its local atoms and, around them, ghosts: copies of atoms of other processes and periodic
images. The energy of a local atom depends on ghosts, and with a message layer on the neighbours of ghosts, so the list
that is asked for reaches ``n_layers · r_max``. Only local atoms' energies count; their derivatives by the positions of
ghosts are given to LAMMPS, which adds them up where the ghosts come from (``newton on``, which ML-IAP demands anyway).
"""

from __future__ import annotations

import os
import pickle
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from alflow.errors import PotentialError
from alflow.potentials._allocator import keep_freed_memory
from alflow.potentials._checkpoint import load_committee
from alflow.potentials._committee import NativeCommittee
from alflow.potentials._geometry import AtomTable, EdgeList

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._protocol import Committee

PER_ATOM_VIRIAL = 4 | 8
"""Bits of LAMMPS's vflag that ask for the virial of every atom."""


class MliapData(Protocol):
    """What LAMMPS hands over at every step, as far as it is used here; ``nlistatoms`` local atoms, P pairs.

    ``iatoms``: at least (nlistatoms,), local atoms; ``elems``: (ntotal,), index of the element of every atom and ghost;
    ``pair_i``, ``pair_j`` (P,) and ``rij`` (P, 3), Å: pairs of a local atom and any other within the cutoff, grouped by
    the local atom; ``f`` (ntotal, 3), eV/Å, to be added to; ``eatoms`` (nlistatoms,) and ``energy``, eV, to be set.
    """

    nlistatoms: int
    npairs: int
    vflag: int
    iatoms: NDArray[np.int32]
    elems: NDArray[np.int32]
    pair_i: NDArray[np.int32]
    pair_j: NDArray[np.int32]
    rij: NDArray[np.float64]
    f: NDArray[np.float64]
    eatoms: NDArray[np.float64]
    energy: float


class MliapCommittee:
    """The mean of a committee as ML-IAP's unified interface wants it (``MLIAPUnified`` in LAMMPS's Python module).

    Attributes
    ----------
    element_types
        symbols that ``pair_coeff`` may name
    rcutfac
        half of the reach in Å: LAMMPS takes twice of it as the cutoff
    ndescriptors, nparams
        LAMMPS makes room for as many numbers per atom; none are used
    interface
        set by LAMMPS

    Raises
    ------
    PotentialError
        for a committee that is not alflow's own
    """

    ndescriptors = 1
    nparams = 1

    def __init__(self, committee: Committee) -> None:
        if not isinstance(committee, NativeCommittee):
            raise PotentialError("ML-IAP takes committees that `train_committee` trained; others go by `drive_lammps`")
        self.committee = committee
        self.element_types = list(committee.elements)
        self.rcutfac = 0.5 * reach(committee)
        self.interface: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "committee.pt"
            self.committee.save(path)
            return _revive, (path.read_bytes(),)

    def compute_descriptors(self, data: MliapData) -> None:
        """Nothing: a unified model does everything in :meth:`compute_forces`."""

    def compute_gradients(self, data: MliapData) -> None:
        """Nothing, see :meth:`compute_descriptors`."""

    def compute_forces(self, data: MliapData) -> None:
        """Set energies and add forces of the committee's mean.

        Raises
        ------
        PotentialError
            if virials of single atoms are asked for, an atom has no element, or the prediction is not finite
        """
        keep_freed_memory()
        if data.vflag & PER_ATOM_VIRIAL:
            raise PotentialError(
                "the committee gives LAMMPS no stress per atom: leave out compute stress/atom and what builds on it"
            )
        if data.nlistatoms == 0:
            data.energy = 0.0
            return
        core = self.committee.core
        edges, nodes = environment(data, core.numbers, self.committee.r_max, core.spec.n_layers)
        raw = core.predict_atoms(edges)
        energies, forces = raw.energy.mean(0)[: data.nlistatoms], raw.forces.mean(0)
        if not (np.isfinite(energies).all() and np.isfinite(forces).all()):
            raise PotentialError("the committee's prediction is not finite: atoms have come on top of each other")
        data.eatoms = energies
        data.energy = float(energies.sum())
        data.f[nodes] += forces


def reach(committee: NativeCommittee) -> float:
    """How far away atoms may be that decide an atom's energy, Å."""
    return committee.r_max * committee.spec.n_layers


def environment(
    data: MliapData, numbers: NDArray[np.int64], r_max: float, n_layers: int
) -> tuple[EdgeList, NDArray[np.int64]]:
    """Edges of the local atoms and, for a message layer, of the ghosts beside them.

    LAMMPS lists the pairs of local atoms only. The vector from a ghost j to another atom k is the difference of those
    from a local atom i to both: whatever is within `r_max` of j is within 2 · `r_max` of any i that has j as neighbour.

    Parameters
    ----------
    data
        with pairs up to ``n_layers · r_max``
    numbers
        (n_elements,) atomic numbers of the committee's elements
    r_max
        cutoff of one layer, Å
    n_layers
        1 or 2

    Returns
    -------
    edges, nodes
        edges between N nodes, the local atoms first and owned; and which atoms of LAMMPS the nodes are, (N,)

    Raises
    ------
    PotentialError
        if an atom has no element
    """
    local = np.array(data.iatoms[: data.nlistatoms], dtype=np.int64)
    elements = np.asarray(data.elems, dtype=np.int64)
    centres, neighbours, vectors = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3))
    if data.npairs:
        centres, neighbours = np.array(data.pair_i, dtype=np.int64), np.array(data.pair_j, dtype=np.int64)
        vectors = np.array(data.rij, dtype=np.float64)
        order = np.argsort(centres, kind="stable")  # LAMMPS groups by local atom already; then this is cheap
        centres, neighbours, vectors = centres[order], neighbours[order], vectors[order]
    near = _squared(vectors) < r_max**2
    parts = [(centres[near], neighbours[near], vectors[near])]
    if n_layers > 1:
        is_local = np.zeros(len(elements), dtype=bool)
        is_local[local] = True
        # one pair (i, j) for every ghost j beside a local atom i
        ghosts, pair = np.unique(neighbours[near & ~is_local[neighbours]], return_index=True)
        pair = np.flatnonzero(near & ~is_local[neighbours])[pair]
        parts.append(_ghost_edges(ghosts, centres[pair], vectors[pair], (centres, neighbours, vectors), r_max))
    centres, neighbours, vectors = (np.concatenate(p) for p in zip(*parts, strict=True))
    others = np.setdiff1d(neighbours, local)
    nodes = np.concatenate([local, others])
    species = elements[nodes]
    if species.min() < 0:
        raise PotentialError("an atom type stands for no element: name one for each in pair_coeff, not NULL")
    node = np.zeros(len(elements), dtype=np.int64)
    node[nodes] = np.arange(len(nodes))
    order = np.lexsort((node[neighbours], node[centres]))
    atoms = AtomTable(species=species, numbers=numbers[species], counts=np.array([len(nodes)]))
    edges = EdgeList(
        atoms=replace(atoms, owned=np.arange(len(nodes)) < len(local)),
        centres=node[centres[order]],
        neighbours=node[neighbours[order]],
        vectors=vectors[order],
    )
    return edges, nodes


_Edges = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.float64]"]


def _ghost_edges(
    ghosts: NDArray[np.int64],
    anchors: NDArray[np.int64],
    to_ghost: NDArray[np.float64],
    pairs: _Edges,
    r_max: float,
) -> _Edges:
    """Edges of ghosts (G,) from the pairs, sorted by centre, of one local atom each and its vector to the ghost."""
    centres, neighbours, vectors = pairs
    first = np.searchsorted(centres, anchors)
    counts = np.searchsorted(centres, anchors, side="right") - first
    ghost = np.repeat(np.arange(len(ghosts)), counts)
    pair = np.arange(len(ghost)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    found = vectors[pair] - to_ghost[ghost]
    keep = (_squared(found) < r_max**2) & (neighbours[pair] != ghosts[ghost])
    return (  # the local atom itself is not in its own list
        np.concatenate([ghosts[ghost[keep]], ghosts]),
        np.concatenate([neighbours[pair[keep]], anchors]),
        np.concatenate([found[keep], -to_ghost]),
    )


def _squared(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.einsum("ij,ij->i", vectors, vectors)
    return result


def export_lammps(committee: Committee, path: str | Path) -> str:
    """Write the file that ``pair_style mliap unified`` reads; return the lines for a LAMMPS input.

    LAMMPS reads it with `pickle`, so it is as trustworthy as a program; its content is the committee's own checkpoint.
    The Python inside LAMMPS must find alflow.

    Parameters
    ----------
    committee
        in the precision that LAMMPS is to compute with
    path
        to write to; any name but ``*.pt`` and ``*.pth``, which LAMMPS takes for something else

    Raises
    ------
    PotentialError
        for such a name, or a committee that is not alflow's own
    """
    path = Path(path)
    if path.suffix in {".pt", ".pth"}:
        raise PotentialError(
            f"{path}: LAMMPS reads *{path.suffix} in another way; call it {path.with_suffix('.mliap')}"
        )
    content = pickle.dumps(MliapCommittee(committee))
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return lammps_input(committee, path)


def lammps_input(committee: Committee, path: Path) -> str:
    """Lines for a LAMMPS input that reads an exported file; one atom type per element, in the committee's order."""
    name = f'"{path}"' if any(c.isspace() for c in str(path)) else str(path)
    return "\n".join(
        [
            "units           metal",
            "atom_style      atomic",
            "newton          on",
            "# after the atoms, of types " + ", ".join(f"{k} {e}" for k, e in enumerate(committee.elements, 1)) + ":",
            f"pair_style      mliap unified {name} 0",
            f"pair_coeff      * * {' '.join(committee.elements)}",
        ]
    )


def _revive(content: bytes) -> MliapCommittee:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "committee.pt"
        path.write_bytes(content)
        return MliapCommittee(load_committee(path))
