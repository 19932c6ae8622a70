"""On a GPU everything is as on the CPU: predictions, gradients, trainings, files, calculators, blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

from alflow.potentials import (
    CommitteeSpec,
    MaceSpec,
    NativeCommittee,
    Prediction,
    TrainingProgress,
    TrainingSpec,
    check_committee,
    load_committee,
    train_committee,
)
from alflow.potentials._blocks import blocks_of
from alflow.potentials._device import uses_tf32
from alflow.potentials._engine import PlainEngine, kernel_state
from alflow.potentials._geometry import EdgeList
from alflow.potentials.mace import _train as mace_training
from alflow.potentials.mace import train_mace_committee
from alflow.structures import Structure
from tests.potentials.conftest import SMALL, cells, odd_ones
from tests.potentials.test_device import many_elements
from tests.potentials.test_module_engine import Pairs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here")

SHORT = TrainingSpec(max_epochs=4)
GPU = torch.device("cuda")


def on(device: str, committee: NativeCommittee, monkeypatch: pytest.MonkeyPatch) -> NativeCommittee:
    """The same committee, evaluated there."""
    monkeypatch.setenv("ALFLOW_DEVICE", device)
    moved = replace(committee, core=replace(committee.core))
    moved.core.engine  # noqa: B018  # decided now and kept
    return moved


def assert_same(found: Prediction, expected: Prediction, tolerance: float, least: float = 1e-3) -> None:
    """All that is predicted, relative to the largest value of its kind, or to `least` where all are smaller."""
    pairs = [
        (getattr(found, name), getattr(expected, name)) for name in ("energy", "stress", "features", "distance", "u")
    ]
    for one, other in [*pairs, *zip(found.forces, expected.forces, strict=True)]:
        if other is not None:
            largest = np.nanmax(np.abs(other), initial=least)
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * largest)


@pytest.fixture(scope="module")
def heavy() -> NativeCommittee:
    """More elements than have radial channels of their own."""
    structures = many_elements()
    for atoms in structures:
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = 0.1 * len(atoms), 0.01 * atoms.positions
    return train_committee(structures, SMALL, TrainingSpec(max_epochs=1))


def test_predictions(
    committee: NativeCommittee,
    full_committee: NativeCommittee,
    heavy: NativeCommittee,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for one, structures in (
        (committee, [*odd_ones(), *cells(10)]),
        (full_committee, [*odd_ones(), *cells(10)]),
        (heavy, many_elements()),
    ):
        expected = on("cpu", one, monkeypatch).predict(structures, features=True)
        moved = on("cuda", one, monkeypatch)
        assert isinstance(moved.core.engine, PlainEngine)
        assert moved.core.engine.device.type == "cuda"
        assert_same(moved.predict(structures, features=True), expected, 1e-9)


def test_single_precision_is_not_tf32(full_committee: NativeCommittee, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not uses_tf32()
    structures = [*odd_ones(), *cells(10)]
    exact = on("cpu", full_committee, monkeypatch).predict(structures)
    single = on("cuda", full_committee, monkeypatch).predict(structures, dtype="float32")
    assert_same(single, exact, 2e-5, least=1.0)  # ten bits instead of 24 would be off by 1e-3


@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("many", [False, True])
def test_gradients_of_a_training(
    committee: NativeCommittee, heavy: NativeCommittee, many: bool, summed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not summed:
        monkeypatch.setattr("alflow.potentials._engine.KEPT_BYTES", 0)
        monkeypatch.setattr("alflow.potentials._engine.spare_bytes", lambda _: None)
    core = (heavy if many else committee).core
    structures = many_elements() if many else [*odd_ones(), *cells(4)]
    edges = [EdgeList.of(Structure.from_atoms(a), core.numbers, core.spec.r_max) for a in structures]
    found = []
    for device in (torch.device("cpu"), GPU):
        engine = PlainEngine(core.network, core.numbers, torch.float64, device)
        geometry = engine.geometry(edges)
        leaf = core.weights.clone().requires_grad_()
        out = engine.evaluate(leaf, geometry.batch(np.arange(len(edges))), training=True)
        assert out.forces is not None
        assert out.virial is not None
        assert out.forces.device.type == "cpu"
        loss = (out.energy**2).sum() + (out.forces**2).sum() + (out.virial**2).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert gradient.device.type == "cpu"
        found.append([t.detach() for t in (out.energy, out.forces, out.virial, gradient)])
    for expected, other in zip(*found, strict=True):
        torch.testing.assert_close(other, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def test_trainings_and_their_files(labelled: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = {}
    for device in ("cpu", "cuda"):
        monkeypatch.setenv("ALFLOW_DEVICE", device)
        trained[device] = train_committee(labelled, SMALL, SHORT, seed=1)
        trained[device].save(tmp_path / device)
    assert trained["cuda"].core.weights.device.type == "cpu"
    expected = trained["cpu"].predict(labelled)
    assert_same(trained["cuda"].predict(labelled), expected, 1e-6)  # Adam enlarges what rounding makes of zeros
    for there, here in (("cpu", "cuda"), ("cuda", "cpu")):
        monkeypatch.setenv("ALFLOW_DEVICE", here)
        read = load_committee(tmp_path / there)
        assert isinstance(read, NativeCommittee)
        assert_same(read.predict(labelled), trained[there].predict(labelled), 1e-9)
        if here == "cuda":
            assert isinstance(read.core.engine, PlainEngine)
            assert read.core.engine.device.type == "cuda"
        warm = train_committee(labelled, SMALL, TrainingSpec(max_epochs=1), initial=read)
        assert warm.report is not None
        assert warm.report.epochs == 1


@pytest.mark.parametrize(("first", "then"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_killed_training_goes_on_elsewhere(
    first: str, then: str, labelled: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = SHORT.model_copy(update={"checkpoint_seconds": 0.0})

    def kill(p: TrainingProgress) -> None:
        if p.epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setenv("ALFLOW_DEVICE", first)
    whole = train_committee(labelled, SMALL, training, seed=5)
    with pytest.raises(KeyboardInterrupt):
        train_committee(labelled, SMALL, training, seed=5, checkpoint_dir=tmp_path, progress=kill)
    monkeypatch.setenv("ALFLOW_DEVICE", then)
    epochs: list[int] = []
    resumed = train_committee(
        labelled, SMALL, training, seed=5, checkpoint_dir=tmp_path, progress=lambda p: epochs.append(p.epoch)
    )
    assert epochs[0] > 1
    assert_same(resumed.predict(labelled), whole.predict(labelled), 1e-6)


def test_a_calculator_in_motion(committee: NativeCommittee, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for device in ("cpu", "cuda"):
        atoms = cells(3)[2] * (2, 2, 2)
        atoms.calc = on(device, committee, monkeypatch).calculator()
        VelocityVerlet(atoms, timestep=2 * units.fs).run(10)
        ends.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(), atoms.calc.results["u"]))
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-9 * np.abs(one).max())


def test_it_keeps_the_promises_of_a_committee(committee: NativeCommittee, monkeypatch: pytest.MonkeyPatch) -> None:
    check_committee(on("cuda", committee, monkeypatch), [*odd_ones(), *cells(3)], tolerance=1e-4)


def test_blocks(committee: NativeCommittee, monkeypatch: pytest.MonkeyPatch) -> None:
    structures = [cells(3)[2] * (16, 3, 3), *cells(2)]
    expected = on("cpu", committee, monkeypatch).predict(structures, features=True)
    moved = on("cuda", committee, monkeypatch)
    whole = moved.predict(structures, features=True)
    pieces = 0

    def counted(*arguments: Any) -> Iterator[Any]:
        nonlocal pieces
        for block in blocks_of(*arguments):
            pieces += 1
            yield block

    monkeypatch.setattr("alflow.potentials._core.blocks_of", counted)
    for bound in ("BLOCK_BYTES", "CHUNK_BYTES"):
        monkeypatch.setattr(f"alflow.potentials._core.{bound}", 8000 * moved.core.engine.edge_bytes)
    monkeypatch.setattr("alflow.potentials._engine.spare_bytes", lambda _: None)
    blocks = moved.predict(structures, features=True)
    assert pieces >= 4
    assert_same(whole, expected, 1e-9)
    assert_same(blocks, expected, 1e-9)


def test_memory_is_given_back(
    committee: NativeCommittee, labelled: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = on("cuda", committee, monkeypatch)
    held = []
    for _ in range(3):
        moved.predict(cells(10))
        train_committee(labelled[:6], SMALL, TrainingSpec(max_epochs=1))
        held.append(torch.cuda.memory_allocated())
    assert held[1] == held[2]


def test_the_report_names_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFLOW_DEVICE", "cuda")
    assert kernel_state(CommitteeSpec()) == (True, f"plain torch on {torch.cuda.get_device_name()}")


def test_foreign_modules(labelled: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MaceSpec(n_members=2, r_max=4.0, dtype="float64", learning_rate=0.02)

    def make(spec: MaceSpec, numbers: Any, *, scale: float, neighbours: float, seed: int) -> Any:
        return [Pairs(spec.r_max, 100 * seed + k) for k in range(spec.n_members)], {"r_max": spec.r_max}

    monkeypatch.setattr(mace_training, "new_models", make)
    predictions = []
    for device in ("cpu", "cuda"):
        monkeypatch.setenv("ALFLOW_DEVICE", device)
        trained = train_mace_committee(labelled, spec, TrainingSpec(steps=6), seed=1)
        predictions.append(trained.predict([*odd_ones(), *cells(4)], features=True))
    assert_same(predictions[1], predictions[0], 1e-6)
