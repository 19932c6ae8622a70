"""Training: accuracy, determinism, resumption, warm starts, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from alflow.errors import CheckpointError, PotentialError, StructureError
from alflow.potentials import (
    CommitteeSpec,
    NativeCommittee,
    Targets,
    TrainingProgress,
    TrainingSpec,
    load_committee,
    train_committee,
)
from alflow.potentials._train import choose_held_out
from alflow.potentials._training_checkpoint import VERSION, read_tensors
from alflow.structures import LabelledStructure
from tests.potentials.conftest import SMALL, cells, label

SHORT = TrainingSpec(max_epochs=6, validate_every=4, checkpoint_seconds=0.0)


class KilledError(Exception):
    """Stands for a killed process."""


def kill_after(epoch: int) -> Any:
    def progress(p: TrainingProgress) -> None:
        if p.epoch == epoch:
            raise KilledError

    return progress


def weights(committee: NativeCommittee) -> torch.Tensor:
    return committee.core.weights


def test_learns_a_metal_from_sixty_cells() -> None:
    train, test = [label(a) for a in cells(60)], [label(a) for a in cells(40, 77)]
    spec = CommitteeSpec(channels=8, l_max=2, l_product=1, n_members=2)
    committee = train_committee(train, spec, TrainingSpec(steps=250))
    p = committee.predict(test)
    energy = (p.energy_mean - np.array([a.info["REF_energy"] for a in test])) / p.n_atoms
    labels = [a.arrays["REF_forces"] for a in test]
    force = np.concatenate([(f - g).ravel() for f, g in zip(p.force_mean, labels, strict=True)])
    assert np.abs(energy).mean() < 0.4 * np.std([a.info["REF_energy"] / len(a) for a in test])
    assert np.abs(force).mean() < 0.2 * np.std(np.concatenate(labels))
    report = committee.report
    assert report is not None
    assert report.train.energy_mae < 0.03
    assert report.validation is not None
    assert report.validation.n_structures == len(report.held_out)


def test_same_call_same_committee(labelled: list[Atoms], committee: NativeCommittee) -> None:
    again = train_committee(labelled, SMALL, TrainingSpec(max_epochs=4), seed=1)
    other = train_committee(labelled, SMALL, TrainingSpec(max_epochs=4), seed=2)
    assert torch.equal(weights(again), weights(committee))
    assert not torch.equal(weights(other), weights(committee))


def test_members_differ(committee: NativeCommittee, labelled: list[Atoms]) -> None:
    p = committee.predict(labelled[:5])
    assert (p.energy_spread > 0).all()
    assert (p.u > 0).all()


@pytest.mark.parametrize("epoch", [1, 3, 6])
def test_killed_training_goes_on_to_the_same_result(labelled: list[Atoms], tmp_path: Path, epoch: int) -> None:
    undisturbed = train_committee(labelled, SMALL, SHORT, seed=5)
    with pytest.raises(KilledError):
        train_committee(labelled, SMALL, SHORT, seed=5, checkpoint_dir=tmp_path, progress=kill_after(epoch))
    epochs: list[int] = []
    resumed = train_committee(
        labelled, SMALL, SHORT, seed=5, checkpoint_dir=tmp_path, progress=lambda p: epochs.append(p.epoch)
    )
    assert epochs == list(range(epoch, 7))  # the epoch that was not saved is repeated
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert resumed.report is not None
    assert undisturbed.report is not None
    assert resumed.report.history == undisturbed.report.history


def test_finished_training_is_not_repeated(labelled: list[Atoms], tmp_path: Path) -> None:
    first = train_committee(labelled, SMALL, SHORT, checkpoint_dir=tmp_path)
    second = train_committee(labelled, SMALL, SHORT, checkpoint_dir=tmp_path, progress=kill_after(1))
    assert torch.equal(weights(first), weights(second))
    assert [p.name for p in tmp_path.iterdir()] == ["training.ckpt"]


def test_checkpoint_of_another_call_is_not_used(labelled: list[Atoms], tmp_path: Path) -> None:
    train_committee(labelled, SMALL, SHORT, seed=1, checkpoint_dir=tmp_path)
    fresh = train_committee(labelled, SMALL, SHORT, seed=2, checkpoint_dir=tmp_path)
    assert torch.equal(weights(fresh), weights(train_committee(labelled, SMALL, SHORT, seed=2)))


def test_damaged_checkpoint_is_named(labelled: list[Atoms], tmp_path: Path) -> None:
    train_committee(labelled, SMALL, SHORT, checkpoint_dir=tmp_path)
    path = tmp_path / "training.ckpt"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"training\.ckpt.*delete it to train from the beginning"):
        train_committee(labelled, SMALL, SHORT, checkpoint_dir=tmp_path)


def test_time_budget_ends_training(labelled: list[Atoms]) -> None:
    seen: list[TrainingProgress] = []
    committee = train_committee(labelled, SMALL, TrainingSpec(cpu_seconds=0.5), progress=seen.append)
    assert committee.report is not None
    assert 0.5 <= committee.report.cpu_seconds < 5.0
    assert seen[-1].fraction == 1.0
    assert seen[-1].max_epochs is None


def test_of_two_budgets_the_smaller_ends_training(labelled: list[Atoms]) -> None:
    report = train_committee(labelled, SMALL, TrainingSpec(cpu_seconds=1000.0, max_epochs=2)).report
    assert report is not None
    assert report.epochs == 2


def test_a_long_epoch_is_looked_at_and_ends_with_the_budget(labelled: list[Atoms]) -> None:
    seen: list[TrainingProgress] = []
    training = TrainingSpec(max_epochs=2, batch_size=1, validate_every=5)
    report = train_committee(labelled, SMALL, training, progress=seen.append).report
    assert report is not None
    steps = len(labelled) - len(report.held_out)
    looks = -(-steps // 5)
    assert len(seen) == 2 * looks
    assert [p.epoch for p in seen] == [1] * looks + [2] * looks
    assert seen[0].fraction == pytest.approx(5 / (2 * steps))
    assert len(report.held_out) == 3  # 12 steps of one structure between two looks, more than validate_every
    assert [p.held_out_loss is not None for p in seen[:4]] == [False, False, True, False]
    short = train_committee(labelled, SMALL, training.model_copy(update={"cpu_seconds": 1e-9})).report
    assert short is not None
    assert short.epochs == 1
    assert len(short.history) == 1


def test_a_training_killed_within_an_epoch_goes_on_to_the_same_result(labelled: list[Atoms], tmp_path: Path) -> None:
    training = TrainingSpec(max_epochs=2, batch_size=1, validate_every=5, checkpoint_seconds=0.0)
    undisturbed = train_committee(labelled, SMALL, training)
    looks = 0

    def kill_at_eighth_look(_: TrainingProgress) -> None:
        nonlocal looks
        looks += 1
        if looks == 8:
            raise KilledError

    with pytest.raises(KilledError):
        train_committee(labelled, SMALL, training, checkpoint_dir=tmp_path, progress=kill_at_eighth_look)
    state = read_tensors(tmp_path / "training.ckpt", "alflow training", (VERSION,))
    assert state["position"] > 0
    resumed = train_committee(labelled, SMALL, training, checkpoint_dir=tmp_path)
    assert torch.equal(weights(resumed), weights(undisturbed))


def test_at_least_two_are_held_out_and_no_isolated_atom() -> None:
    for seed in range(8):
        some = [LabelledStructure.from_atoms(label(a)) for a in cells(20, seed)]
        lonely = [Atoms("Ni", cell=[side] * 3, pbc=True, info={"REF_energy": 1.0}) for side in np.arange(15, 25, 0.5)]
        examples = [*some, *(LabelledStructure.from_atoms(a) for a in lonely)]
        matter = np.arange(len(examples)) < len(some)
        held_out = choose_held_out(examples, matter, TrainingSpec())
        assert len(held_out) >= 2
        assert held_out.max() < len(some)
        of_half = choose_held_out(examples[:20], matter[:20], TrainingSpec())
        assert set(held_out) <= set(of_half)


def test_held_out_structures_stay_held_out_when_more_are_added(labelled: list[Atoms]) -> None:
    more = [*labelled, *(label(a) for a in cells(12, 4))]
    few, many = (train_committee(t, SMALL, TrainingSpec(max_epochs=1), seed=s) for t, s in ((labelled, 0), (more, 9)))
    assert few.report is not None
    assert many.report is not None
    assert few.report.held_out
    assert set(few.report.held_out) == {i for i in many.report.held_out if i < len(labelled)}
    p = few.report.held_out_prediction
    assert p is not None
    again = few.predict([labelled[i] for i in few.report.held_out]).energy
    np.testing.assert_allclose(p.energy, again, rtol=1e-12)  # in other company sums may round otherwise


OVERFITTING = TrainingSpec(
    max_epochs=200,
    validate_every=1,
    patience=2,
    learning_rate=0.05,
    warmup_steps=0,
    energy_ramp=0.0,
    checkpoint_seconds=0.0,
)


def test_a_training_that_gains_nothing_cools_down_and_ends(labelled: list[Atoms], tmp_path: Path) -> None:
    few = [*labelled[:4], *(labelled[i] for i in held_out_of(labelled))]
    training = OVERFITTING.model_copy(update={"validation_from": 2})
    committee = train_committee(few, SMALL, training, checkpoint_dir=tmp_path)
    assert committee.report is not None
    assert committee.report.epochs < 200
    state = read_tensors(tmp_path / "training.ckpt", "alflow training", (VERSION,))
    first, steps, rate = state["cooling"]
    assert state["step"] >= first + steps > first
    assert 0 < rate <= 0.05
    assert first - max(1, first // 4) >= 1
    losses = [loss for _, _, loss in committee.report.history if loss is not None]
    assert state["best_loss"] == min(losses)

    progress = kill_after(committee.report.epochs - 2)  # in the cool-down
    with pytest.raises(KilledError):
        train_committee(few, SMALL, training, checkpoint_dir=tmp_path / "killed", progress=progress)
    again = train_committee(few, SMALL, training, checkpoint_dir=tmp_path / "killed")
    assert torch.equal(again.core.weights, committee.core.weights)


def test_no_cool_down_before_energies_weigh_fully(labelled: list[Atoms], tmp_path: Path) -> None:
    few = [*labelled[:4], *(labelled[i] for i in held_out_of(labelled))]
    training = OVERFITTING.model_copy(update={"validation_from": 2, "max_epochs": 60})
    first = {}
    for ramp in (0.0, 0.6):
        folder = tmp_path / str(ramp)
        train_committee(few, SMALL, training.model_copy(update={"energy_ramp": ramp}), checkpoint_dir=folder)
        first[ramp], _, _ = read_tensors(folder / "training.ckpt", "alflow training", (VERSION,))["cooling"]
    assert first[0.0] < 0.6 * 60 <= first[0.6]  # one step an epoch


def soft(square: Any) -> Any:
    """x² below half a target, linear beyond, written out again."""
    return 0.5 * (np.sqrt(1 + 4 * square) - 1)


def test_the_mean_of_the_members_is_judged(labelled: list[Atoms]) -> None:
    training = TrainingSpec(max_epochs=12, validate_every=4)
    committee = train_committee(labelled, SMALL, training, seed=3)
    report, targets = committee.report, committee.targets
    assert report is not None
    held_out = [labelled[i] for i in report.held_out]
    n_atoms = np.array([len(a) for a in held_out])
    voigt = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])

    def loss(energy: Any, forces: Any, stress: Any) -> float:
        off = (energy - [a.info["REF_energy"] for a in held_out]) / n_atoms / targets.energy
        pairs = zip(forces, held_out, strict=True)
        pull = np.concatenate([((f - a.arrays["REF_forces"]) ** 2).mean(1) for f, a in pairs]) / targets.force**2
        strain = np.array([s - a.info["REF_stress"] for s, a in zip(stress, held_out, strict=True)]) / targets.stress
        return float(
            training.energy_weight * soft(off**2).mean()
            + training.force_weight * soft(pull).mean()
            + training.stress_weight * soft((strain[:, *voigt] ** 2).mean(1)).mean()
        )

    p = committee.predict(held_out)
    assert p.stress is not None
    assert p.stress_mean is not None
    best = min(found for _, _, found in report.history if found is not None)
    assert best == pytest.approx(loss(p.energy_mean, p.force_mean, p.stress_mean), rel=1e-6)
    members = [loss(p.energy[k], [f[k] for f in p.forces], p.stress[k]) for k in range(3)]
    assert best < 0.999 * np.mean(members)


def held_out_of(labelled: list[Atoms]) -> list[int]:
    report = train_committee(labelled, SMALL, TrainingSpec(max_epochs=1)).report
    assert report is not None
    return list(report.held_out)


def test_bootstrap_weights_from_a_size_on(labelled: list[Atoms]) -> None:
    plain = train_committee(labelled, SMALL, TrainingSpec(max_epochs=1))
    drawn = train_committee(labelled, SMALL, TrainingSpec(max_epochs=1, bootstrap_from=24))
    assert plain.report is not None
    assert drawn.report is not None
    held_out = list(plain.report.held_out)
    learned = np.setdiff1d(np.arange(24), held_out)
    assert (plain.report.member_weights[:, learned] == 1.0).all()
    for report in (plain.report, drawn.report):
        assert (report.member_weights[:, held_out] == 0.0).all()
        np.testing.assert_allclose(report.member_weights[:, learned].mean(axis=1), 1.0)
    assert len(np.unique(drawn.report.member_weights[:, learned])) == 3 * len(learned)


def test_warm_start_goes_on_where_the_earlier_committee_stood(labelled: list[Atoms]) -> None:
    first = train_committee(labelled[:16], SMALL, TrainingSpec(max_epochs=60), seed=1)
    training = TrainingSpec(max_epochs=8)
    warm = train_committee(labelled, SMALL, training, initial=first, seed=2)
    cold = train_committee(labelled, SMALL, training, seed=2)
    assert warm.report is not None
    assert cold.report is not None
    assert "started from the weights" in warm.report.warm_start
    assert cold.report.warm_start == ""
    assert warm.report.train.force_mae is not None
    assert cold.report.train.force_mae is not None
    assert warm.report.train.force_mae < 0.7 * cold.report.train.force_mae
    assert (warm.predict(labelled).energy_spread > 0).all()


def test_warm_start_with_a_new_element_keeps_what_was_known(tmp_path: Path) -> None:
    nickel = [label(Atoms("Ni", cell=a.cell, pbc=True)) for a in cells(10) if len(a) == 1]
    nickel += [label(a) for a in cells(10, 5) if set(a.symbols) == {"Ni"}]
    first = train_committee(nickel, SMALL, TrainingSpec(max_epochs=5))
    both = [label(a) for a in cells(12, 9)]
    warm = train_committee(both, SMALL, TrainingSpec(max_epochs=1, warm_learning_rate=1e-12), initial=first)
    assert warm.elements == ("Ni", "Pt")
    assert warm.report is not None
    assert "Pt new" in warm.report.warm_start
    np.testing.assert_allclose(warm.predict(nickel).energy, first.predict(nickel).energy, atol=1e-6)
    warm.save(tmp_path / "warm.pt")
    np.testing.assert_array_equal(load_committee(tmp_path / "warm.pt").predict(both).energy, warm.predict(both).energy)


def test_a_warm_start_moves_to_the_zero_of_the_labels(labelled: list[Atoms], committee: NativeCommittee) -> None:
    """Other pseudopotentials, and a new element whose reference cannot be told from the new data alone."""
    moved = [a.copy() for a in labelled]
    for atoms in moved:
        atoms.info["REF_energy"] += float((atoms.numbers == 28).sum()) * -50.0
    still = TrainingSpec(max_epochs=1, warm_learning_rate=1e-12)
    warm = train_committee(moved, SMALL, still, initial=committee)
    assert warm.report is not None
    assert "its zero of energy was moved to that of the labels (Ni by -" in warm.report.warm_start
    np.testing.assert_allclose(warm.core.references - committee.core.references, [-50.0, 0.0], atol=1.0)
    same = train_committee(labelled, SMALL, still, initial=committee)
    np.testing.assert_array_equal(same.core.references, committee.core.references)
    assert same.report is not None
    assert same.report.warm_start == "started from the weights of the earlier committee"

    nickel = [label(a) for a in cells(60, 5) if set(a.symbols) == {"Ni"}]
    alloys = [label(a) for a in cells(40, 9) if set(a.symbols) == {"Ni", "Pt"}]
    for atoms in (*nickel, *alloys):
        atoms.info["REF_energy"] += (
            float((atoms.numbers == 28).sum()) * -4600 + float((atoms.numbers == 78).sum()) * -2800
        )
    first = train_committee(nickel, SMALL, TrainingSpec(max_epochs=5))
    both = train_committee(alloys, SMALL, still, initial=first)
    p = both.predict(alloys)
    off = (p.energy_mean - [a.info["REF_energy"] for a in alloys]) / p.n_atoms
    assert np.abs(off).max() < 3.0
    np.testing.assert_allclose(both.predict(nickel).energy, first.predict(nickel).energy, atol=1e-6)


def test_a_warm_start_learns_of_an_isolated_atom(labelled: list[Atoms], committee: NativeCommittee) -> None:
    lonely = Atoms("Ni", cell=[20.0] * 3, pbc=True, info={"REF_energy": 4.2})
    still = TrainingSpec(max_epochs=1, warm_learning_rate=1e-12)
    warm = train_committee([*labelled, lonely], SMALL, still, initial=committee)
    np.testing.assert_allclose(warm.predict([lonely]).energy, 4.2, atol=1e-9)
    assert warm.core.constants.cohesion[0] == pytest.approx(committee.core.references[0] - 4.2)


def test_warm_start_from_another_shape_starts_from_scratch(labelled: list[Atoms], committee: NativeCommittee) -> None:
    other = SMALL.model_copy(update={"channels": 4})
    trained = train_committee(labelled, other, TrainingSpec(max_epochs=1), initial=committee)
    assert trained.report is not None
    assert trained.report.warm_start == "started from scratch: the earlier committee has another channels"
    assert torch.equal(weights(trained), weights(train_committee(labelled, other, TrainingSpec(max_epochs=1))))


def test_energies_alone_are_enough() -> None:
    train = []
    for atoms in cells(6):
        atoms.info["REF_energy"] = label(atoms).info["REF_energy"]
        train.append(LabelledStructure.from_atoms(atoms))
    committee = train_committee(train, SMALL, TrainingSpec(max_epochs=2))
    assert committee.report is not None
    assert committee.report.train.force_mae is None
    assert committee.report.train.stress_mae is None


def test_ideal_crystals_without_forces_can_be_learned() -> None:
    train = [label(a) for a in cells(10) if len(a) == 1]
    committee = train_committee(train, SMALL, TrainingSpec(max_epochs=3))
    assert np.isfinite(committee.predict(train).energy).all()


def test_targets_are_kept(labelled: list[Atoms]) -> None:
    targets = Targets(energy=0.02, force=0.3)
    committee = train_committee(labelled[:5], SMALL, TrainingSpec(max_epochs=1), targets=targets)
    assert committee.targets == targets
    p = committee.predict(labelled[:5])
    ratios = [p.energy_spread / 0.02, p.force_spread / 0.3, p.stress_spread / targets.stress]
    np.testing.assert_allclose(p.u, np.max(ratios, axis=0))


def test_refuses_what_would_spoil_it(labelled: list[Atoms]) -> None:
    with pytest.raises(PotentialError, match="nothing to train on"):
        train_committee([])
    with pytest.raises(PotentialError, match="same"):
        train_committee([*labelled[:3], labelled[1]])
    broken = labelled[0].copy()
    broken.info["REF_energy"] = float("nan")
    with pytest.raises(StructureError, match="finite"):
        train_committee([broken])
    with pytest.raises(StructureError, match="no labels"):
        train_committee(cells(1))
    example = LabelledStructure.from_atoms(labelled[4])
    forces = np.array(example.properties.forces)
    forces[0, 0] = np.inf
    bad = LabelledStructure(structure=example.structure, properties=type(example.properties)(energy=1.0, forces=forces))
    with pytest.raises(PotentialError, match="forces is not finite"):
        train_committee([bad])
