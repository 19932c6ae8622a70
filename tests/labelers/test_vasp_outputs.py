"""Recorded runs of VASP, read and compared with their own text and with pymatgen; VASP itself cannot run here."""

from __future__ import annotations

import gzip
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers import VaspRun, read_vasp_run
from alflow.labelers._vasp_outputs import KBAR

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> Path:
    path = shared_data / "vasp"
    if not path.is_dir():
        pytest.skip(f"no recorded runs of VASP at {path}: set ALFLOW_TEST_DATA to a folder that holds them")
    return path


def text_of(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


def numbers(words: str) -> list[float]:
    """VASP lets numbers touch: -12353.08821-12353.08821."""
    return [float(word) for word in re.findall(r"[-+]?\d*\.\d+(?:E[-+]?\d+)?", words)]


def told_by_outcar(text: str) -> list[dict[str, Any]]:
    """Energies, stress and forces of every ionic step, by regular expressions of this test's own."""
    steps = []
    for part in text.split("FREE ENERGIE OF THE ION-ELECTRON SYSTEM")[:-1]:
        rest = text[text.index(part) + len(part) :]
        table = part[part.rindex("TOTAL-FORCE (eV/Angst)") :].split("-----\n")[1]
        rows = [numbers(line) for line in table.splitlines() if len(numbers(line)) == 6]
        steps.append(
            {
                "free": float(re.search(r"free  energy   TOTEN  =\s+(\S+) eV", rest).group(1)),  # type: ignore[union-attr]
                "extrapolated": float(re.search(r"energy\(sigma->0\) =\s+(\S+)", rest).group(1)),  # type: ignore[union-attr]
                "kbar": numbers(part[part.rindex("  in kB") :].splitlines()[0]),
                "forces": np.array(rows)[:, 3:],
            }
        )
    return steps


def voigt_of_vasp(stress: Array | None) -> Array:
    """Eight to ten characters of the text: kbar, positive where the cell wants to grow, xx yy zz xy yz zx."""
    assert stress is not None
    s = -stress / KBAR
    return np.array([s[0, 0], s[1, 1], s[2, 2], s[0, 1], s[1, 2], s[2, 0]])


# -- every number is the file's ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "outcar", "n_steps"),
    [
        ("static_silicon", "static_silicon/OUTCAR", 1),
        ("fe_monomer", "fe_monomer/OUTCAR", 1),
        ("relaxation", "relaxation/OUTCAR", 3),
        ("static_silicon/OUTCAR", "static_silicon/OUTCAR", 1),
        ("relaxation/OUTCAR", "relaxation/OUTCAR", 3),
        ("single/OUTCAR.vasp.6.2.0.gz", "single/OUTCAR.vasp.6.2.0.gz", 4),
        ("single/OUTCAR.NiO_SOC.gz", "single/OUTCAR.NiO_SOC.gz", 1),
    ],
)
def test_energies_forces_and_stress_are_those_of_the_text(recorded: Path, name: str, outcar: str, n_steps: int) -> None:
    run = read_vasp_run(recorded / name)
    told = told_by_outcar(text_of(recorded / outcar))
    assert len(run.steps) == len(told) == n_steps
    assert run.complete
    for step, said in zip(run.steps, told, strict=True):
        assert step.converged
        assert step.properties.energy == pytest.approx(said["free"], abs=1.1e-6)
        assert step.properties.energy_extrapolated == pytest.approx(said["extrapolated"], abs=1.1e-6)
        assert step.properties.forces is not None
        np.testing.assert_allclose(np.asarray(step.properties.forces), said["forces"], atol=2e-6)
        np.testing.assert_allclose(voigt_of_vasp(step.properties.stress), said["kbar"], rtol=1e-6, atol=2e-5)


def test_energies_are_the_numbers_that_a_person_reads(recorded: Path) -> None:
    """Copied by hand from the files."""
    silicon = read_vasp_run(recorded / "static_silicon").steps[0].properties
    assert (silicon.energy, silicon.energy_extrapolated) == (-10.64527774, -10.64527774)
    iron = read_vasp_run(recorded / "single" / "OUTCAR.vasp.6.2.0.gz").steps[-1].properties
    assert (iron.energy, iron.energy_extrapolated) == (-8.27069271, -8.27088608)
    np.testing.assert_allclose(voigt_of_vasp(iron.stress), np.array([0.96328] * 3 + [0.0] * 3), atol=1e-6)
    lithium = [step.properties.energy for step in read_vasp_run(recorded / "relaxation").steps]
    assert lithium == [-1.92002016, -1.92218027, -1.92459954]


def test_the_extrapolated_energy_of_old_versions_is_not_taken_where_it_is_wrong(recorded: Path) -> None:
    """In vasprun.xml of 5.4.4 it stands as 2.059e-05 and -0.00024694: the entropy."""
    steps = read_vasp_run(recorded / "single" / "vasprun.Al.xml.gz").steps
    assert [step.properties.energy for step in steps] == [-3.74044075, -3.74204295]
    extrapolated = [step.properties.energy_extrapolated for step in steps]
    assert extrapolated == pytest.approx([-3.74044590, -3.74198121], abs=1e-8)


def test_moments_are_those_of_the_table(recorded: Path) -> None:
    iron = read_vasp_run(recorded / "single" / "OUTCAR.vasp.6.2.0.gz")
    assert [float(np.asarray(step.properties.moments)[0]) for step in iron.steps] == [2.215, 2.169, 2.194, 2.191]
    assert [step.properties.total_moment for step in iron.steps] == [2.1803523, 2.1368765, 2.1592535, 2.1566066]
    oxide = read_vasp_run(recorded / "single" / "OUTCAR.NiO_SOC.gz").steps[0].properties
    expected = np.array([[0, 0, 1.671], [0, 0, -1.671], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(np.asarray(oxide.moments), expected, atol=1e-12)
    assert oxide.total_moment is None


def test_what_pymatgen_reads_is_the_same(recorded: Path) -> None:
    from pymatgen.io.vasp.outputs import Outcar, Vasprun

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted((recorded / "single").glob("vasprun*")):
            if "bad" in path.name:
                continue
            theirs, ours = (
                Vasprun(path, parse_potcar_file=False, parse_dos=False, parse_eigen=False),
                read_vasp_run(path),
            )
            assert [s.properties.energy for s in ours.steps] == [s["e_fr_energy"] for s in theirs.ionic_steps]
            last = ours.steps[-1].structure.to_pymatgen()
            assert last.lattice.matrix == pytest.approx(theirs.ionic_steps[-1]["structure"].lattice.matrix, abs=1e-9)
            assert [s.symbol for s in last.species] == theirs.atomic_symbols
            if "dfpt" not in path.name:
                assert all(s.converged for s in ours.steps) == theirs.converged_electronic
        for name in ("static_silicon", "relaxation", "fe_monomer"):
            outcar, last = Outcar(recorded / name / "OUTCAR"), read_vasp_run(recorded / name).steps[-1].properties
            assert [row["tot"] for row in outcar.magnetization] == np.asarray(last.moments).tolist()
            assert outcar.total_mag == last.total_moment


# -- what is known of a run ----------------------------------------------------------------------------------------


def test_what_a_run_says_about_itself(recorded: Path) -> None:
    silicon, lithium = read_vasp_run(recorded / "static_silicon"), read_vasp_run(recorded / "relaxation")
    assert (silicon.version, silicon.relaxed, lithium.relaxed) == ("5.2.12", False, True)
    assert silicon.titles == ("PAW_PBE Si 05Jan2001",)
    assert (silicon.n_kpoints, silicon.steps[0].scf_steps) == (10, 13)
    assert silicon.steps[0].convergence == "EDIFF = 2e-06 is reached; 13 electronic steps, NELM = 100"
    assert (silicon.values["ENMAX"], silicon.values["NSW"], silicon.values["ISMEAR"]) == (100.0, 0, -5)
    np.testing.assert_array_equal(np.asarray(silicon.steps[0].structure.moments), [0.6, 0.6])
    assert [path.name for path in silicon.files] == ["vasprun.xml.gz", "OUTCAR"]


def test_outcar_alone_says_the_same_as_both(recorded: Path) -> None:
    for name in ("static_silicon", "relaxation", "fe_monomer"):
        both, alone = read_vasp_run(recorded / name), read_vasp_run(recorded / name / "OUTCAR")
        assert (both.version, both.titles, both.charge) == (alone.version, alone.titles, alone.charge)
        for tag in ("NELM", "EDIFF", "NSW", "ISPIN", "ENMAX", "ISMEAR", "SIGMA", "NELECT"):
            assert float(both.values[tag]) == pytest.approx(float(alone.values[tag]), abs=1e-8), tag
        for one, other in zip(both.steps, alone.steps, strict=True):
            assert one.scf_steps == other.scf_steps
            np.testing.assert_allclose(one.structure.cell, other.structure.cell, atol=1e-8)
            np.testing.assert_allclose(one.structure.positions, other.structure.positions, atol=1e-5)


def test_a_charged_run_is_charged(recorded: Path) -> None:
    """Nine electrons for two silicon atoms: it must never pass for a neutral crystal."""
    run = read_vasp_run(recorded / "single" / "vasprun.charged.xml.gz")
    assert run.charge == -1.0
    assert {step.structure.charge for step in run.steps} == {-1.0}


def test_every_step_of_dynamics(recorded: Path) -> None:
    run = read_vasp_run(recorded / "single" / "vasprun.md.xml.gz")
    assert (run.version, len(run.steps), run.relaxed) == ("6.3.2", 10, False)
    assert all(step.converged for step in run.steps)
    assert len({step.structure.content_hash for step in run.steps}) == 10
    assert run.steps[-1].properties.energy_extrapolated == pytest.approx(-327.73014059, abs=1e-8)
    assert abs(np.asarray(run.steps[-1].properties.forces).sum(axis=0)).max() / 64 < 0.01


# -- what is no label ----------------------------------------------------------------------------------------------


def test_an_unconverged_linear_response_is_not_converged(recorded: Path) -> None:
    run = read_vasp_run(recorded / "single" / "vasprun.dfpt.unconverged.xml.gz")
    assert run.complete
    assert [step.converged for step in run.steps] == [False]
    assert "IBRION = 8" in run.steps[0].convergence


def test_a_truncated_file_is_not_complete(recorded: Path) -> None:
    run = read_vasp_run(recorded / "single" / "vasprun.bad.xml.gz")
    assert not run.complete
    assert not run.relaxed
    assert [step.properties.energy for step in run.steps] == [-269.00551374]


def cut(run: Path, folder: Path, *, xml: str | None = None, outcar: str | None = None) -> VaspRun:
    """Read copies of both files that end where a word stands first."""
    folder.mkdir()
    for name, source, word in (("vasprun.xml", "vasprun.xml.gz", xml), ("OUTCAR", "OUTCAR", outcar)):
        text = text_of(run / source)
        (folder / name).write_text(text if word is None else text[: text.index(word)])
    return read_vasp_run(folder)


def test_a_killed_relaxation_gives_its_complete_steps(recorded: Path, tmp_path: Path) -> None:
    third = "Iteration    3(   2)"
    run = cut(recorded / "relaxation", tmp_path / "outcar", outcar=third)
    assert (run.complete, run.relaxed, len(run.steps)) == (False, False, 3)
    alone = read_vasp_run(tmp_path / "outcar" / "OUTCAR")
    assert (alone.complete, len(alone.steps)) == (False, 2)
    text = text_of(recorded / "relaxation" / "vasprun.xml.gz")
    second = text.index("<calculation>", text.index("</calculation>"))
    shutil.copy(recorded / "relaxation" / "OUTCAR", tmp_path / "OUTCAR")
    (tmp_path / "vasprun.xml").write_text(text[: second + 3000])
    run = read_vasp_run(tmp_path)
    assert (run.complete, len(run.steps)) == (False, 1)
    assert run.steps[0].converged


@pytest.mark.parametrize("word", ["<parameters>", "<atominfo>", "<calculation>"])
def test_without_a_header_the_outcar_speaks(recorded: Path, tmp_path: Path, word: str) -> None:
    run = cut(recorded / "static_silicon", tmp_path / "job", xml=word)
    assert not run.complete
    assert run.steps[0].properties.energy == -10.645278
    with pytest.raises(LabelFailure, match="ends before its first ionic step") as caught:
        read_vasp_run(tmp_path / "job" / "vasprun.xml")
    assert caught.value.kind is FailureKind.TRUNCATED


@pytest.mark.parametrize("word", ["INCAR:", "ions per type", "Iteration    1(   4)"])
def test_an_outcar_without_a_step_is_truncated(recorded: Path, tmp_path: Path, word: str) -> None:
    text = text_of(recorded / "static_silicon" / "OUTCAR")
    (tmp_path / "OUTCAR").write_text(text[: text.index(word)])
    with pytest.raises(LabelFailure) as caught:
        read_vasp_run(tmp_path)
    assert caught.value.kind is FailureKind.TRUNCATED


def ending(folder: Path) -> str:
    try:
        return "complete" if read_vasp_run(folder).complete else "incomplete"
    except LabelFailure as failure:
        return failure.kind


@pytest.mark.parametrize("name", ["vasprun.xml", "OUTCAR"])
def test_any_cut_is_noticed(recorded: Path, tmp_path: Path, name: str) -> None:
    """Wherever a file ends, the run is not complete, or it is a typed failure; never another exception."""
    source = recorded / "static_silicon" / ("vasprun.xml.gz" if name == "vasprun.xml" else name)
    text = text_of(source)
    end = text.index("General timing") if name == "OUTCAR" else len(text.rstrip())
    for length in np.linspace(0, end - 1, 25).astype(int):
        (tmp_path / name).write_text(text[:length])
        assert ending(tmp_path) in {"incomplete", FailureKind.TRUNCATED}, length


def test_five_says_that_ediff_is_reached_after_its_last_step_too(recorded: Path, tmp_path: Path) -> None:
    """Silicon took 13 electronic steps; with NELM = 13 nobody knows whether it would have gone on."""
    for name, source in (("vasprun.xml", "vasprun.xml.gz"), ("OUTCAR", "OUTCAR")):
        text = text_of(recorded / "static_silicon" / source)
        text = text.replace("NELM   =    100;", "NELM   =     13;").replace('"NELM">   100<', '"NELM">    13<')
        (tmp_path / name).write_text(text)
    for path in (tmp_path, tmp_path / "OUTCAR", tmp_path / "vasprun.xml"):
        step = read_vasp_run(path).steps[0]
        assert not step.converged
        assert "13 electronic steps, NELM = 13" in step.convergence


def test_a_run_that_was_stopped_is_not_converged(recorded: Path, tmp_path: Path) -> None:
    text = text_of(recorded / "static_silicon" / "OUTCAR")
    mark = "------------------------ aborting loop because"
    (tmp_path / "OUTCAR").write_text(text.replace(mark, f" hard stop encountered!  aborting job ...\n{mark}"))
    step = read_vasp_run(tmp_path).steps[0]
    assert (step.converged, step.convergence) == (False, "VASP was stopped by a STOPCAR")


def test_a_density_that_is_not_iterated_gives_no_energy(recorded: Path, tmp_path: Path) -> None:
    text = text_of(recorded / "static_silicon" / "OUTCAR")
    (tmp_path / "OUTCAR").write_text(text.replace("ICHARG =      2", "ICHARG =     11"))
    assert not read_vasp_run(tmp_path).steps[0].converged


def test_without_outcar_the_last_change_must_be_below_ediff(recorded: Path, tmp_path: Path) -> None:
    text = text_of(recorded / "single" / "vasprun.LiF.xml.gz")
    (tmp_path / "vasprun.xml").write_text(text.replace('"EDIFF">      0.00001000', '"EDIFF">      0.00000100'))
    step = read_vasp_run(tmp_path).steps[0]
    assert not step.converged
    assert "the last change of the energy is 1.4e-06 eV, EDIFF = 1e-06" in step.convergence


def test_files_of_two_runs_are_noticed(recorded: Path, tmp_path: Path) -> None:
    shutil.copy(recorded / "static_silicon" / "OUTCAR", tmp_path)
    shutil.copy(recorded / "fe_monomer" / "vasprun.xml.gz", tmp_path)
    with pytest.raises(LabelFailure, match="files of two runs") as caught:
        read_vasp_run(tmp_path)
    assert caught.value.kind is FailureKind.INCONSISTENT
    shutil.copy(recorded / "relaxation" / "vasprun.xml.gz", tmp_path)
    with pytest.raises(LabelFailure, match=r"has 3 ionic steps, .*OUTCAR 1: files of two runs"):
        read_vasp_run(tmp_path)


def test_energies_of_machine_learned_force_fields_are_refused(recorded: Path, tmp_path: Path) -> None:
    text = text_of(recorded / "single" / "vasprun.md.xml.gz")
    tag = '<i type="logical" name="ML_LMLFF"> T  </i>'
    (tmp_path / "vasprun.xml").write_text(text.replace("<incar>", f"<incar>\n  {tag}", 1))
    with pytest.raises(LabelFailure, match="ML_LMLFF") as caught:
        read_vasp_run(tmp_path)
    assert caught.value.kind is FailureKind.REFUSED


def test_an_empty_folder_and_a_missing_one(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(LabelFailure, match=r"neither vasprun\.xml nor OUTCAR") as caught:
            read_vasp_run(path)
        assert caught.value.kind is FailureKind.MISSING_FILE


def test_stars_instead_of_a_number_give_no_label(recorded: Path, tmp_path: Path) -> None:
    text = text_of(recorded / "static_silicon" / "OUTCAR")
    (tmp_path / "OUTCAR").write_text(text.replace("TOTEN  =       -10.645278 eV", "TOTEN  = ***************** eV"))
    step = read_vasp_run(tmp_path).steps[0]
    assert not step.converged
    assert "do not fit into their columns" in step.convergence
