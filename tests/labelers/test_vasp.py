"""The labeler `vasp` from structure to label, with a stand-in for the program; VASP itself is not free."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.lj import LennardJones

from alflow.errors import ConfigError, FailureKind, LabelFailure
from alflow.labelers import VaspLabeler, VaspSettings, check_labeler, get_labeler, labeler_for_theory, read_vasp_run
from alflow.structures import Structure
from tests.labelers.vasp_files import worker, write_datasets
from tests.labelers.vasp_stand_in import CUTOFF, EPSILON, SIGMA

BOX = r"|   EEEE  RRRR  |\n|   No initial positions read in   |\n|  ----> I REFUSE TO CONTINUE WITH THIS SICK JOB ... |"
CU_NI = {"Cu": "Cu", "Ni": "Ni_pv"}


@pytest.fixture(scope="module")
def potentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_datasets(tmp_path_factory.mktemp("paw") / "potpaw_PBE")


def made(potentials: Path, *mode: str, program: dict[str, Any] | None = None, **settings: Any) -> VaspLabeler:
    given = {"potcars": CU_NI, "kspacing": 0.5, **settings}
    labeler = get_labeler("vasp", given, worker=worker(potentials, *mode, **(program or {})))
    assert isinstance(labeler, VaspLabeler)
    return labeler


def alloy(seed: int = 1) -> Structure:
    """Four atoms of Cu-Ni whose species alternate, so that VASP needs another order."""
    atoms = bulk("Cu", cubic=True, a=3.6)
    atoms.symbols[:] = ["Cu", "Ni", "Cu", "Ni"]
    strain = np.array([[1.02, 0.01, 0], [0, 0.99, 0.02], [0.01, 0, 1]])
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.rattle(0.05, seed=seed)
    return Structure.from_atoms(atoms)


def expected(structure: Structure) -> Atoms:
    """What the stand-in must say, by ASE."""
    atoms = structure.to_atoms()
    atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF)
    return atoms


def close(value: Any, reference: Any, *, atol: float) -> None:
    np.testing.assert_allclose(value, reference, atol=atol)


def with_moments(structure: Structure, moments: list[float]) -> Structure:
    atoms = structure.to_atoms()
    atoms.set_initial_magnetic_moments(moments)
    return Structure.from_atoms(atoms)


# -- from structure to label ---------------------------------------------------------------------------------------


def test_the_labeler_keeps_its_promises(potentials: Path) -> None:
    check_labeler(made(potentials), [alloy()], worker=worker(potentials))


def test_forces_and_stress_come_back_in_the_order_of_the_structure(potentials: Path, tmp_path: Path) -> None:
    asked = alloy()
    result = made(potentials).label(asked, tmp_path / "job")
    reference = expected(asked)
    assert result.properties.energy == pytest.approx(reference.get_potential_energy(), abs=1e-7)
    close(result.properties.forces, reference.get_forces(), atol=1e-6)
    close(result.properties.stress, reference.get_stress(voigt=False), atol=1e-8)
    assert (tmp_path / "job" / "run-1" / "POSCAR").read_text().splitlines()[5:7] == ["Ni Cu", "2 2"]
    assert json.loads((tmp_path / "job" / "run-1" / "layout.json").read_text())["atoms"] == [1, 3, 0, 2]


def test_a_left_handed_cell_and_atoms_outside_of_it(potentials: Path) -> None:
    atoms = alloy().to_atoms()
    atoms.set_cell(atoms.cell.array[[0, 2, 1]], scale_atoms=False)
    atoms.positions += [11.0, -17.0, 4.0]
    asked = Structure.from_atoms(atoms)
    assert np.linalg.det(asked.cell) < 0
    result = made(potentials).label(asked)
    reference = expected(asked)
    close(result.properties.forces, reference.get_forces(), atol=1e-6)
    close(result.properties.stress, reference.get_stress(voigt=False), atol=1e-8)


def test_a_slab_with_vacuum(potentials: Path, tmp_path: Path) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    slab.pbc = [True, True, False]
    slab.rattle(0.05, seed=2)
    asked = Structure.from_atoms(slab)
    result = made(potentials).label(asked, tmp_path / "job")
    close(result.properties.forces, expected(asked).get_forces(), atol=1e-6)
    assert result.properties.stress is None
    assert result.evidence["k_points"][2] == 1
    assert (tmp_path / "job" / "run-1" / "KPOINTS").read_text().splitlines()[2:4] == ["Gamma", "6 6 1"]


def test_the_evidence_says_what_was_resolved(potentials: Path) -> None:
    evidence = made(potentials, ismear=1, sigma=0.1).label(alloy()).evidence
    assert evidence["converged"] is True
    assert evidence["convergence"] == "EDIFF = 1e-06 is reached; 9 electronic steps, NELM = 100"
    assert evidence["version"] == "6.4.2"
    assert evidence["k_points"] == [4, 4, 4]
    assert (evidence["spin_polarised"], evidence["initial_moments"]) == (False, "none")
    assert (evidence["ismear"], evidence["sigma"], evidence["electrons"]) == (1, 0.1, 54.0)
    assert evidence["datasets"] == ["PAW_PBE Ni_pv 06Sep2000", "PAW_PBE Cu 22Jun2005"]


def test_moments_start_the_calculation_and_come_back_in_their_order(potentials: Path, tmp_path: Path) -> None:
    asked = with_moments(alloy(), [0.1, 2.0, -0.1, -2.0])
    result = made(potentials).label(asked, tmp_path / "job")
    text = (tmp_path / "job" / "run-1" / "INCAR").read_text()
    assert "ISPIN = 2\n" in text
    assert "MAGMOM = 2 -2 0.1 -0.1\n" in text
    close(result.properties.moments, [0.09, 1.8, -0.09, -1.8], atol=1e-9)
    assert result.properties.total_moment == pytest.approx(0.0, abs=1e-7)
    assert result.evidence["initial_moments"] == "of the structure"
    assert not any("without spin" in warning for warning in result.warnings)


def test_spin_without_moments_of_its_own(potentials: Path, tmp_path: Path) -> None:
    labeler = made(potentials, spin_polarised=True, initial_moments={"Ni": 2.0})
    result = labeler.label(alloy(), tmp_path / "job")
    assert "MAGMOM = 2*2 2*1\n" in (tmp_path / "job" / "run-1" / "INCAR").read_text()
    close(result.properties.moments, [0.9, 1.8, 0.9, 1.8], atol=1e-9)
    assert result.evidence["initial_moments"] == "by element"


def test_magnetic_elements_without_spin_are_warned_about(potentials: Path) -> None:
    assert any("Ni without spin" in warning for warning in made(potentials).label(alloy()).warnings)


def test_a_charged_crystal_is_computed_with_its_electrons_and_a_warning(potentials: Path, tmp_path: Path) -> None:
    atoms = alloy().to_atoms()
    atoms.info["charge"] = 1
    asked = Structure.from_atoms(atoms)
    assert asked.charge == 1
    result = made(potentials).label(asked, tmp_path / "job")
    assert "NELECT = 53\n" in (tmp_path / "job" / "run-1" / "INCAR").read_text()
    assert (result.evidence["electrons"], result.evidence["charge"]) == (53.0, 1.0)
    assert any("uniform background" in warning for warning in result.warnings)


def test_a_dataset_that_asks_for_more_is_warned_about(potentials: Path) -> None:
    warnings = made(potentials, encut=300.0).label(alloy()).warnings
    assert [w for w in warnings if "encut" in w] == [
        "PAW_PBE Ni_pv 06Sep2000 asks for a cutoff of 368 eV, above encut: 300"
    ]


def test_free_and_extrapolated_energy_are_kept_apart(potentials: Path) -> None:
    properties = made(potentials, "hot").label(alloy()).properties
    assert properties.energy_extrapolated == pytest.approx(properties.energy + 0.05, abs=1e-7)


# -- what is refused -----------------------------------------------------------------------------------------------


def _slab(vacuum: float) -> Atoms:
    slab = fcc111("Cu", (1, 1, 2), vacuum=vacuum)
    slab.pbc = [True, True, False]
    return slab


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (bulk("Au"), "no parameters for Au, only for Cu, H, Ni, O"),
        (molecule("H2O"), "no complete cell; VASP is always periodic"),
        (_slab(2.5), "along cell vector 3, which is not periodic, 5.0 Å separate"),
        (Atoms("Cu", cell=[3, 3, 3], pbc=True, magmoms=[[0, 0, 1.0]]), "non-collinear magnetic moments"),
        (Atoms("Cu", cell=[3, 3, 3], pbc=True, info={"charge": 11}), "leaves no electron"),
        (Atoms("OH", [[0, 0, 0], [0, 0, 1]], cell=[9, 9, 9], info={"charge": -1}), "with vacuum"),
    ],
    ids=["element", "no-cell", "thin-vacuum", "noncollinear", "no-electron", "charged-molecule"],
)
def test_what_is_refused_says_why(potentials: Path, tmp_path: Path, atoms: Atoms, words: str) -> None:
    labeler = made(potentials, potcars={**CU_NI, "O": "O", "H": "H"})
    assert words in (labeler.refuses(Structure.from_atoms(atoms)) or "")
    with pytest.raises(LabelFailure, match=words) as caught:
        labeler.label(atoms, tmp_path / "job")
    assert caught.value.kind is FailureKind.REFUSED
    assert not (tmp_path / "job").exists()


def test_tetrahedra_need_k_points(potentials: Path) -> None:
    labeler = made(potentials, ismear=-5, kspacing=2.0)
    assert "more k-points than (1, 1, 1)" in (labeler.refuses(alloy()) or "")
    assert made(potentials, ismear=-5).refuses(alloy()) is None


# -- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "limits", "kind", "words"),
    [
        (["unconverged"], {}, FailureKind.NOT_CONVERGED, r"500 electronic steps, NELM = 500, EDIFF = 1e-06 was not"),
        (["unconverged-5"], {"version": "5.4.4"}, FailureKind.NOT_CONVERGED, r"VASP 5\.4\.4 says in any case"),
        (["truncated"], {}, FailureKind.TRUNCATED, "is cut off|ends before"),
        (["outcar-truncated"], {}, FailureKind.TRUNCATED, "is cut off"),
        (["no-outcar"], {}, FailureKind.MISSING_FILE, "holds no OUTCAR"),
        (["relaxes"], {}, FailureKind.INCONSISTENT, "2 ionic steps instead of one"),
        (["two-runs"], {}, FailureKind.INCONSISTENT, "files of two runs"),
        (["other-version"], {}, FailureKind.INCONSISTENT, r"VASP 6\.3\.0 ran, but .* `version: 6\.4\.2`"),
        (["slow"], {"wall_seconds": 0.3}, FailureKind.WALL_TIME, r"wall_seconds: 0\.3"),
        (["dies"], {}, FailureKind.CRASHED, "ulimit -s unlimited"),
        (["prints", "hello", "0"], {}, FailureKind.MISSING_FILE, "neither vasprun.xml nor OUTCAR"),
        (["prints", "hello", "3"], {}, FailureKind.CRASHED, "exit code 3: hello"),
        (["prints", " POSMAP internal error: symmetry equivalent atom not found,", "1"], {},
         FailureKind.NOT_CONVERGED, "does not use it"),
        (["prints", "VERY BAD NEWS! internal error in subroutine SGRCON:", "0"], {},
         FailureKind.NOT_CONVERGED, "symmetry of the structure"),
        (["prints", "VERY BAD NEWS! internal error in subroutine XYZ:", "0"], {},
         FailureKind.CRASHED, "an internal error of VASP"),
        (["prints", "ZBRENT: fatal error in bracketing", "0"], {}, FailureKind.INCONSISTENT, "a relaxation ran"),
        (["prints", "ERROR FEXCP: supplied Exchange-correlation table", "1"], {}, FailureKind.IMPLAUSIBLE, "too high"),
        (["prints", "insufficient virtual memory", "1"], {}, FailureKind.MEMORY, "KPAR and NCORE"),
        (["prints", BOX, "1"], {}, FailureKind.CRASHED, "gave up: No initial positions read in"),
        ([], {"command": ["no-such-vasp"]}, FailureKind.UNAVAILABLE, "no-such-vasp"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else None,
)  # fmt: skip
def test_every_failure_has_its_cause_and_a_remedy(
    potentials: Path, tmp_path: Path, mode: list[str], limits: dict[str, Any], kind: FailureKind, words: str
) -> None:
    with pytest.raises(LabelFailure, match=words) as caught:
        made(potentials, *mode, program=limits).label(alloy(), tmp_path / "job")
    assert caught.value.kind is kind


@pytest.mark.parametrize("tag", ["ENMAX", "ISMEAR", "SIGMA", "ISPIN", "NSW", "NELECT"])
def test_outputs_that_lack_a_parameter_are_damaged(potentials: Path, tmp_path: Path, tag: str) -> None:
    made(potentials).label(alloy(), tmp_path / "job")
    path = tmp_path / "job" / "run-1" / "vasprun.xml"
    text = path.read_text()
    lacking = re.sub(rf' *<i [^>]*name="{tag}"[^>]*>[^<]*</i>\n?', "", text)
    assert lacking != text
    path.write_text(lacking)
    # without the electrons nothing of it can be read, and OUTCAR alone is no whole run
    with pytest.raises(LabelFailure, match="is cut off" if tag == "NELECT" else tag) as caught:
        made(potentials).parse(tmp_path / "job")
    assert caught.value.kind is FailureKind.TRUNCATED


def test_the_ladder_changes_numerics_only(potentials: Path, tmp_path: Path) -> None:
    result = made(potentials, "patient").label(alloy(), tmp_path / "job")
    assert (result.evidence["runs"], result.evidence["rung"]) == (2, 1)
    first, second = (_incar(tmp_path / "job" / f"run-{n}" / "INCAR") for n in (1, 2))
    changed = {tag for tag in first | second if first.get(tag) != second.get(tag)}
    assert changed == {"ALGO", "NELM", "ISYM", "NBANDS"}


@pytest.mark.parametrize("mode", ["fails-fast", "few-bands"])
def test_what_other_numerics_mend_climbs_the_ladder(potentials: Path, mode: str) -> None:
    assert made(potentials, mode).label(alloy()).evidence["rung"] == 1


def test_a_run_that_is_whole_counts_whatever_its_exit_code(potentials: Path) -> None:
    result = made(potentials, "exit-late").label(alloy())
    assert any("not hermitian" in warning for warning in result.warnings)


def test_a_patch_version_is_a_warning(potentials: Path) -> None:
    assert any("6.4.3 ran" in warning for warning in made(potentials, "patched").label(alloy()).warnings)


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("INCAR", "ENCUT = 520", "ENCUT = 400", "ENMAX = 400 instead of 520"),
        ("INCAR", "NSW = 0", "NSW = 5", "NSW = 5 instead of 0"),
        ("POTCAR", "PAW_PBE Ni_pv 06Sep2000", "PAW_PBE Ni 02Aug2007", "read the datasets PAW_PBE Ni 02Aug2007"),
        ("POSCAR", "Ni Cu", "Cu Ni", "asked for Cu2Ni2"),
        ("layout.json", "[1, 3, 0, 2]", "[1, 3, 0]", "asked for Cu2Ni2, VASP computed 4 atoms"),
    ],
)
def test_inputs_that_were_changed_give_no_label(
    potentials: Path, tmp_path: Path, name: str, old: str, new: str, words: str
) -> None:
    labeler = made(potentials)
    labeler.prepare(alloy(), tmp_path / "job")
    path = tmp_path / "job" / "run-1" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(LabelFailure, match=words) as caught:
        labeler.label(alloy(), tmp_path / "job")
    assert caught.value.kind is FailureKind.INCONSISTENT


def test_a_recorded_run_is_replayed(potentials: Path, shared_data: Path) -> None:
    """Silicon of VASP 5.2.12: its settings, its geometry, its own outputs."""
    recorded = shared_data / "vasp" / "static_silicon"
    if not recorded.is_dir():
        pytest.skip(f"no recorded run of VASP at {recorded}")
    settings: dict[str, Any] = {
        "potcars": {"Si": "Si"}, "encut": 100.0, "ismear": -5, "sigma": 0.2, "ediff": 2e-6, "spin_polarised": True,
    }  # fmt: skip
    program = {"version": "5.2.12"}
    given = read_vasp_run(recorded).steps[0].structure
    whole = str(10**9)
    structure = Structure(cell=given.cell, pbc=given.pbc, numbers=given.numbers, positions=given.positions)
    result = made(potentials, "replay", str(recorded), whole, program=program, **settings).label(structure)
    assert result.properties.energy == -10.64527774
    close(result.properties.forces, np.zeros((2, 3)), atol=1e-6)
    assert result.evidence["k_points_irreducible"] == 10
    with pytest.raises(LabelFailure) as caught:
        made(potentials, "replay", str(recorded), "150000", program=program, **settings).label(structure)
    assert caught.value.kind is FailureKind.TRUNCATED
    moved = structure.with_geometry(
        cell=structure.cell, positions=structure.positions + np.array([[0, 0, 0.01], [0, 0, 0]])
    )
    with pytest.raises(LabelFailure, match="the geometry changed") as caught:
        made(potentials, "replay", str(recorded), whole, program=program, **settings).label(moved)
    assert caught.value.kind is FailureKind.INCONSISTENT


def _incar(path: Path) -> dict[str, str]:
    return {
        tag.strip(): value.strip() for tag, _, value in (row.partition("=") for row in path.read_text().splitlines())
    }


# -- theories ------------------------------------------------------------------------------------------------------


def test_the_theory_is_settings_version_and_datasets(potentials: Path) -> None:
    spec = made(potentials).theory()
    assert spec.code == "vasp 6.4.2"
    assert set(spec.files) == {"paw Cu", "paw Ni"}
    assert spec.settings["encut"] == 520.0
    assert "auto" not in json.dumps(spec.settings).lower()
    again = labeler_for_theory("vasp", spec.settings, spec.fingerprint, worker=worker(potentials))
    assert again.theory().fingerprint == spec.fingerprint


def test_what_changes_the_fingerprint(potentials: Path, tmp_path: Path) -> None:
    usual = made(potentials).theory().fingerprint
    assert made(potentials, "ok", program={"version": "6.4.3"}).theory().fingerprint == usual
    assert made(potentials, parallel={"NCORE": 4}).theory().fingerprint == usual
    assert made(potentials, "other", "command").theory().fingerprint == usual
    assert made(potentials, program={"version": "6.5.0"}).theory().fingerprint != usual
    assert made(potentials, encut=500.0).theory().fingerprint != usual
    assert made(potentials, incar={"IVDW": 12}).theory().fingerprint != usual
    other = write_datasets(tmp_path / "elsewhere")
    assert made(other).theory().fingerprint == usual
    (other / "Cu" / "POTCAR").write_text((other / "Cu" / "POTCAR").read_text().replace("tables", "other tables"))
    assert made(other).theory().fingerprint != usual


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ({"version": None}, "needs `version`"),
        ({"potentials": None}, "needs `potentials`"),
        ({"potentials": "/nowhere/paw"}, "does not exist"),
    ],
)
def test_a_worker_file_that_says_too_little(potentials: Path, program: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        made(potentials, program=program)


def test_a_program_that_the_worker_does_not_know(potentials: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'vasp'"):
        VaspLabeler(VaspSettings(potcars=CU_NI, program="vasq"), worker=worker(potentials))


def test_datasets_of_another_functional(potentials: Path) -> None:
    with pytest.raises(ConfigError, match="LEXCH = PE, but PAW Au 04Oct2007"):
        made(potentials, potcars={"Au": "Au_lda"}).theory()
    assert made(potentials, potcars={"Au": "Au_lda"}, functional="lda").theory().files
    with pytest.raises(ConfigError, match="mix none"):
        made(potentials, potcars={"Au": "Au_lda", "Cu": "Cu"}, functional="incar", incar={"GGA": "PE"}).theory()
