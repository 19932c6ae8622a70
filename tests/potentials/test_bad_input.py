"""Bad input gives one clear error each: what, where and how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from alflow.errors import AlflowError, CheckpointError, PotentialError, StructureError, TheoryError
from alflow.potentials import NativeCommittee, TrainingSpec, load_committee, train_committee
from alflow.structures import LabelledStructure, Properties, Structure
from tests.potentials.conftest import SMALL, cells, label

TINY = SMALL.model_copy(update={"channels": 4, "l_max": 1, "l_product": 0, "n_members": 2})


def train(*examples: Any) -> NativeCommittee:
    return train_committee(list(examples), TINY, TrainingSpec(max_epochs=1))


def cell(index: int = 3) -> Atoms:
    """A labelled cell of Ni2Pt2."""
    return label(cells(4)[index])


def labelled(**properties: Any) -> LabelledStructure:
    return LabelledStructure(structure=Structure.from_atoms(cell()), properties=Properties(**properties))


def changed(change: Callable[[Atoms], object]) -> Atoms:
    atoms = cell()
    change(atoms)
    return atoms


def put(name: str, value: Any) -> Callable[[Atoms], object]:
    return lambda atoms: atoms.info.__setitem__(name, value)


def dimer(distance: float, **info: float) -> Atoms:
    return Atoms("Ni2", positions=[[0, 0, 0], [0, 0, distance]], info=info)


def nan_position(atoms: Atoms) -> None:
    atoms.positions[0, 1] = np.nan


SKEW = np.zeros((3, 3))
SKEW[0, 1] = 0.3

LABELS: dict[str, tuple[Callable[[], Any], type[AlflowError], str]] = {
    "nan position": (lambda: changed(nan_position), StructureError, "training structure 1.*finite"),
    "overlap": (lambda: dimer(0.05, REF_energy=900.0), PotentialError, r"structure 1 \(Ni2\): atoms . and . overlap"),
    "same place": (lambda: dimer(0.0, REF_energy=0.0), PotentialError, r"structure 1 \(Ni2\): atoms . and . sit"),
    "no energy": (lambda: cells(1)[0], StructureError, "structure 1.*carries no labels.*REF_energy"),
    "energy is text": (lambda: changed(put("REF_energy", "low")), StructureError, "energy is 'low'"),
    "energies": (lambda: changed(put("REF_energy", np.zeros(4))), StructureError, r"energy has shape \(4,\)"),
    "energy in other units": (lambda: changed(put("REF_energy", -1e9)), PotentialError, "is it in eV"),
    "stress of four": (lambda: changed(put("REF_stress", np.zeros(4))), StructureError, r"stress has shape \(4,\)"),
    "stress is text": (lambda: changed(put("REF_stress", "a b")), StructureError, "stress is 'a b'"),
    "stress is skew": (lambda: changed(put("REF_stress", SKEW)), PotentialError, "stress is not symmetric"),
    "no energy in properties": (lambda: labelled(energy=None), PotentialError, "energy is None"),
    "nan energy": (lambda: labelled(energy=float("nan")), PotentialError, r"structure 1 \(Ni2Pt2\): energy is not"),
    "flat forces": (lambda: labelled(energy=1.0, forces=np.zeros(12)), PotentialError, r"shape \(12,\), not \(4, 3\)"),
    "few forces": (lambda: labelled(energy=1.0, forces=np.zeros((3, 3))), PotentialError, r"shape \(3, 3\), not \(4"),
    "stress of 2 x 3": (lambda: labelled(energy=1.0, stress=np.zeros((2, 3))), PotentialError, r"stress has shape \(2"),
    "a path": (lambda: "train.xyz", PotentialError, "structure 1 is a str"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_refused(name: str) -> None:
    bad, kind, message = LABELS[name]
    with pytest.raises(kind, match=message):
        train(cell(2), bad())


def test_an_empty_training_set_and_a_single_structure() -> None:
    with pytest.raises(PotentialError, match="nothing to train on"):
        train()
    with pytest.raises(PotentialError, match="a list"):
        train_committee(cell())
    one = train(cell())
    assert one.report is not None
    assert one.report.n_train == 1
    assert np.isfinite(one.predict([cell()]).energy).all()


def test_energies_and_forces_have_one_naming() -> None:
    """One of them would be left aside without a word."""
    half = cell()
    half.calc = SinglePointCalculator(half, forces=half.arrays.pop("REF_forces"))
    with pytest.raises(StructureError, match="REF_energy and forces are named in two ways"):
        LabelledStructure.from_atoms(half)
    half = cell()
    half.calc = SinglePointCalculator(half, energy=half.info.pop("REF_energy"))
    with pytest.raises(StructureError, match="energy and REF_forces are named in two ways"):
        LabelledStructure.from_atoms(half)
    both = cell()
    both.calc = SinglePointCalculator(both, energy=1.0, forces=np.zeros((4, 3)))  # of an earlier relaxation, say
    assert LabelledStructure.from_atoms(both).properties.energy == both.info["REF_energy"]


def test_a_cutoff_within_the_repulsion_is_refused() -> None:
    caesium = Atoms("Cs2", positions=[[0, 0, 0], [0, 0, 2.5]], info={"REF_energy": 1.0})
    short = TINY.model_copy(update={"r_max": 3.0})
    with pytest.raises(PotentialError, match=r"r_max is 3 Å, but atoms of Cs repel each other up to 3\.66 Å"):
        train_committee([caesium], short)


def test_labels_of_two_theories_do_not_mix() -> None:
    def of(theory: str | None, index: int) -> LabelledStructure:
        atoms = cell(index)
        if theory is not None:
            atoms.info["alflow_theory_fingerprint"] = theory
        return LabelledStructure.from_atoms(atoms)

    assert LabelledStructure.from_atoms(of("first", 1).to_atoms()).theory == "first"
    with pytest.raises(TheoryError, match=r"structures 0 and 2 .* two theories \(first and second"):
        train(of("first", 0), of(None, 1), of("second", 2))
    train(of("first", 0), of(None, 1), of("first", 2))


def test_predictions_of_the_impossible(committee: NativeCommittee) -> None:
    broken = changed(nan_position)
    for given, kind, message in (
        ([cell(), broken], StructureError, r"structure 1 \(Ni2Pt2\).*finite"),
        ([Atoms("Ni", cell=np.full((3, 3), np.nan), pbc=True)], StructureError, "finite"),
        ([Atoms("Ni", cell=np.zeros((3, 3)), pbc=True)], StructureError, "linearly dependent"),
        ([Atoms("Ni", cell=[0.01] * 3, pbc=True)], StructureError, "neighbours.*check the cell"),
        ([Atoms("Ni", cell=[0.01, 0.01, 9], pbc=[1, 1, 0])], StructureError, "Å².*check the cell"),
        ([dimer(0.0)], StructureError, "Ni2: atoms 0 and 1 sit on the same place"),
        ([bulk("Cu"), cell()], PotentialError, "nothing of Cu"),
        ([Atoms()], StructureError, "at least one atom"),
        ([7], PotentialError, "structure 0 is of type int"),
        (cell(), PotentialError, "a list of structures"),
    ):
        with pytest.raises(kind, match=message):
            committee.predict(given)
    assert committee.predict([]).energy.shape == (committee.n_members, 0)


def test_near_atoms_repel_without_end(committee: NativeCommittee) -> None:
    p = committee.predict([dimer(d) for d in (2e-3, 1e-2, 0.1)])
    assert (np.diff(p.energy, axis=1) < 0).all()
    assert all((f[:, 0, 2] < -1e4).all() for f in p.forces)


def test_what_moves_must_stay_finite(committee: NativeCommittee) -> None:
    structure = Structure.from_atoms(cell())
    evaluate = committee.evaluator([structure])
    positions, lattice = structure.positions, structure.cell
    evaluate([positions], lattice[None])
    for moved, box, message in (
        (
            np.where(np.arange(4)[:, None] == 1, np.inf, positions),
            lattice,
            "positions with numbers that are not finite",
        ),
        (positions, np.full((3, 3), np.nan), "cell with numbers that are not finite"),
        (positions, np.zeros((3, 3)), "linearly dependent"),
        (positions[:2], lattice, r"positions of shape \(2, 3\), not \(4, 3\)"),
        (positions[[1, 1, 2, 3]], lattice, "same place"),
    ):
        with pytest.raises(StructureError, match=message):
            evaluate([moved], box[None])


def test_a_calculator_notices_dynamics_that_exploded(committee: NativeCommittee) -> None:
    atoms = cell()
    atoms.calc = committee.calculator()
    atoms.get_potential_energy()
    atoms.positions[2] = np.nan
    with pytest.raises(StructureError, match=r"Ni2Pt2: positions.*timestep"):
        atoms.get_forces()


def test_atoms_that_met_since_the_last_search_are_noticed(committee: NativeCommittee) -> None:
    atoms = dimer(0.5)
    atoms.calc = committee.calculator()
    atoms.get_potential_energy()
    atoms.positions[1] -= [0, 0, 0.25]
    atoms.positions[0] += [0, 0, 0.25]
    with pytest.raises(StructureError, match="same place"):
        atoms.get_potential_energy()
    assert atoms.calc._moving[2].n_searches == 1


def test_a_changed_checkpoint_is_noticed(committee: NativeCommittee, tmp_path: Path) -> None:
    path = tmp_path / "committee.pt"
    committee.save(path)
    content = torch.load(path, weights_only=True)
    content["weights"][0, 0] += 1e-6
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"committee\.pt is damaged.*hash"):
        load_committee(path)


def test_flipped_bits_never_change_a_committee(committee: NativeCommittee, tmp_path: Path) -> None:
    path = tmp_path / "committee.pt"
    committee.save(path)
    whole, noticed = path.read_bytes(), 0
    for position in np.random.default_rng(0).integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(bytes(damaged))
        try:
            read = load_committee(path)
        except CheckpointError:
            noticed += 1
            continue
        assert isinstance(read, NativeCommittee)
        assert torch.equal(read.core.weights, committee.core.weights)
        assert (read.core.references == committee.core.references).all()
    assert noticed > 20  # the others hit padding
