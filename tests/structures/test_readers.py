from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

from alflow.errors import StructureError
from alflow.structures import LabelledStructure, Structure, _readers, frames_of, read_structures


def labelled(a: float = 3.6) -> Atoms:
    atoms = bulk("Cu", cubic=True, a=a)
    atoms.rattle(0.05, seed=1)
    atoms.set_initial_magnetic_moments([1.0, -1.0, 0.5, 0.0])
    atoms.calc = EMT()
    atoms.get_stress()
    return atoms


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("x.extxyz", "extxyz"),
        ("x.xyz", "extxyz"),
        ("x.cif", "cif"),
        ("POSCAR", "vasp"),
        ("CONTCAR.1", "vasp"),
        ("x.vasp", "vasp"),
        ("x.db", "db"),
    ],
)
def test_every_format_gives_the_structure_back(tmp_path: Path, name: str, form: str) -> None:
    atoms = bulk("NiPt", "rocksalt", a=4.4)
    atoms.rattle(0.02, seed=0)
    write(tmp_path / name, atoms, format=form)
    (read,) = read_structures(tmp_path / name)
    assert read.get_chemical_symbols() == atoms.get_chemical_symbols()
    assert read.pbc.all()
    assert np.allclose(read.cell.cellpar(), atoms.cell.cellpar(), atol=1e-5)
    assert np.allclose(read.get_scaled_positions(), atoms.get_scaled_positions(), atol=1e-6)
    assert Structure.from_atoms(read).n_atoms == 2


@pytest.mark.parametrize("name", ["x.extxyz", "x.db"])
def test_labels_and_electronic_state_come_along(tmp_path: Path, name: str) -> None:
    atoms = labelled()
    write(tmp_path / name, atoms)
    (read,) = read_structures(tmp_path / name)
    here, there = LabelledStructure.from_atoms(read), LabelledStructure.from_atoms(atoms)
    assert here.structure == there.structure
    assert here.properties.energy == pytest.approx(there.properties.energy)
    assert here.properties.forces is not None
    assert here.properties.stress is not None
    assert there.properties.forces is not None
    assert there.properties.stress is not None
    assert np.allclose(here.properties.forces, there.properties.forces, atol=1e-7)
    assert np.allclose(here.properties.stress, there.properties.stress, atol=1e-7)


def test_named_labels_stay_where_they_are(tmp_path: Path) -> None:
    atoms = LabelledStructure.from_atoms(labelled()).to_atoms()
    write(tmp_path / "x.extxyz", atoms)
    (read,) = read_structures(tmp_path / "x.extxyz")
    assert read.info["REF_energy"] == pytest.approx(atoms.info["REF_energy"])
    assert read.arrays["REF_forces"].shape == (4, 3)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (":", [0, 1, 2, 3]),
        (1, [1]),
        ("-1", [3]),
        (-2, [2]),
        ("1:3", [1, 2]),
        ("::2", [0, 2]),
        (slice(-2, None), [2, 3]),
    ],
)
def test_an_index_chooses(tmp_path: Path, index: int | str | slice, expected: list[int]) -> None:
    write(tmp_path / "x.extxyz", [bulk("Cu", a=3.5 + i / 10) for i in range(4)])
    volumes = [atoms.get_volume() for atoms in read_structures(tmp_path / "x.extxyz", index=index)]
    assert volumes == pytest.approx([(3.5 + i / 10) ** 3 / 4 for i in expected])


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    write(tmp_path / "x.extxyz", [bulk("Cu")] * 3)
    assert len(list(read_structures(tmp_path / "x.extxyz", max_structures=3))) == 3
    with pytest.raises(StructureError, match=r"x.extxyz: more than 2 structures"):
        list(read_structures(tmp_path / "x.extxyz", max_structures=2))


@pytest.mark.parametrize("name", ["x.traj", "x.json", "x.pckl", "x.py", "x.xsf", "x"])
def test_other_formats_are_refused_unread(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"never": "loaded"}))
    with pytest.raises(StructureError, match=r"read from extended XYZ"):
        list(read_structures(tmp_path / name))


def test_a_database_is_read_without_decoding_objects(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with ase.db.connect(path) as database:
        database.write(labelled(), data={"array": np.zeros(3)}, colour="red")
    object_text = '{"__ase_objtype__": "no such class"}'
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE systems SET calculator_parameters = ?, key_value_pairs = ?, constraints = ?, data = ?",
            (object_text, object_text, object_text, object_text),
        )
        connection.commit()
    (read,) = read_structures(path)
    assert len(read) == 4
    assert not read.constraints


def test_a_view_is_no_table(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE VIEW systems AS SELECT 1 AS id")
        connection.commit()
    with pytest.raises(StructureError, match="not an ASE database"):
        list(read_structures(tmp_path / "x.db"))
    (tmp_path / "y.db").write_text("no database at all, but long enough to be looked at")
    with pytest.raises(StructureError, match=r"y.db, frame 0: cannot be read"):
        list(read_structures(tmp_path / "y.db"))


GOOD = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 pbc="T T T"\nCu 0 0 0\n'


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("2\nonly\nCu 0 0 0\n", "the file ends within the frame that starts in line 4"),
        ("many\n", "line 4 is 'many'"),
        ("999999999\n\n", "announces 999999999 atoms"),
        ("0\n\n", "announces 0 atoms"),
        (GOOD.replace("Cu 0 0 0", "Cu 0 nan 0"), "finite"),
        (GOOD.replace("Cu 0 0 0", "Qq 0 0 0"), "cannot be read"),
        (GOOD.replace("Cu 0 0 0", "Cu 0 0 x"), "cannot be read"),
        (GOOD.replace("Cu 0 0 0", "Cu 1e7 0 0"), "reach beyond 100000 Å"),
        (GOOD.replace("3 0 0 0 3 0 0 0 3", "0.3 0 0 0 0.3 0 0 0 0.3"), "are the units Å"),
        (GOOD.replace("3 0 0 0 3 0 0 0 3", "3 0 0 3 0 0 0 0 3"), "linearly dependent"),
        ("\n" + GOOD, "line 4 is empty"),
    ],
)
def test_errors_name_file_and_frame(tmp_path: Path, second: str, words: str) -> None:
    path = tmp_path / "bad.extxyz"
    path.write_text(GOOD + second)
    frames = read_structures(path)
    assert len(next(frames)) == 1
    with pytest.raises(StructureError, match=r"bad.extxyz, frame 1: ") as error:
        list(frames)
    assert words in str(error.value)


def test_partially_occupied_sites_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mixed.cif"
    write(path, bulk("Cu", cubic=True))
    text = path.read_text()
    lines = [line.replace("1.0000", "0.5000") if line.strip().startswith("Cu") else line for line in text.splitlines()]
    path.write_text("\n".join(lines))
    with pytest.raises(StructureError, match=r"mixed.cif, frame 0: partially occupied sites"):
        list(read_structures(path))


def test_a_poscar_must_name_its_elements(tmp_path: Path) -> None:
    write(tmp_path / "POSCAR", bulk("Cu"), format="vasp")
    lines = (tmp_path / "POSCAR").read_text().splitlines()
    (tmp_path / "POSCAR").write_text("\n".join([*lines[:5], *lines[6:], "0 0 0"]))
    with pytest.raises(StructureError, match=r"POSCAR, frame 0: line 6 is '1'; expected the names"):
        list(read_structures(tmp_path / "POSCAR"))
    (tmp_path / "POSCAR").write_text("\n".join([*lines[:6], "999999999999", *lines[7:]]))
    with pytest.raises(StructureError, match="line 7 is '999999999999'"):
        list(read_structures(tmp_path / "POSCAR"))


def test_size_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x.extxyz", bulk("Cu"))
    monkeypatch.setattr(_readers, "MAX_FILE_BYTES", 10)
    with pytest.raises(StructureError, match="files of this format are read up to"):
        list(read_structures(tmp_path / "x.extxyz"))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match=r"x.cif: no such file"):
        list(read_structures(tmp_path / "x.cif"))
    (tmp_path / "empty.extxyz").write_text("")
    with pytest.raises(StructureError, match=r"empty.extxyz: it holds no structure"):
        list(read_structures(tmp_path / "empty.extxyz"))
    write(tmp_path / "x.extxyz", bulk("Cu"))
    for index in ("a", "1:2:3:4", ""):
        with pytest.raises(StructureError, match="neither a number nor a slice"):
            list(read_structures(tmp_path / "x.extxyz", index=index))


def damaged(path: Path) -> str:
    """Three frames, of which the middle one holds a letter where a number belongs; returns the text."""
    write(path, [labelled(3.6), labelled(3.7), labelled(3.8)])
    frames = path.read_text().split("\n4\n")
    lines = frames[1].splitlines()
    lines[1] = lines[1].replace(".", "x", 1)
    frames[1] = "\n".join(lines)
    path.write_text("\n4\n".join(frames))
    return path.read_text()


def test_frames_are_the_text_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.extxyz"
    content = damaged(path)
    frames = list(frames_of(path))
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert "".join(str(frame.text) for frame in frames) == content
    assert frames[-1].share == 1.0
    assert frames[2].load().cell[0, 0] == pytest.approx(3.8)


def test_a_bad_frame_is_no_end(tmp_path: Path) -> None:
    path = tmp_path / "x.extxyz"
    damaged(path)
    first, second, third = frames_of(path)
    with pytest.raises(StructureError, match=r"x\.extxyz, frame 1: cannot be read"):
        second.load()
    assert [len(frame.load()) for frame in (first, third)] == [4, 4]


def test_frames_that_an_index_leaves_out_are_not_parsed(tmp_path: Path) -> None:
    damaged(tmp_path / "x.extxyz")
    assert len(list(read_structures(tmp_path / "x.extxyz", index="::2"))) == 2
    with pytest.raises(StructureError, match="frame 1"):
        list(read_structures(tmp_path / "x.extxyz", index="1:"))


def test_only_extended_xyz_has_a_text(tmp_path: Path) -> None:
    write(tmp_path / "x.db", [labelled(), labelled()])
    write(tmp_path / "x.cif", labelled())
    write(tmp_path / "POSCAR", labelled())
    for name, shares in (("x.db", [0.5, 1.0]), ("x.cif", [1.0]), ("POSCAR", [1.0])):
        frames = list(frames_of(tmp_path / name))
        assert [(frame.text, frame.share) for frame in frames] == [(None, share) for share in shares]
