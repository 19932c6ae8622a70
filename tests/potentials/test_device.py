"""Plain torch on other devices: nothing may be made on the default device on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms

from alflow.errors import PotentialError
from alflow.potentials import CommitteeSpec, NativeCommittee, TrainingSpec, train_committee
from alflow.potentials._device import wanted_device
from alflow.potentials._engine import PlainEngine, choose_engine
from alflow.potentials._geometry import EdgeList
from alflow.structures import Structure
from tests.potentials.conftest import SMALL, odd_ones

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here")
SEVEN = ["Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"]


def many_elements() -> list[Atoms]:
    structures = odd_ones()
    for k, atoms in enumerate(structures):
        atoms.symbols[0] = SEVEN[k % 7]
    return structures


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("structures", [odd_ones(), many_elements()], ids=["two elements", "seven elements"])
def test_tensors_are_made_where_the_data_are(
    structures: list[Atoms], training: bool, committee: NativeCommittee
) -> None:
    """With another default device, whatever is made without naming one does not fit what is on the CPU."""
    symbols = sorted({s for a in structures for s in a.get_chemical_symbols()}, key=lambda s: Atoms(s).numbers[0])
    numbers = np.array([Atoms(s).numbers[0] for s in symbols])
    core = committee.core
    if len(numbers) != len(core.numbers):
        labelled = []
        for atoms in structures:
            atoms.info["REF_energy"], atoms.arrays["REF_forces"] = 0.1 * len(atoms), 0.01 * atoms.positions
            labelled.append(atoms)
        core = train_committee(labelled, SMALL, TrainingSpec(max_epochs=1)).core
    engine = PlainEngine(core.network, core.numbers, torch.float64)
    edges = [EdgeList.of(Structure.from_atoms(a), core.numbers, core.spec.r_max) for a in structures]
    batch = engine.geometry(edges).batch(np.arange(len(edges))) if training else engine.batch(EdgeList.join(edges))
    expected = engine.evaluate(core.weights, batch)
    matrix = core.weights.clone().requires_grad_(training)
    with torch.device("meta"):
        found = engine.evaluate(matrix, batch, training=training)
        assert found.forces is not None
        if training:
            (gradient,) = torch.autograd.grad((found.forces**2).sum() + found.energy.sum(), matrix)
            assert torch.isfinite(gradient).all()
    assert expected.forces is not None
    torch.testing.assert_close(found.energy.detach(), expected.energy, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.forces.detach(), expected.forces, rtol=1e-10, atol=1e-10)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, committee: NativeCommittee) -> None:
    assert wanted_device().type == "cpu"
    core = committee.core
    for name, words in (("tpu", "write cpu, cuda"), ("cuda:x", "write cpu, cuda"), ("cuda:99", "sees")):
        monkeypatch.setenv("ALFLOW_DEVICE", name)
        with pytest.raises(PotentialError, match=words):
            choose_engine(core.network, core.numbers, torch.float32)


@on_gpu
def test_a_gpu_predicts_and_trains_the_same(
    monkeypatch: pytest.MonkeyPatch, labelled: list[Atoms], committee: NativeCommittee
) -> None:
    expected = committee.predict(labelled)
    monkeypatch.setenv("ALFLOW_DEVICE", "cuda")
    training = TrainingSpec(max_epochs=4)
    trained = train_committee(labelled, SMALL, training, seed=1)
    found = trained.predict(labelled)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-6)
    single = train_committee(labelled, CommitteeSpec(channels=8, l_max=2), TrainingSpec(max_epochs=2))
    double = single.predict(labelled, dtype="float64")
    for one, other in zip(single.predict(labelled).forces, double.forces, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)  # TF32 would be off by 1e-2
