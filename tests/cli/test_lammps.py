"""Committees as files for LAMMPS."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from alflow.potentials import CommitteeSpec, TrainingSpec, train_committee

if TYPE_CHECKING:
    from tests.cli.conftest import Run


@pytest.fixture
def model(alflow: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a committee for Cu and Au."""
    monkeypatch.setenv("ALFLOW_KERNELS", "off")
    train = []
    for k in range(4):
        atoms = bulk("Cu", a=3.7 + 0.02 * k, cubic=True)
        atoms.symbols[0] = "Au"
        atoms.rattle(0.05, seed=k)
        atoms.calc = EMT()
        atoms.get_potential_energy(), atoms.get_forces()
        train.append(atoms)
    spec = CommitteeSpec(channels=4, l_max=1, n_radial=4, hidden=4, n_members=2)
    train_committee(train, spec, TrainingSpec(max_epochs=1)).save("model")
    return Path("model")


def test_writes_a_file_and_prints_the_input(alflow: Run, model: Path) -> None:
    printed = alflow("lammps", str(model), "--output", "model.mliap").stdout
    assert "pair_style      mliap unified model.mliap 0\n" in printed
    assert "pair_coeff      * * Cu Au\n" in printed
    assert pickle.loads(Path("model.mliap").read_bytes()).element_types == ["Cu", "Au"]
    record = alflow("lammps", str(model), "-o", "model.mliap", "--force", "--json").json()
    assert record["elements"] == ["Cu", "Au"]
    assert record["input"] == printed.splitlines()
    spaced = alflow("lammps", str(model), "-o", "my model.mliap").stdout
    assert 'pair_style      mliap unified "my model.mliap" 0' in spaced


def test_wrong_names_are_refused(alflow: Run, model: Path) -> None:
    refused = alflow("lammps", str(model), "--output", "model.pt", code=1)
    assert "call it model.mliap" in refused.stderr
    refused = alflow("lammps", str(model), "--output", "nowhere/model.mliap", code=1)
    assert "create it first" in refused.stderr
    refused = alflow("lammps", "absent", "--output", "model.mliap", code=1)
    assert "no checkpoint at absent" in refused.stderr
