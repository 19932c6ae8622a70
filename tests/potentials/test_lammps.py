"""LAMMPS without LAMMPS: what ML-IAP would hand over, made from periodic images, against the ASE calculator."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray

from alflow.errors import PotentialError
from alflow.potentials import (
    CommitteeSpec,
    MliapCommittee,
    NativeCommittee,
    TrainingSpec,
    export_lammps,
    train_committee,
)
from alflow.potentials._engine import PlainEngine
from tests.potentials.conftest import SMALL, cells, label, odd_ones

FloatArray = NDArray[np.float64]


class Process:
    """The part of a structure that one process of LAMMPS holds, as ML-IAP's data object.

    Locals come first, then every image of every atom within `cutoff` of a local atom.
    """

    def __init__(self, atoms: Atoms, local: list[int], elements: tuple[str, ...], cutoff: float) -> None:
        widths = 1 / np.linalg.norm(np.linalg.pinv(atoms.cell.array), axis=0) if atoms.pbc.any() else np.ones(3)
        extent = np.ptp(atoms.get_scaled_positions(wrap=False), axis=0) if atoms.pbc.any() else np.zeros(3)
        counts = [int(np.ceil(cutoff / w + e)) if p else 0 for w, e, p in zip(widths, extent, atoms.pbc, strict=True)]
        place, owner = [atoms.positions[local]], [np.array(local)]
        for shift in np.ndindex(*(2 * n + 1 for n in counts)):
            image = np.array(shift) - counts
            moved = atoms.positions + image @ atoms.cell.array
            distance = np.linalg.norm(moved[:, None] - atoms.positions[local], axis=2)
            near = distance.min(1) < cutoff
            if not image.any():
                near[local] = False
            place.append(moved[near])
            owner.append(np.flatnonzero(near))
        self.place, self.owner = np.concatenate(place), np.concatenate(owner)
        vectors = self.place[None] - self.place[: len(local), None]
        distance = np.linalg.norm(vectors, axis=2)
        distance[np.arange(len(local)), np.arange(len(local))] = np.inf
        i, j = np.nonzero(distance < cutoff)
        symbols = atoms.get_chemical_symbols()
        self.data = SimpleNamespace(
            nlistatoms=len(local),
            npairs=len(i),
            vflag=2,
            iatoms=np.arange(len(local), dtype=np.int32),
            elems=np.array([elements.index(symbols[k]) for k in self.owner], dtype=np.int32),
            f=np.zeros((len(self.owner), 3)),
            energy=np.nan,
        )
        if len(i):  # LAMMPS has no arrays of no length
            self.data.pair_i, self.data.pair_j = i.astype(np.int32), j.astype(np.int32)
            self.data.rij = vectors[i, j]


def run(committee: NativeCommittee, atoms: Atoms, parts: list[list[int]]) -> tuple[float, FloatArray, FloatArray]:
    """Energy, forces and virial as LAMMPS adds them up from its processes."""
    model = MliapCommittee(committee)
    energy, forces, virial = 0.0, np.zeros((len(atoms), 3)), np.zeros((3, 3))
    for local in parts:
        process = Process(atoms, local, committee.elements, 2 * model.rcutfac)
        model.compute_descriptors(process.data)
        model.compute_gradients(process.data)
        model.compute_forces(process.data)
        assert process.data.energy == pytest.approx(process.data.eatoms.sum())
        energy += process.data.energy
        np.add.at(forces, process.owner, process.data.f)
        virial += process.place.T @ process.data.f
    return energy, forces, virial


def agrees(committee: NativeCommittee, atoms: Atoms, parts: list[list[int]], tolerance: float = 1e-9) -> None:
    energy, forces, virial = run(committee, atoms, parts)
    atoms.calc = committee.calculator()
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=tolerance)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=tolerance)
    if atoms.pbc.all():
        stress = -0.5 * (virial + virial.T) / atoms.get_volume()
        np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), atol=tolerance)


def test_equals_the_calculator_on_small_cells_and_odd_structures(committee: NativeCommittee) -> None:
    for atoms in [*cells(5, 4), *odd_ones()]:
        agrees(committee, atoms, [list(range(len(atoms)))])


def test_processes_add_up(committee: NativeCommittee) -> None:
    for atoms in odd_ones()[:6]:
        n = len(atoms)
        agrees(committee, atoms, [list(range(0, n, 2)), list(range(1, n, 2))] if n > 1 else [[0]])
        agrees(committee, atoms, [[k] for k in range(n)])


@pytest.mark.parametrize("changes", [{"n_layers": 1}, {"dtype": "float32"}, {"n_members": 1, "repulsion": False}])
def test_equals_the_calculator_for_other_networks(changes: dict[str, object], labelled: list[Atoms]) -> None:
    spec = CommitteeSpec.model_validate({**SMALL.model_dump(), **changes})
    other = train_committee(labelled[:8], spec, TrainingSpec(max_epochs=1), seed=1)
    tolerance = 1e-9 if spec.dtype == "float64" else 1e-5
    for atoms in (cells(4, 9)[3], odd_ones()[4]):
        n = len(atoms)
        agrees(other, atoms, [list(range(n // 2)), list(range(n // 2, n))], tolerance)


def test_plain_network_owns_the_same_atoms(committee: NativeCommittee, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFLOW_KERNELS", "off")
    plain = replace(committee, core=replace(committee.core))
    assert isinstance(plain.core.engine, PlainEngine)
    agrees(plain, odd_ones()[0], [[0, 1], [2, 3]])


def test_many_elements() -> None:
    symbols = ["Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"]
    rng = np.random.default_rng(5)
    train = []
    for k in range(8):
        atoms = bulk("Cu", a=3.8) * (2, 2, 1)
        atoms.set_chemical_symbols([symbols[(k + i) % 7] for i in range(4)])
        atoms.rattle(0.1, rng=rng)
        train.append(label(atoms))
    committee = train_committee(train, SMALL, TrainingSpec(max_epochs=1), seed=1)
    agrees(committee, train[3].copy(), [[0, 3], [1, 2]])


def test_exported_file_is_the_committee(committee: NativeCommittee, tmp_path: Path) -> None:
    path = tmp_path / "ni-pt.mliap"
    text = export_lammps(committee, path)
    assert f"pair_style      mliap unified {path} 0" in text
    assert "pair_coeff      * * Ni Pt" in text
    model = pickle.loads(path.read_bytes())
    assert model.element_types == ["Ni", "Pt"]
    assert 2 * model.rcutfac == 2 * committee.r_max
    atoms = cells(4, 6)[3]
    ours, theirs = run(committee, atoms, [[0, 1, 2, 3]]), run(model.committee, atoms, [[0, 1, 2, 3]])
    assert ours[0] == theirs[0]
    assert list(tmp_path.iterdir()) == [path]


def test_bad_requests_are_refused(committee: NativeCommittee, tmp_path: Path) -> None:
    with pytest.raises(PotentialError, match=r"call it .*ni\.mliap"):
        export_lammps(committee, tmp_path / "ni.pt")
    model = MliapCommittee(committee)
    process = Process(cells(1)[0], [0], committee.elements, 2 * model.rcutfac)
    process.data.vflag = 6
    with pytest.raises(PotentialError, match="no stress per atom"):
        model.compute_forces(process.data)
    process.data.vflag = 2
    process.data.elems[0] = -1
    with pytest.raises(PotentialError, match="stands for no element"):
        model.compute_forces(process.data)
    empty = SimpleNamespace(nlistatoms=0, npairs=0, vflag=2, energy=3.0)
    model.compute_forces(empty)
    assert empty.energy == 0.0
