"""What VASP is given, read back by pymatgen's and ASE's own readers; the datasets and the settings."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alflow.errors import ConfigError, LabelFailure
from alflow.labelers import VaspSettings, WorkerConfig
from alflow.labelers._cell import k_mesh
from alflow.labelers._vasp_errors import TROUBLES, trouble_in
from alflow.labelers._vasp_inputs import Layout, incar_tags, incar_text, ladder, vacuum_problem, write_inputs
from alflow.labelers._vasp_potcar import Potcar, read_potcar
from alflow.structures import Structure
from tests.labelers.vasp_files import DATASETS, dataset, write_datasets

DOCS = (Path(__file__).parents[2] / "docs" / "labelers.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_datasets(tmp_path_factory.mktemp("paw"))


@pytest.fixture(scope="module")
def potcars(folder: Path) -> dict[str, Potcar]:
    names = {"Cu": "Cu", "Ni": "Ni_pv", "O": "O", "H": "H", "Si": "Si"}
    return {element: read_potcar(folder, element, name) for element, name in names.items()}


def made(**given: Any) -> VaspSettings:
    return VaspSettings.model_validate({"potcars": {"Cu": "Cu", "Ni": "Ni_pv", "O": "O"}, **given})


def oxide(seed: int = 0) -> Structure:
    atoms = Atoms("ONiOCuNiO", cell=[[4, 0.1, 0], [0, 5, 0.3], [0.2, 0, 6]], pbc=True)
    atoms.set_scaled_positions(np.random.default_rng(seed).uniform(-1, 2, (6, 3)))
    return Structure.from_atoms(atoms)


# -- files ---------------------------------------------------------------------------------------------------------


def test_other_readers_read_what_was_written(potcars: dict[str, Potcar], tmp_path: Path) -> None:
    from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar

    asked = oxide()
    write_inputs(asked, made(functional="r2scan", incar={"IVDW": 13, "LUSE_VDW": False}), potcars, tmp_path, 0)
    incar = Incar.from_file(tmp_path / "INCAR")
    assert (incar["METAGGA"].upper(), incar["ENCUT"], incar["IVDW"], incar["LUSE_VDW"]) == ("R2SCAN", 520, 13, False)
    assert (incar["NSW"], incar["IBRION"], incar["ISIF"], incar["ISPIN"]) == (0, -1, 2, 1)
    assert (incar["EDIFF"], incar["LREAL"], incar["LASPH"], incar["LWAVE"]) == (1e-6, False, True, False)
    assert not {"GGA", "MAGMOM", "NELECT", "LDAU", "NBANDS", "ISYM"} & set(incar)
    kpoints = Kpoints.from_file(str(tmp_path / "KPOINTS"))
    assert kpoints.style.name == "Gamma"
    assert kpoints.kpts == [k_mesh(asked, 0.22)]
    poscar = Poscar.from_file(tmp_path / "POSCAR", check_for_potcar=False)
    assert poscar.site_symbols == ["O", "Ni", "Cu"]
    layout = Layout.read(tmp_path)
    assert layout == Layout.of(asked)
    np.testing.assert_allclose(
        np.asarray(poscar.structure.cart_coords), asked.positions[list(layout.atoms)], atol=1e-12
    )
    text = (tmp_path / "POTCAR").read_bytes()
    assert text == b"".join(potcars[element].content for element in ("O", "Ni", "Cu"))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), mirrored=st.booleans())
def test_the_layout_is_undone_exactly(seed: int, mirrored: bool) -> None:
    structure = oxide(seed)
    if mirrored:
        structure = structure.with_geometry(cell=structure.cell * [[1], [1], [-1]], positions=structure.positions)
    layout = Layout.of(structure)
    assert np.linalg.det(structure.cell[list(layout.axes)]) > 0
    order = list(layout.atoms)
    np.testing.assert_array_equal(layout.from_vasp(structure.positions[order]), structure.positions)
    assert len({*order}) == 6
    species = structure.numbers[order]
    assert (np.diff(species) >= 0).all()


def test_long_lists_are_cut_into_lines(potcars: dict[str, Potcar]) -> None:
    atoms = bulk("Ni", cubic=True) * (5, 5, 5)
    atoms.set_initial_magnetic_moments(np.linspace(-2, 2, len(atoms)))
    structure = Structure.from_atoms(atoms)
    text = incar_text(incar_tags(structure, made(), potcars, Layout.of(structure), 0))
    assert max(map(len, text.splitlines())) <= 165
    from pymatgen.io.vasp.inputs import Incar

    moments = Incar.from_str(text.replace("\\\n", " "))["MAGMOM"]
    np.testing.assert_allclose(np.array(moments), np.linspace(-2, 2, 500), atol=1e-5)


def test_hubbard_u_follows_the_species_of_each_structure(potcars: dict[str, Potcar]) -> None:
    chosen = made(hubbard_u={"Ni": 6.2})
    tags = incar_tags(oxide(), chosen, potcars, Layout.of(oxide()), 0)
    assert (tags["LDAU"], tags["LDAUL"], tags["LDAUU"]) == (True, (-1, 2, -1), (0.0, 6.2, 0.0))
    assert (tags["LDAUTYPE"], tags["LMAXMIX"]) == (2, 4)
    copper = Structure.from_atoms(bulk("Cu"))
    assert "LDAU" not in incar_tags(copper, chosen, potcars, Layout.of(copper), 0)


@pytest.mark.parametrize("given", [{}, {"incar": {"LHFCALC": True}}])
def test_no_rung_changes_physics(potcars: dict[str, Potcar], given: dict[str, Any]) -> None:
    numerics = {
        "ALGO", "NELM", "ISYM", "AMIX", "BMIX", "AMIX_MAG", "BMIX_MAG", "TIME", "NBANDS",
    }  # fmt: skip
    chosen = made(**given)
    rungs = [incar_tags(oxide(), chosen, potcars, Layout.of(oxide()), k) for k in range(len(ladder(chosen)))]
    assert len(rungs) >= 3
    for tags in rungs:
        assert {k: v for k, v in tags.items() if k not in numerics} == {
            k: v for k, v in rungs[0].items() if k not in numerics
        }
    assert [tags["NELM"] for tags in rungs] == sorted(tags["NELM"] for tags in rungs)
    assert ("Fast" in {tags["ALGO"] for tags in rungs}) == (not given)  # VASP has no exact exchange with it


def test_more_bands_than_vasp_takes_by_itself(potcars: dict[str, Potcar], shared_data: Path) -> None:
    """Silicon with 8 electrons and 2 atoms in the recorded run: NBANDS = 9 with two moments of 0.6."""
    atoms = bulk("Si")
    atoms.set_initial_magnetic_moments([0.6, 0.6])
    structure = Structure.from_atoms(atoms)
    given = incar_tags(structure, made(potcars={"Si": "Si"}), potcars, Layout.of(structure), 1)["NBANDS"]
    recorded = shared_data / "vasp" / "static_silicon" / "OUTCAR"
    if not recorded.is_file():
        pytest.skip(f"no recorded run of VASP at {recorded}")
    found = re.search(r"NBANDS=\s*(\d+)", recorded.read_text())
    assert found is not None
    assert int(found.group(1)) < int(str(given)) <= 1.5 * int(found.group(1))


# -- k-points and vacuum -------------------------------------------------------------------------------------------


def test_the_mesh_follows_the_vectors_of_a_left_handed_slab(potcars: dict[str, Potcar], tmp_path: Path) -> None:
    slab = Atoms("Cu", cell=[[0, 0, 20.0], [2.5, 0, 0], [0, 5.0, 0]][::-1], pbc=[True, True, False])
    assert np.linalg.det(slab.cell.array) < 0
    structure = Structure.from_atoms(slab)
    assert k_mesh(structure, 0.25) == (6, 11, 1)
    write_inputs(structure, made(kspacing=0.25), potcars, tmp_path, 0)
    assert (tmp_path / "KPOINTS").read_text().splitlines()[3] == "11 6 1"
    lengths = [
        np.linalg.norm(np.array(row.split(), float)) for row in (tmp_path / "POSCAR").read_text().splitlines()[2:5]
    ]
    assert lengths == [2.5, 5.0, 20.0]


def test_vacuum_is_measured_along_the_normal() -> None:
    cell = np.array([[4.0, 0, 0], [0, 4.0, 0], [9.0, 0, 10.0]])
    atoms = Atoms("Cu2", positions=[[0, 0, 1], [0, 0, 4.5]], cell=cell, pbc=[True, True, False])
    assert vacuum_problem(Structure.from_atoms(atoms)) is None
    atoms.positions[1, 2] = 5.5
    assert "5.5 Å separate it" in (vacuum_problem(Structure.from_atoms(atoms)) or "")
    atoms.pbc = True
    assert vacuum_problem(Structure.from_atoms(atoms)) is None


# -- datasets ------------------------------------------------------------------------------------------------------


def test_a_dataset_says_what_it_is(folder: Path) -> None:
    nickel = read_potcar(folder, "Ni", "Ni_pv")
    assert (nickel.title, nickel.valence, nickel.enmax, nickel.exchange) == (
        "PAW_PBE Ni_pv 06Sep2000", 16.0, 367.986, "PE",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "packed"), [("Cu/POTCAR", False), ("Cu/POTCAR.gz", True), ("POTCAR.Cu", False), ("POTCAR.Cu.gz", True)]
)
def test_places_and_packing_do_not_count(tmp_path: Path, folder: Path, name: str, packed: bool) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    content = dataset("Cu").encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_potcar(tmp_path, "Cu", "Cu").sha256 == read_potcar(folder, "Cu", "Cu").sha256


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (dataset("Ni_pv"), "for another element than Cu: its TITEL is 'PAW_PBE Ni_pv 06Sep2000'"),
        (dataset("Cu") + dataset("O"), "holds 2 datasets"),
        (dataset("Cu")[:200], "no whole dataset"),
        ("", "no whole dataset"),
        (dataset("Cu").replace("ZVAL", "ZVOL"), "does not say its ZVAL"),
        (dataset("Cu").replace("LEXCH", "LEX"), "LEXCH"),
    ],
)
def test_a_dataset_that_cannot_be_right(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "Cu").mkdir()
    (tmp_path / "Cu" / "POTCAR").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_potcar(tmp_path, "Cu", "Cu")


def test_a_missing_dataset_names_its_neighbours(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no dataset O_s in .*there are O, O_h"):
        read_potcar(folder, "O", "O_s")
    (tmp_path / "Cu").mkdir()
    (tmp_path / "Cu" / "POTCAR.Z").write_bytes(b"\x1f\x9d")
    with pytest.raises(ConfigError, match="uncompress"):
        read_potcar(tmp_path, "Cu", "Cu")
    (tmp_path / "Cu" / "POTCAR.gz").write_bytes(gzip.compress(dataset("Cu").encode())[:60])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_potcar(tmp_path, "Cu", "Cu")


def test_every_dataset_of_the_tests_is_read(folder: Path) -> None:
    for name, (element, title, *_) in DATASETS.items():
        assert read_potcar(folder, element, name).title == title


# -- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"incar": {"nsw": 5}}, "NSW: alflow labels single points"),
        ({"incar": {"ALGO": "All"}}, "ALGO: the ladder of numerics sets it"),
        ({"incar": {"ENCUT": 400}}, "ENCUT: it has a setting of its own, `encut`"),
        ({"incar": {"MAGMOM": "5 5"}}, "`initial_moments`"),
        ({"incar": {"NELECT": 9}}, "the charge comes from there"),
        ({"incar": {"LSORBIT": True}}, "non-collinear"),
        ({"incar": {"ML_LMLFF": True}}, "machine-learned"),
        ({"incar": {"NCORE": 4}}, "write it under `parallel`"),
        ({"incar": {"ICHARG": 11}}, "self-consistent"),
        ({"incar": {"IVDW": "12\nNSW = 5"}}, "would change other tags"),
        ({"incar": {"IVDW": "12; NSW = 5"}}, "would change other tags"),
        ({"incar": {"IV DW": 12}}, "no tag of VASP"),
        ({"incar": {"GGA": "PE"}}, "contradicts `functional: pbe`"),
        ({"functional": "incar"}, "asks for GGA or METAGGA"),
        ({"parallel": {"ENCUT": 4}}, "not about sharing work"),
        ({"potcars": {"Qq": "Qq"}}, "there is no element 'Qq'"),
        ({"potcars": {"Cu": "../Cu"}}, "pattern"),
        ({"potcars": {}}, "at least 1 item"),
        ({"hubbard_u": {"Ni": -1}}, "greater than 0"),
        ({"ismear": 3}, "Input should be -5, -1, 0, 1 or 2"),
    ],
)  # fmt: skip
def test_settings_that_are_refused_say_why(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        made(**given)


def test_logical_values_are_one_thing_in_all_spellings() -> None:
    assert made(incar={"lhfcalc": ".TRUE."}).incar == made(incar={"LHFCALC": True}).incar
    assert made(incar={"LHFCALC": ".T."}).hybrid


def test_the_examples_of_the_page_are_valid() -> None:
    section = DOCS[DOCS.index("## `vasp`") :]
    worker, campaign = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)[:2]
    program = WorkerConfig.model_validate(yaml.safe_load(worker)).programs["vasp"]
    assert program.version == "6.4.2"
    theory = yaml.safe_load(campaign)["theory"]
    assert theory["labeler"] == "vasp"
    assert VaspSettings.model_validate(theory["settings"]).hubbard_u == {"Fe": 5.3}


# -- messages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (" POSMAP internal error: symmetry equivalent atom not found,", "does not use it"),
        (" VERY BAD NEWS! internal error in subroutine IBZKPT:", "does not use it"),
        ("Found some non-integer element in rotation matrix", "does not use it"),
        ("inverse of rotation matrix was not found (increase SYMPREC)", "does not use it"),
        (" Error EDDDAV: Call to ZHEGV failed. Returncode =  10 2  16", "another one"),
        (" WARNING in EDDRMM: call to ZHEGV failed, returncode =   8  4     1", "another one"),
        (" WARNING: Sub-Space-Matrix is not hermitian in DAV    4  -7.4E-003", "another one"),
        (" LAPACK: Routine ZPOTRF failed!", "another one"),
        (" BRMIX: very serious problems", "mixes less"),
        (" Your highest band is occupied at some k-points! Unless you are", "the next rung has more"),
        (" ERROR FEXCP: supplied Exchange-correlation table", "too high"),
        (" REAL_OPTLAY: internal error (1)", "lreal: false"),
        (" Tetrahedron method fails for NKPT<4. NKPT =    1", "too few k-points"),
        (" VERY BAD NEWS! internal error in subroutine SET_INDPW_FULL:", "internal error of VASP"),
    ],
)
def test_what_vasp_says_is_translated(line: str, words: str) -> None:
    failure = trouble_in(f" entering main loop\n{line}\n more\n")
    assert isinstance(failure, LabelFailure)
    assert words in failure.message
    assert line.strip()[:40] in failure.message


def test_usual_output_is_no_trouble(shared_data: Path) -> None:
    runs = sorted((shared_data / "vasp").glob("*/OUTCAR*"))
    if not runs:
        pytest.skip(f"no recorded runs of VASP in {shared_data}")
    for path in runs:
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        assert trouble_in(text) is None, path
    assert len({trouble.pattern for trouble in TROUBLES}) == len(TROUBLES)
