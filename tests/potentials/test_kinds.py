"""Kinds of potentials, and what is said where mace-torch is missing."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from alflow.errors import CheckpointError, ConfigError, PotentialError
from alflow.potentials import (
    CalculatorCommittee,
    CommitteeSpec,
    MaceSpec,
    NativeCommittee,
    Targets,
    TrainingSpec,
    load_committee,
    potential_kind,
)
from alflow.potentials._training_checkpoint import write_tensors
from alflow.potentials.mace import train_mace_committee
from alflow.structures import LabelledStructure


@pytest.fixture
def without_mace(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def no_mace(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "mace":
            raise ModuleNotFoundError("No module named 'mace'")
        return real(name, *rest)

    monkeypatch.setattr("alflow.potentials.mace._library.import_module", no_mace)


def test_the_native_kind_trains_and_loads(committee: NativeCommittee, labelled: list[Atoms], tmp_path: Path) -> None:
    kind = potential_kind("native")
    trained = kind.train(
        [LabelledStructure.from_atoms(a) for a in labelled],
        CommitteeSpec(channels=4, l_max=1),
        TrainingSpec(max_epochs=1),
        targets=Targets(),
        initial=None,
        seed=0,
        checkpoint_dir=None,
        progress=None,
        directory=tmp_path,
    )
    assert trained.report is not None
    trained.save(tmp_path / "a")
    for read in (kind.load(tmp_path / "a"), load_committee(tmp_path / "a")):
        np.testing.assert_array_equal(read.predict(labelled).energy, trained.predict(labelled).energy)


def test_an_earlier_committee_of_another_kind_is_told(labelled: list[Atoms], tmp_path: Path) -> None:
    trained = potential_kind("native").train(
        [LabelledStructure.from_atoms(a) for a in labelled[:4]],
        CommitteeSpec(channels=4, l_max=1, n_members=2),
        TrainingSpec(max_epochs=1),
        targets=Targets(),
        initial=CalculatorCommittee([EMT(), EMT()], ["Ni", "Pt"]),
        seed=0,
        checkpoint_dir=None,
        progress=None,
        directory=tmp_path,
    )
    assert trained.report is not None
    assert trained.report.warm_start == "started from scratch: the earlier committee is of another kind"


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match="nequip"):
        potential_kind("nequip")


@pytest.mark.usefixtures("without_mace")
def test_the_missing_extra_is_named(labelled: list[Atoms], tmp_path: Path) -> None:
    remedy = r"pip install 'alflow\[mace\]'"
    with pytest.raises(PotentialError, match=remedy):
        train_mace_committee(labelled[:3], MaceSpec(), TrainingSpec(steps=1))
    model = tmp_path / "big.model"
    model.write_bytes(b"not yet read")
    foundation = MaceSpec(foundation=model, trust_foundation=True)
    with pytest.raises(PotentialError, match=remedy):
        train_mace_committee(labelled[:3], foundation, TrainingSpec(steps=1))
    write_tensors(tmp_path / "c", {"format": "alflow mace committee", "version": 1})
    with pytest.raises(PotentialError, match=remedy):
        load_committee(tmp_path / "c")


def test_a_mace_file_of_another_version_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "c", {"format": "alflow mace committee", "version": 7})
    with pytest.raises(CheckpointError, match="version 7"):
        load_committee(tmp_path / "c")


def test_the_state_of_mace_says_whether_it_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    usable, text = potential_kind("mace").state(MaceSpec())
    assert usable is False
    assert "alflow[mace]" in text
