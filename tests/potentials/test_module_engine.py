"""Committees of foreign torch modules, with a small module in the place of MACE: what needs no mace-torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from numpy.typing import NDArray
from pydantic import ValidationError

from alflow.errors import CheckpointError, PotentialError
from alflow.potentials import Committee, MaceSpec, TrainingProgress, TrainingSpec, check_committee
from alflow.potentials._geometry import EdgeList
from alflow.potentials.mace import MaceCommittee, foundation_committee, train_mace_committee
from alflow.potentials.mace import _train as training_module
from alflow.potentials.mace._engine import EdgeModule, Graph, ModuleEngine
from alflow.structures import Structure
from tests.potentials.conftest import cells, label, odd_ones

SPEC = MaceSpec(n_members=3, r_max=4.0, dtype="float64", learning_rate=0.02)


class Pairs(EdgeModule):
    """Energies of atoms as a nonlinear function of radial densities: weights, buffers and three-body terms."""

    def __init__(self, r_max: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = torch.nn.Parameter(torch.randn(120, 4, 6, generator=generator, dtype=torch.float64))
        self.readout = torch.nn.Parameter(torch.randn(6, generator=generator, dtype=torch.float64))
        self.register_buffer("r_max", torch.tensor(r_max))
        self.model = torch.nn.Module()

    def forward(self, vectors: torch.Tensor, graph: Graph) -> tuple[torch.Tensor, torch.Tensor]:
        distance = vectors.norm(dim=1, keepdim=True)
        fade = (1 - (distance / self.r_max) ** 2).clamp(min=0) ** 3
        radial = torch.cat([fade * torch.cos(k * distance) for k in range(4)], dim=1)
        seen = torch.einsum("ek,ekc->ec", radial, self.first[graph.numbers[graph.neighbours]])
        density = seen.new_zeros(len(graph.numbers), 6).index_add(0, graph.centres, seen)
        energy = torch.tanh(density / 8) @ self.readout
        total = energy.new_zeros(graph.n_structures).index_add(0, graph.structure, energy)
        return total, density


@pytest.fixture(autouse=True)
def pairs_instead_of_mace(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(spec: MaceSpec, numbers: NDArray[np.int64], *, scale: float, neighbours: float, seed: int) -> Any:
        models = [Pairs(spec.r_max, 100 * seed + k) for k in range(spec.n_members)]
        return models, {"r_max": spec.r_max}

    monkeypatch.setattr(training_module, "new_models", make)


@pytest.fixture(scope="module")
def labelled() -> list[Atoms]:
    return [label(atoms) for atoms in cells(24)]


@pytest.fixture
def committee(labelled: list[Atoms]) -> MaceCommittee:
    return train_mace_committee(labelled, SPEC, TrainingSpec(steps=6), seed=1)


def test_it_keeps_the_promises_of_a_committee(committee: MaceCommittee) -> None:
    assert isinstance(committee, Committee)
    check_committee(committee, [*odd_ones()[:3], *cells(3)], tolerance=1e-4)


def test_batches_do_not_matter(committee: MaceCommittee) -> None:
    structures = [*odd_ones(), *cells(5)]
    committee.core.engine.chunk_atoms = 3
    apart = committee.predict(structures, features=True)
    committee.core.engine.chunk_atoms = 500
    together = committee.predict(structures, features=True)
    np.testing.assert_allclose(apart.energy, together.energy, atol=1e-12)
    for one, other in zip(apart.forces, together.forces, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    assert apart.features is not None
    assert together.features is not None
    np.testing.assert_allclose(apart.features, together.features, atol=1e-12)
    lonely = committee.predict([Atoms("Pt", positions=[[1.0, 2.0, 3.0]])])
    np.testing.assert_allclose(lonely.forces[0], 0.0)
    assert lonely.stress is not None
    assert np.isnan(lonely.stress).all()


def test_gradients_of_forces_are_those_of_differences() -> None:
    """The training differentiates forces by weights: compared with central differences of the weights."""
    engine = ModuleEngine(Pairs(4.0, 3), ["first", "readout"], torch.float64)
    edges = EdgeList.of(Structure.from_atoms(cells(4)[3]), np.array([28, 78]), 4.0)
    batch = engine.batch(edges)
    row = engine.row()
    rng = np.random.default_rng(0)
    some = torch.from_numpy(rng.normal(size=(1, len(edges.atoms), 3)))
    direction = torch.from_numpy(rng.normal(size=len(row)))

    def along(matrix: torch.Tensor) -> torch.Tensor:
        out = engine.evaluate(matrix, batch, training=True)
        assert out.forces is not None
        assert out.virial is not None
        return (out.forces * some).sum() + out.virial.sum() + out.energy.sum()

    leaf = row.unsqueeze(0).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(along(leaf), leaf)
    step = 1e-5
    slope = (along((row + step * direction)[None]) - along((row - step * direction)[None])) / (2 * step)
    assert float(gradient[0] @ direction) == pytest.approx(float(slope.detach()), rel=1e-6)


def test_training_learns_and_members_differ(labelled: list[Atoms]) -> None:
    short = train_mace_committee(labelled, SPEC, TrainingSpec(steps=1))
    longer = train_mace_committee(labelled, SPEC, TrainingSpec(steps=100, energy_weight=0.5))
    assert longer.report is not None
    assert short.report is not None
    assert longer.report.train.energy_mae < 0.6 * short.report.train.energy_mae
    assert longer.report.validation is not None
    assert len(longer.report.held_out) >= 2
    assert set(longer.report.reference_energies) == {"Ni", "Pt"}
    assert (longer.predict(labelled).energy_spread > 0).all()


def kill_after(epoch: int) -> Callable[[TrainingProgress], None]:
    def progress(p: TrainingProgress) -> None:
        if p.epoch >= epoch:
            raise KeyboardInterrupt

    return progress


def test_a_killed_training_goes_on_to_the_same_result(labelled: list[Atoms], tmp_path: Path) -> None:
    training = TrainingSpec(max_epochs=5, checkpoint_seconds=0)
    undisturbed = train_mace_committee(labelled, SPEC, training, seed=5)
    with pytest.raises(KeyboardInterrupt):
        train_mace_committee(labelled, SPEC, training, seed=5, checkpoint_dir=tmp_path, progress=kill_after(3))
    epochs: list[int] = []
    resumed = train_mace_committee(
        labelled, SPEC, training, seed=5, checkpoint_dir=tmp_path, progress=lambda p: epochs.append(p.epoch)
    )
    assert epochs[0] > 2
    assert torch.equal(resumed.core.weights, undisturbed.core.weights)
    other = train_mace_committee(labelled, SPEC, training, seed=6, checkpoint_dir=tmp_path)
    assert not torch.equal(other.core.weights, undisturbed.core.weights)


def test_a_warm_start_goes_on_and_new_elements_start_afresh(labelled: list[Atoms], committee: MaceCommittee) -> None:
    still = TrainingSpec(warm_steps=1, warmup_steps=10**9)  # a learning rate of next to nothing
    warm = train_mace_committee(labelled[:10], SPEC, still, initial=committee, seed=2)
    assert warm.report is not None
    assert "earlier committee" in warm.report.warm_start
    np.testing.assert_allclose(warm.predict(labelled).energy, committee.predict(labelled).energy, atol=1e-5)
    copper = cells(1)[0]
    copper.symbols[:] = "Cu"
    fresh = train_mace_committee([*labelled, label(copper)], SPEC, TrainingSpec(steps=1), initial=committee, seed=2)
    assert fresh.report is not None
    assert fresh.report.warm_start == "started from scratch: the earlier committee does not know Cu"
    assert fresh.elements == ("Ni", "Cu", "Pt")
    other = SPEC.model_copy(update={"learning_rate": 0.01})
    fresh = train_mace_committee(labelled, other, TrainingSpec(steps=1), initial=committee, seed=2)
    assert fresh.report is not None
    assert fresh.report.warm_start == "started from scratch: the earlier committee has another learning_rate"


def test_a_warm_start_moves_to_the_zero_of_the_labels(labelled: list[Atoms], committee: MaceCommittee) -> None:
    elsewhere = []
    for atoms in labelled:
        atoms = atoms.copy()
        atoms.info["REF_energy"] += float(np.sum(atoms.symbols == "Ni")) * -30.0
        elsewhere.append(atoms)
    still = TrainingSpec(warm_steps=1, warmup_steps=10**9)
    warm = train_mace_committee(elsewhere, SPEC, still, initial=committee, seed=2)
    assert warm.report is not None
    assert "Ni by -29." in warm.report.warm_start
    moved = warm.core.references - committee.core.references
    np.testing.assert_allclose(moved, [-30.0, 0.0], atol=1.0)


def test_isolated_atoms_teach_nothing(labelled: list[Atoms]) -> None:
    lone = Atoms("Ni", positions=[[0, 0, 0]], info={"REF_energy": 123.0})
    lone.arrays["REF_forces"] = np.zeros((1, 3))
    training = TrainingSpec(steps=3)
    with_it = train_mace_committee([*labelled, lone], SPEC, training)
    without = train_mace_committee(labelled, SPEC, training)
    assert with_it.report is not None
    assert (with_it.report.member_weights[:, -1] == 0).all()
    np.testing.assert_allclose(with_it.core.references, without.core.references)
    np.testing.assert_allclose(with_it.predict(labelled).energy, without.predict(labelled).energy, atol=1e-9)
    with pytest.raises(PotentialError, match="isolated atoms"):
        train_mace_committee([lone], SPEC, training)


def test_unknown_elements_are_named(committee: MaceCommittee) -> None:
    with pytest.raises(PotentialError, match=r"Ni, Pt.*Cu"):
        committee.predict([Atoms("Cu", positions=[[0, 0, 0]])])


def test_a_foundation_model_must_be_trusted_and_there(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="trust_foundation: true"):
        MaceSpec(foundation=tmp_path / "big.model")
    with pytest.raises(CheckpointError, match=r"no foundation model at .*big\.model"):
        foundation_committee(MaceSpec(foundation=Path("big.model"), trust_foundation=True), directory=tmp_path)
    with pytest.raises(PotentialError, match="no foundation model"):
        foundation_committee(MaceSpec())
