"""Very large structures are evaluated in blocks, to the same result."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from alflow.potentials import CommitteeSpec, NativeCommittee, TrainingSpec, train_committee
from alflow.potentials._blocks import blocks_of
from alflow.potentials._geometry import EdgeList
from alflow.structures import Structure
from tests.potentials.conftest import cells

R_MAX = 5.0


def large(repeat: tuple[int, int, int], pbc: bool | list[bool] = True) -> Atoms:
    atoms = bulk("Ni", a=3.6) * repeat
    rng = np.random.default_rng(0)
    atoms.symbols[rng.random(len(atoms)) < 0.4] = "Pt"
    atoms.positions += rng.normal(size=atoms.positions.shape) * 0.1
    atoms.pbc = pbc
    return atoms


def edges_of(committee: NativeCommittee, atoms: Atoms) -> EdgeList:
    return EdgeList.of(Structure.from_atoms(atoms), committee.core.numbers, R_MAX)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 2))
def test_every_atom_is_of_one_block_and_sees_all_it_saw(
    committee: NativeCommittee, most_edges: int, n_layers: int
) -> None:
    whole = edges_of(committee, large((5, 4, 4), [True, True, False]))
    owners = np.zeros(len(whole.atoms), dtype=int)
    degrees = np.bincount(whole.centres, minlength=len(whole.atoms))
    for block in blocks_of(whole, n_layers, most_edges):
        part, owned = block.edges, block.edges.atoms.owned
        assert owned is not None
        assert len(part.centres) <= most_edges or owned.sum() == 1
        owners[block.atoms[owned]] += 1
        complete = owned.copy()
        if n_layers == 2:
            complete[part.neighbours[owned[part.centres]]] = True
        local = np.bincount(part.centres, minlength=len(part.atoms))
        np.testing.assert_array_equal(local[complete], degrees[block.atoms[complete]])
        np.testing.assert_array_equal(part.atoms.numbers, whole.atoms.numbers[block.atoms])
        assert (np.diff(part.centres) >= 0).all()
    assert (owners == 1).all()


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_blocks_give_the_same_answers(
    labelled: list[Atoms], n_layers: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALFLOW_KERNELS", kernels)
    spec = CommitteeSpec(channels=4, l_max=1, l_product=1, n_layers=n_layers, n_members=2, dtype="float64")
    committee = train_committee(labelled[:8], spec, TrainingSpec(max_epochs=1))
    given_ = [large((15, 3, 3)), large((14, 3, 3), [True, False, False]), *cells(3)]
    whole = committee.predict(given_, features=True)
    pieces = 0

    def counted(*arguments: object) -> object:
        nonlocal pieces
        for block in blocks_of(*arguments):  # type: ignore[arg-type]
            pieces += 1
            yield block

    monkeypatch.setattr("alflow.potentials._core.blocks_of", counted)
    # with two layers the neighbours of one atom alone have some 3000 edges
    most_edges = 1200 if n_layers == 1 else 3500
    monkeypatch.setattr("alflow.potentials._core.BLOCK_BYTES", most_edges * committee.core.engine.edge_bytes)
    blocks = committee.predict(given_, features=True)
    assert 4 <= pieces < 120
    for name in ("energy", "stress", "features", "u", "distance"):
        one, other = getattr(blocks, name), getattr(whole, name)
        if other is not None:
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)
    for one, other in zip(blocks.forces, whole.forces, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10 * max(1.0, np.abs(other).max()))


def test_little_memory_of_a_gpu_makes_more_and_smaller_blocks(
    labelled: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALFLOW_KERNELS", "off")
    spec = CommitteeSpec(channels=4, l_max=1, l_product=1, n_layers=1, n_members=2, dtype="float64")
    committee = train_committee(labelled[:8], spec, TrainingSpec(max_epochs=1))
    structure = large((15, 3, 3))
    whole = committee.predict([structure])
    sizes: list[int] = []

    def recorded(*arguments: object) -> object:
        sizes.append(arguments[2])  # type: ignore[arg-type]
        return blocks_of(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("alflow.potentials._core.blocks_of", recorded)
    edge_bytes = committee.core.engine.edge_bytes
    for edges in (1200, 2400):
        monkeypatch.setattr("alflow.potentials._engine.spare_bytes", lambda _, n=edges: n * edge_bytes)
        found = committee.predict([structure])
        np.testing.assert_allclose(found.energy, whole.energy, rtol=1e-12)
        np.testing.assert_allclose(found.forces[0], whole.forces[0], atol=1e-10)
    assert sizes == [1200, 2400]
