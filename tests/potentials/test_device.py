"""Other devices, as far as a CPU can tell: nothing may be made on the default device on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms

from alflow.equivariant import _harmonics, _linear
from alflow.errors import PotentialError
from alflow.potentials import NativeCommittee, TrainingSpec, _device, train_committee
from alflow.potentials._device import LEAST, spare_bytes, uses_tf32, wanted_device, warn_of_tf32
from alflow.potentials._engine import Batch, PlainEngine, choose_engine
from alflow.potentials._geometry import EdgeList
from alflow.structures import Structure
from tests.potentials.conftest import SMALL, odd_ones

SEVEN = ["Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"]


def _forget() -> None:
    """What is kept from call to call is to be made anew."""
    for kept in (_harmonics._tables, _harmonics._recipes, _linear._degrees):
        kept.cache_clear()


def many_elements() -> list[Atoms]:
    structures = odd_ones()
    for k, atoms in enumerate(structures):
        atoms.symbols[0] = SEVEN[k % 7]
    return structures


@pytest.mark.parametrize(("training", "kept"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize("structures", [odd_ones(), many_elements()], ids=["two elements", "seven elements"])
def test_tensors_are_made_where_the_data_are(
    structures: list[Atoms],
    training: bool,
    kept: bool,
    committee: NativeCommittee,
    monkeypatch: pytest.MonkeyPatch,
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
    if not kept:
        monkeypatch.setattr("alflow.potentials._engine.KEPT_BYTES", 0)

    def prepare() -> Batch:
        return engine.geometry(edges).batch(np.arange(len(edges))) if training else engine.batch(EdgeList.join(edges))

    expected = engine.evaluate(core.weights, prepare())
    matrix = core.weights.clone().requires_grad_(training)
    _forget()
    with torch.device("meta"):
        batch = prepare()
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


def test_tf32_is_off_and_noticed_where_it_is_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    _device._say_once.cache_clear()
    assert not uses_tf32()
    warn_of_tf32(gpu)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert uses_tf32()
        warn_of_tf32(cpu)
        assert not caplog.records
        warn_of_tf32(gpu)
        warn_of_tf32(gpu)
    finally:
        torch.set_float32_matmul_precision(before)
    (record,) = caplog.records
    assert "TF32" in record.getMessage()
    assert not uses_tf32()


def test_a_cpu_has_no_memory_of_its_own() -> None:
    assert spare_bytes(torch.device("cpu")) is None


def test_what_is_free_on_a_gpu_bounds_what_is_done_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, free = torch.device("cuda"), 400 * 2**20
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 300 * 2**20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 100 * 2**20)
    assert spare_bytes(gpu) == 450 * 2**20
    free = 0
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 100 * 2**20)
    assert spare_bytes(gpu) == LEAST
