from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import make_supercell
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from scipy.spatial.transform import Rotation

from alflow.errors import ConfigError, FailureKind, LabelFailure
from alflow.labelers import Labeler, check_labeler, get_labeler
from alflow.structures import LabelledStructure, Structure


def close(actual: Any, expected: Any, atol: float) -> None:
    """Arrays that are there, and agree."""
    assert actual is not None
    assert expected is not None
    np.testing.assert_allclose(actual, expected, atol=atol)


def variants(alloy: Structure) -> list[LabelledStructure]:
    labeler = get_labeler("emt")
    made = []
    for seed in range(4):
        atoms = alloy.to_atoms()
        atoms.rattle(0.05, seed=seed)
        atoms.positions = atoms.positions.round(6)  # the file keeps eight digits
        atoms.cell = atoms.cell.array.round(6)
        made.append(labeler.label(atoms).labelled())
    return made


@pytest.fixture
def known(alloy: Structure, tmp_path: Path) -> list[LabelledStructure]:
    frames = variants(alloy)
    write(tmp_path / "known.extxyz", [f.to_atoms() for f in frames], format="extxyz")
    return frames


@pytest.fixture
def replay(known: list[LabelledStructure], tmp_path: Path) -> Labeler:
    return get_labeler("replay", {"path": "known.extxyz"}, directory=tmp_path)


def test_known_structures_get_their_labels(replay: Labeler, known: list[LabelledStructure]) -> None:
    for number, frame in enumerate(known):
        result = replay.label(frame.structure)
        assert result.properties.energy == pytest.approx(frame.properties.energy, abs=1e-7)
        close(result.properties.forces, frame.properties.forces, atol=1e-7)
        close(result.properties.stress, frame.properties.stress, atol=1e-7)
        assert result.evidence["frame"] == number


def test_a_disguised_structure_gets_its_label_through_the_isometry(
    replay: Labeler, known: list[LabelledStructure]
) -> None:
    atoms = known[2].structure.to_atoms()
    atoms.positions = atoms.positions @ Rotation.from_euler("xyz", [0.3, 1.0, -0.4]).as_matrix().T * [1, 1, -1]
    atoms.cell = atoms.cell.array @ Rotation.from_euler("xyz", [0.3, 1.0, -0.4]).as_matrix().T * [1, 1, -1]
    atoms.translate([0.3, -1.0, 0.2])
    atoms = make_supercell(atoms[[2, 0, 3, 1]], [[1, 1, 0], [0, 1, 0], [0, 0, 2]])
    result = replay.label(atoms)
    expected = get_labeler("emt").label(atoms).properties
    assert result.evidence["frame"] == 2
    assert result.evidence["isometry"]["rotation"]
    assert result.properties.energy == pytest.approx(expected.energy, abs=1e-5)
    close(result.properties.forces, expected.forces, atol=1e-4)
    close(result.properties.stress, expected.stress, atol=1e-5)


def test_a_near_miss_is_refused(replay: Labeler, known: list[LabelledStructure]) -> None:
    atoms = known[0].structure.to_atoms()
    atoms.positions[0, 0] += 0.01
    with pytest.raises(LabelFailure, match="none of the 4 structures") as caught:
        replay.label(atoms)
    assert caught.value.kind is FailureKind.REFUSED
    assert replay.refuses(known[0].structure) is None


def test_it_keeps_the_promises_of_a_labeler(replay: Labeler, known: list[LabelledStructure]) -> None:
    check_labeler(replay, [frame.structure for frame in known])


def test_the_theory_is_the_content_of_the_file(known: list[LabelledStructure], tmp_path: Path, replay: Labeler) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "other-name.extxyz"
    copy.write_bytes((tmp_path / "known.extxyz").read_bytes())
    assert get_labeler("replay", {"path": copy}).theory().fingerprint == replay.theory().fingerprint
    copy.write_text(copy.read_text().replace("REF_energy=", "REF_energy=1"))
    assert get_labeler("replay", {"path": copy}).theory().fingerprint != replay.theory().fingerprint


def test_compressed_files_and_named_entries(known: list[LabelledStructure], tmp_path: Path) -> None:
    frames = []
    for frame in known:
        atoms = frame.structure.to_atoms()
        properties = frame.properties
        atoms.info["e_dft"] = properties.energy
        atoms.arrays["f_dft"] = np.array(properties.forces)
        stress = np.array(properties.stress) * -1602.1766208
        atoms.info["s_dft"] = stress[[0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]]
        frames.append(atoms)
    write(tmp_path / "named.extxyz", frames, format="extxyz")
    (tmp_path / "named.extxyz.gz").write_bytes(gzip.compress((tmp_path / "named.extxyz").read_bytes()))
    settings = {
        "path": tmp_path / "named.extxyz.gz",
        "energy_key": "e_dft",
        "forces_key": "f_dft",
        "stress_key": "s_dft",
        "stress_convention": "vasp",
    }
    result = get_labeler("replay", settings).label(known[1].structure)
    close(result.properties.stress, known[1].properties.stress, atol=1e-7)
    close(result.properties.forces, known[1].properties.forces, atol=1e-7)
    with pytest.raises(ConfigError, match="frame 0: there is no entry 'e_scan'"):
        get_labeler("replay", settings | {"energy_key": "e_scan"}).label(known[1].structure)


def test_labels_in_an_attached_calculator(tmp_path: Path) -> None:
    atoms = Atoms("Ni", cell=3 * np.eye(3), pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-5.0, forces=np.zeros((1, 3)))
    write(tmp_path / "calc.extxyz", atoms, format="extxyz")
    labeler = get_labeler("replay", {"path": tmp_path / "calc.extxyz"})
    assert labeler.label(atoms).properties.energy == -5.0
    assert not labeler.capabilities.stress


def test_a_structure_labelled_twice_and_not_alike_is_flagged(tmp_path: Path) -> None:
    frames = []
    for energy in (-5.0, -5.1):
        atoms = Atoms("Ni", cell=3 * np.eye(3), pbc=True)
        atoms.info["REF_energy"] = energy
        frames.append(atoms)
    write(tmp_path / "twice.extxyz", frames, format="extxyz")
    result = get_labeler("replay", {"path": tmp_path / "twice.extxyz"}).label(frames[0])
    assert result.properties.energy == -5.0
    assert "differ by 100 meV/atom" in result.warnings[0]


def test_a_file_that_cannot_serve_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        get_labeler("replay", {"path": "no.extxyz"}, directory=tmp_path)
    write(tmp_path / "bare.extxyz", Atoms("Ni", cell=3 * np.eye(3), pbc=True), format="extxyz")
    with pytest.raises(ConfigError, match=r"frame 0: .*carries no labels"):
        get_labeler("replay", {"path": tmp_path / "bare.extxyz"}).refuses(Structure.from_atoms(Atoms("Ni")))
    (tmp_path / "broken.extxyz").write_text("2\nLattice\nNi 0 0 0\n")
    with pytest.raises(ConfigError, match=r"broken\.extxyz"):
        _ = get_labeler("replay", {"path": tmp_path / "broken.extxyz"}).capabilities
