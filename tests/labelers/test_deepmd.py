"""DeePMD's folders: units, signs, padding, and a reason for everything that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alflow.structures import Structure
from tests.labelers.foreign_files import alloy, examples_at, only, write_deepmd


def test_virial_becomes_the_stress_and_nothing_else_changes(tmp_path: Path) -> None:
    images = [alloy(seed) for seed in range(3)]
    found = examples_at(write_deepmd(tmp_path / "data", images, sets=2))
    assert len(found) == 3
    for example, atoms in zip(found, images, strict=True):
        assert example.structure == Structure.from_atoms(atoms)
        given = example.properties
        assert given.energy == atoms.get_potential_energy()
        np.testing.assert_array_equal(given.forces, atoms.get_forces())
        expected = atoms.get_stress(voigt=False)
        assert np.abs(expected).min() > 1e-4
        assert given.stress is not None
        np.testing.assert_allclose(given.stress, expected, atol=1e-8)


def test_single_precision_and_frames_without_virial(tmp_path: Path) -> None:
    atoms = alloy(1)
    (example,) = examples_at(write_deepmd(tmp_path / "data", [atoms], dtype="f4", virial=False))
    assert example.properties.stress is None
    assert example.properties.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(example.structure.positions, atoms.positions, atol=1e-6)


def test_frames_of_mixed_species_with_padding(tmp_path: Path) -> None:
    atoms = alloy(1)
    folder = write_deepmd(tmp_path / "data", [atoms, atoms])
    np.save(folder / "set.000" / "real_atom_types.npy", np.array([[0, 1, 1, 1], [1, 0, 0, -1]]))
    first, second = examples_at(folder)
    assert (first.structure.formula, second.structure.formula) == ("NiPt3", "Ni2Pt")
    np.testing.assert_array_equal(second.structure.positions, atoms.positions[:3])
    assert second.properties.forces is not None
    np.testing.assert_array_equal(second.properties.forces, atoms.get_forces()[:3])


def test_molecules_have_no_cell_and_no_stress(tmp_path: Path) -> None:
    folder = write_deepmd(tmp_path / "data", [alloy(1)])
    (folder / "nopbc").touch()
    (example,) = examples_at(folder)
    assert example.structure.n_periodic == 0
    assert example.properties.stress is None


def damage_type_map(folder: Path) -> None:
    (folder / "type_map.raw").unlink()


def damage_element(folder: Path) -> None:
    (folder / "type_map.raw").write_text("Ni Xx")


def damage_types(folder: Path) -> None:
    (folder / "type_map.raw").write_text("Ni")


def damage_padding(folder: Path) -> None:
    np.save(folder / "set.000" / "real_atom_types.npy", np.full((1, 4), -1))


def damage_sets(folder: Path) -> None:
    (folder / "set.000").rename(folder / "raw")


def damage_energy(folder: Path) -> None:
    (folder / "set.000" / "energy.npy").unlink()


def damage_number(folder: Path) -> None:
    np.save(folder / "set.000" / "energy.npy", np.zeros(2))


def damage_shape(folder: Path) -> None:
    np.save(folder / "set.000" / "force.npy", np.zeros((1, 9)))


def damage_nan(folder: Path) -> None:
    np.save(folder / "set.000" / "energy.npy", np.array([np.nan]))


def damage_virial(folder: Path) -> None:
    np.save(folder / "set.000" / "virial.npy", np.arange(9.0).reshape(1, 9))


def damage_digits(folder: Path) -> None:
    np.save(folder / "set.000" / "energy.npy", np.array([-3e6], dtype="f4"))


def damage_parameters(folder: Path) -> None:
    np.save(folder / "set.000" / "fparam.npy", np.array([[0.1]]))


def damage_file(folder: Path) -> None:
    (folder / "set.000" / "coord.npy").write_bytes(b"no array")


def damage_archive(folder: Path) -> None:
    np.savez(folder / "set.000" / "archive.npz", coord=np.zeros((1, 12)))
    (folder / "set.000" / "archive.npz").replace(folder / "set.000" / "coord.npy")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_archive, "coord.npy is an archive of arrays"),
        (damage_type_map, "no type_map.raw"),
        (damage_element, "'Xx'"),
        (damage_types, "types reach 1, type_map.raw names 1"),
        (damage_padding, "none of its types names an element"),
        (damage_sets, "no folder set.*"),
        (damage_energy, "no energy.npy"),
        (damage_number, "2 in energy.npy, 1 in coord.npy"),
        (damage_shape, "force.npy has shape (1, 9); expected (frames, 12)"),
        (damage_nan, "energy.npy holds values that are not finite"),
        (damage_virial, "not symmetric"),
        (damage_digits, "steps of 0.25 eV"),
        (damage_parameters, "electronic temperature"),
        (damage_file, "data"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, damage: Any, told: str) -> None:
    folder = write_deepmd(tmp_path / "data", [alloy(1)])
    damage(folder)
    frame = only(tmp_path)
    assert frame.example is None
    assert frame.refused
    assert told in f"{frame.origin}: {frame.detail}"


class Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    folder = write_deepmd(tmp_path / "data", [alloy(1)])
    trap = np.array([None], dtype=object)
    trap[0] = Trap(tmp_path / "sprung")
    np.save(folder / "set.000" / "energy.npy", trap)
    assert "pickle" in only(folder).detail
    assert not (tmp_path / "sprung").exists()
