"""A run on published data: too long for every day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from alflow.potentials import CommitteeSpec, TrainingSpec, train_committee


def load(folder: Path, name: str) -> list[Atoms]:
    path = folder / "mlearn" / name
    if not path.is_file():
        pytest.skip(f"no {path}: the data of Zuo et al. (2020) are not here")
    frames = read(path, ":", format="extxyz")
    assert isinstance(frames, list)
    for atoms in frames:
        atoms.calc = None
    return frames


@pytest.mark.slow
def test_silicon_of_zuo_et_al(shared_data: Path) -> None:
    train, test = (load(shared_data, f"Si_{part}.xyz.gz") for part in ("training", "test"))
    training = TrainingSpec(cpu_seconds=600, batch_size=4)
    committee = train_committee(train, CommitteeSpec(), training)
    p = committee.predict(test)
    energy = (p.energy_mean - np.array([a.info["REF_energy"] for a in test])) / p.n_atoms
    labels = [a.arrays["REF_forces"] for a in test]
    force = np.concatenate([(f - g).ravel() for f, g in zip(p.force_mean, labels, strict=True)])
    # The published SNAP reaches 6.4 meV/atom and 133 meV/Å.
    assert np.abs(energy).mean() < 6.4e-3
    assert np.abs(force).mean() < 0.1
