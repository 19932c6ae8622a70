"""train and eval, without a ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from alflow.labelers import get_labeler
from alflow.potentials import load_committee
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


def test_wrong_data_and_settings_are_named(alflow: Run, data: list[LabelledStructure]) -> None:
    write("bare.extxyz", [example.structure.to_atoms() for example in data], format="extxyz")
    found = alflow("train", "data.extxyz", "bare.extxyz", "-o", "model", code=1)
    assert "bare.extxyz, frame 0" in found.stderr
    assert "REF_energy" in found.stderr
    assert "n_members" in alflow("train", "data.extxyz", "-o", "model", "-k", "0", code=1).stderr
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
