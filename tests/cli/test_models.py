"""train and eval, without a ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from alflow.errors import PotentialError
from alflow.labelers import get_labeler
from alflow.potentials import NativeCommittee, load_committee
from alflow.structures import LabelledStructure

if TYPE_CHECKING:
    from tests.cli.conftest import Run


@pytest.fixture
def data(alflow: Run) -> list[LabelledStructure]:
    """Write ten labelled structures to data.extxyz."""
    emt, examples = get_labeler("emt"), []
    for i in range(10):
        atoms = bulk("Cu", "fcc", a=3.45 + 0.03 * i, cubic=True)
        atoms.rattle(0.06, seed=i)
        result = emt.label(atoms)
        examples.append(LabelledStructure(structure=result.structure, properties=result.properties))
    write("data.extxyz", [example.to_atoms() for example in examples], format="extxyz")
    return examples


def test_train_then_eval(alflow: Run, data: list[LabelledStructure]) -> None:
    trained = alflow("train", "data.extxyz", "--output", "model", "-k", "2", "--epochs", "2", "--json")
    record = trained.json()
    assert (record["structures"], record["epochs"]) == (10, 2)
    assert record["train"]["energy_mae"] > 0
    assert not Path("model.training").exists()
    assert "alflow eval model" in trained.stderr

    found = alflow("eval", "model", "data.extxyz", "--json").json()
    committee = load_committee("model")
    prediction = committee.predict([example.structure for example in data])
    energies = [abs(prediction.energy_mean[i] - e.properties.energy) / 4 for i, e in enumerate(data)]
    assert found["energy"]["mae"] == pytest.approx(np.mean(energies), rel=1e-4)
    forces = [prediction.force_mean[i] - np.asarray(e.properties.forces) for i, e in enumerate(data)]
    assert found["force"]["mae"] == pytest.approx(np.abs(forces).mean(), rel=1e-4)
    assert found["force"]["rmse"] == pytest.approx(np.sqrt(np.square(forces).mean()), rel=1e-4)
    assert (found["n_structures"], found["n_atoms"], found["n_members"]) == (10, 40, 2)
    assert found["stress"]["n"] == 90
    text = alflow("eval", "model", "data.extxyz").stdout
    assert "2 members on 10 structures, 40 atoms" in text
    assert "meV/atom" in text


def test_train_goes_on_from_a_committee(alflow: Run, data: list[LabelledStructure]) -> None:
    alflow("train", "data.extxyz", "-o", "first", "-k", "2", "-e", "1", "-q")
    text = alflow("train", "data.extxyz", "-o", "second", "-k", "2", "-e", "1", "-i", "first").stdout
    assert "start" in text
    assert Path("second").exists()


def test_a_start_that_would_be_left_aside_is_refused(alflow: Run, data: list[LabelledStructure]) -> None:
    alflow("train", "data.extxyz", "-o", "first", "-k", "2", "-e", "1", "-q")
    found = alflow("train", "data.extxyz", "-o", "second", "-k", "3", "-i", "first", code=1).stderr
    assert "cannot start from first, which has n_members 2 (wanted: 3)" in found
    # without --members the shape is that of the earlier committee
    assert alflow("train", "data.extxyz", "-o", "second", "-e", "1", "-i", "first", "--json").json()["warm_start"]
    assert load_committee("second").n_members == 2


def test_an_existing_file_is_not_replaced_unasked(alflow: Run, data: list[LabelledStructure]) -> None:
    alflow("train", "data.extxyz", "-o", "model", "-k", "2", "-e", "1", "-q")
    before = Path("model").read_bytes()
    assert "exists already" in alflow("train", "data.extxyz", "-o", "model", "-k", "1", code=1).stderr
    assert Path("model").read_bytes() == before
    alflow("train", "data.extxyz", "-o", "model", "-k", "1", "-e", "1", "-q", "--force")
    assert load_committee("model").n_members == 1
    Path("folder").mkdir()
    assert "is a folder" in alflow("train", "data.extxyz", "-o", "folder", code=1).stderr
    assert "is a folder" in alflow("lammps", "model", "-o", "folder", code=1).stderr
    assert "exists already" in alflow("lammps", "model", "-o", "data.extxyz", code=1).stderr


def test_the_folder_of_a_training_holds_nothing_else(
    alflow: Run, data: list[LabelledStructure], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints of this very training are continued; data of others are neither used nor removed."""
    Path("model.training").mkdir()
    Path("model.training/mine.txt").write_text("years of work")
    train = ("train", "data.extxyz", "-o", "model", "-k", "1", "-e", "3")
    assert "model.training is in the way" in alflow(*train, code=1).stderr
    assert Path("model.training/mine.txt").read_text() == "years of work"
    Path("model.training").rename("elsewhere")
    Path("model.training").mkdir()
    Path("model.training/call.json").write_text("[]")
    assert "model.training is in the way" in alflow(*train, code=1).stderr
    Path("model.training/call.json").unlink()  # empty, as a kill at its first moment leaves it: no hindrance

    def stop(self: NativeCommittee, path: Path) -> None:
        raise PotentialError("the machine is switched off")

    with monkeypatch.context() as patch:
        patch.setattr(NativeCommittee, "save", stop)
        alflow(*train, code=1)
    assert Path("model.training/training.ckpt").is_file()
    other = alflow("train", "data.extxyz", "-o", "model", "-k", "1", "-e", "4", code=1).stderr
    assert "unfinished training of other settings: repeat its command to continue it" in " ".join(other.split())
    Path("model.training/notes.txt").write_text("mine")
    assert "continuing from model.training" in alflow(*train).stderr
    assert [p.name for p in Path("model.training").iterdir()] == ["notes.txt"]


def test_labels_are_told_and_copies_left_out(alflow: Run, data: list[LabelledStructure]) -> None:
    """What a person needs to see whether the file says what was meant."""
    frames = []
    for example in data:
        atoms = example.to_atoms()
        atoms.info["REF_virial"] = -atoms.info.pop("REF_stress") * atoms.get_volume()
        atoms.info["dft_virial6"] = np.ones(6)
        atoms.info["virial"] = np.eye(3)  # not read beside REF_energy
        frames.append(atoms)
    write("virials.extxyz", frames, format="extxyz")
    train = ("train", "virials.extxyz", "virials.extxyz", "-o", "model", "-k", "1", "-e", "1")
    found = alflow(*train, "--json")
    labels = found.json()["labels"]
    assert (labels["n_energy"], labels["n_forces"], labels["n_stress"]) == (10, 10, 10)
    assert labels["stress_max"] == pytest.approx(max(np.abs(np.asarray(e.properties.stress)).max() for e in data))
    assert labels["not_read"] == ["dft_virial6", "virial"]
    assert "10 copies of others left out" in found.stderr
    text = " ".join(alflow(*train, "--force").stdout.split())
    assert "10 energies" in text
    assert "not read: dft_virial6, virial" in text

    frames[3].info["REF_virial"] = frames[3].info["REF_virial"] + np.eye(3)
    write("other.extxyz", frames, format="extxyz")
    assert "labels that differ" in " ".join(
        alflow("train", *train[1:3], "other.extxyz", "-o", "x", code=1).stderr.split()
    )
    frames[3].info["REF_energy"] += 0.5
    write("other.extxyz", frames, format="extxyz")
    error = alflow("train", "virials.extxyz", "other.extxyz", "-o", "second", code=1).stderr
    error = " ".join(error.split())
    assert "virials.extxyz, frame 3 and other.extxyz, frame 3 are the same Cu4 with labels that differ" in error
    for atoms in frames:
        atoms.info["dft_energy"] = atoms.info.pop("REF_energy")
    write("named.extxyz", frames, format="extxyz")
    error = " ".join(alflow("train", "named.extxyz", "-o", "m", code=1).stderr.split())
    assert "(there are dft_energy, dft_virial6; --key energy=dft_energy reads one)" in error


def test_labels_by_other_names(alflow: Run, data: list[LabelledStructure]) -> None:
    frames = []
    for example in data:
        atoms = example.to_atoms()
        atoms.info = {
            "dft_energy": example.properties.energy,
            "dft_virial": -np.asarray(example.properties.stress) * atoms.get_volume(),
        }
        atoms.arrays["dft_force"] = atoms.arrays.pop("REF_forces")
        frames.append(atoms)
    write("gap.extxyz", frames, format="extxyz")
    keys = ("--key", "energy=dft_energy", "--key", "forces=dft_force", "--key", "virial=dft_virial")
    labels = alflow("train", "gap.extxyz", "-o", "model", "-k", "1", "-e", "1", "--json", *keys).json()["labels"]
    assert (labels["n_energy"], labels["n_forces"], labels["n_stress"], labels["not_read"]) == (10, 10, 10, [])
    found = alflow("eval", "model", "gap.extxyz", "--json", *keys).json()
    same = alflow("eval", "model", "data.extxyz", "--json").json()
    assert found["stress"]["mae"] == pytest.approx(same["stress"]["mae"], rel=1e-6)
    assert found["force"]["mae"] == pytest.approx(same["force"]["mae"], rel=1e-6)
    for wrong, told in (
        ("energy:dft_energy", "write one of energy"),
        ("forces=dft_forces", "no structure has dft_forces"),
    ):
        error = alflow("eval", "model", "gap.extxyz", *keys[:2], "--key", wrong, code=1).stderr
        assert told in " ".join(error.split())


def test_wrong_data_and_settings_are_named(alflow: Run, data: list[LabelledStructure]) -> None:
    write("bare.extxyz", [example.structure.to_atoms() for example in data], format="extxyz")
    found = alflow("train", "data.extxyz", "bare.extxyz", "-o", "model", code=1)
    assert "bare.extxyz, frame 0" in found.stderr
    assert "REF_energy" in found.stderr
    assert "n_members" in alflow("train", "data.extxyz", "-o", "model", "-k", "0", code=1).stderr
    assert alflow("train", "data.extxyz", "-o", "model", "--seed", "-1", code=2).stderr
    assert "does not exist" in alflow("train", "data.extxyz", "-o", "no/model", code=1).stderr
    assert not Path("model").exists()


def test_eval_refuses_strange_elements_and_files(alflow: Run, data: list[LabelledStructure]) -> None:
    alflow("train", "data.extxyz", "-o", "model", "-k", "2", "-e", "1", "-q")
    nickel = bulk("Ni", "fcc", a=3.5)
    result = get_labeler("emt").label(nickel)
    other = LabelledStructure(structure=result.structure, properties=result.properties)
    write("nickel.extxyz", other.to_atoms(), format="extxyz")
    assert "the data hold Ni" in alflow("eval", "model", "nickel.extxyz", code=1).stderr
    assert alflow("eval", "data.extxyz", "data.extxyz", code=1).stderr.startswith("error: ")
