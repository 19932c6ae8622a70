"""The labeler gpaw against a stand-in: the script that runs is the real one, GPAW is not."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, fcc100, molecule

from alflow.config import CampaignConfig
from alflow.errors import ConfigError, FailureKind, LabelFailure
from alflow.labelers import GpawLabeler, GpawSettings, ProgramSettings, WorkerConfig, check_labeler, get_labeler
from alflow.labelers._gpaw import LADDER
from alflow.structures import Structure

STAND_IN = Path(__file__).with_name("gpaw_stand_in")
DATASET = b"<paw_dataset>Al, PBE</paw_dataset>"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "Al.PBE.gz").write_bytes(gzip.compress(DATASET))
    (folder / "Ni.10.PBE").write_bytes(b"<paw_dataset>Ni, 10 electrons</paw_dataset>")
    return folder


@pytest.fixture(autouse=True)
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_MOOD", "fine")


def worker(datasets: Path, *, prints: str = "26.7.0", **program: Any) -> WorkerConfig:
    environment = {"PYTHONPATH": str(STAND_IN), "STAND_IN_VERSION": prints}
    content = {"command": [sys.executable], "environment": environment, "potentials": str(datasets), **program}
    return WorkerConfig.model_validate({"programs": {"gpaw": {"free_disk_gb": 0.0, **content}}})


def labeler(datasets: Path, settings: dict[str, Any] | None = None, **program: Any) -> GpawLabeler:
    made = get_labeler("gpaw", {"setups": {"Al": "paw"}, **(settings or {})}, worker=worker(datasets, **program))
    assert isinstance(made, GpawLabeler)
    return made


@pytest.fixture
def aluminium() -> Structure:
    atoms = bulk("Al", cubic=True)
    atoms.rattle(0.05, seed=2)
    return Structure.from_atoms(atoms)


# -- labels ----------------------------------------------------------------------------------------------------------


def test_it_keeps_the_promises_of_a_labeler(datasets: Path, aluminium: Structure) -> None:
    made = labeler(datasets, settings={"cutoff": 2000.0})  # where the stand-in has no Pulay stress
    refused = Structure.from_atoms(molecule("H2O"))
    check_labeler(made, [aluminium, refused], worker=worker(datasets))


def test_free_and_extrapolated_energy_and_the_evidence(datasets: Path, aluminium: Structure, tmp_path: Path) -> None:
    result = labeler(datasets, settings={"k_spacing": 0.5}).label(aluminium, tmp_path / "job")
    properties, evidence = result.properties, result.evidence
    assert properties.energy_extrapolated == pytest.approx(properties.energy + 0.001)
    assert properties.moments is None
    assert evidence["converged"] is True
    assert evidence["convergence"] == "GPAW: Converged in 12 steps"
    assert evidence["kpoints"] == [4, 4, 4]
    assert (evidence["version"], evidence["libxc"], evidence["rung"]) == ("26.7.0", "7.0.0", 0)
    assert (evidence["width"], evidence["charge"], evidence["starting_moments"]) == (0.05, 0.0, None)
    assert {"run-1/gpaw.txt", "run-1/job.json", "run-1/gpaw_run.py", "run-1/result.json"} <= set(result.files)


def test_what_gpaw_is_told(datasets: Path, aluminium: Structure, tmp_path: Path) -> None:
    labeler(datasets, settings={"cutoff": 350, "grid": 1.2, "width": 0.1, "k_spacing": 0.4}).prepare(
        aluminium, tmp_path / "job"
    )
    job = json.loads((tmp_path / "job/run-1/job.json").read_text())
    # h in Bohr and the cutoff in Hartree: π/h = √(8 cutoff) / grid, twice the largest wave vector of a wave function.
    assert job["parameters"].pop("h") / 0.529177 == pytest.approx(1.2 * np.pi / (8 * 350 / 27.2114) ** 0.5, rel=1e-5)
    assert job["parameters"] == {
        "mode": {"name": "pw", "ecut": 350.0},
        "xc": "PBE",
        "setups": {"Al": "paw"},
        "kpts": {"size": [4, 4, 4], "gamma": True},
        "occupations": {"name": "fermi-dirac", "width": 0.1},
        "spinpol": False,
        "charge": 0.0,
        "convergence": {"energy": 1e-5, "density": 1e-5},
        "maxiter": LADDER[0].max_steps,
    }


def test_a_cutoff_too_low_for_the_stress_is_said(datasets: Path, aluminium: Structure) -> None:
    low = labeler(datasets, settings={"cutoff": 300.0}).label(aluminium)
    expected = -2 * 300 / (3 * aluminium.volume) * 4 * 5 * np.exp(-3) / 100 / 2  # the stand-in says half of the truth
    assert low.evidence["pulay_estimate"] == pytest.approx(expected)
    (warning,) = low.warnings
    assert warning == (
        "the cutoff of 300 eV is low for the stress: GPAW estimates a Pulay stress of "
        f"{expected * 160.21766:.1f} GPa; raise it until this warning is gone"
    )
    assert not labeler(datasets, settings={"cutoff": 900.0}).label(aluminium).warnings


def test_moments_start_where_the_structure_or_the_settings_say(datasets: Path, aluminium: Structure) -> None:
    settings = {"spin": "collinear", "starting_moments": {"Al": 0.5}}
    made = labeler(datasets, settings=settings)
    result = made.label(aluminium)
    assert result.evidence["starting_moments"] == [0.5] * 4
    assert result.properties.moments == pytest.approx([0.25] * 4)
    assert result.properties.total_moment == pytest.approx(1.0)
    atoms = aluminium.to_atoms()
    atoms.set_initial_magnetic_moments([1, -1, 2, 0])
    result = made.label(Structure.from_atoms(atoms))
    assert result.evidence["starting_moments"] == [1, -1, 2, 0]
    assert result.properties.total_moment == pytest.approx(1.0)
    assert labeler(datasets).refuses(Structure.from_atoms(atoms)) == "initial magnetic moments, which it would ignore"


# -- directions that are not periodic ----------------------------------------------------------------------------------


def test_a_molecule_gets_its_box_whatever_cell_it_brings(datasets: Path) -> None:
    made = labeler(datasets, settings={"vacuum": 4.0})
    dimer = Atoms("Al2", positions=[[9, 9, 9], [9, 9.5, 11.5]])
    boxed = dimer.copy()
    boxed.set_cell([30, 30, 30])
    bare, with_cell = (made.label(Structure.from_atoms(atoms)) for atoms in (dimer, boxed))
    assert bare.properties.energy == with_cell.properties.energy
    assert bare.properties.stress is None
    assert np.allclose(bare.evidence["box"], np.diag([8, 8.5, 10.5]))
    assert bare.structure == Structure.from_atoms(dimer)


def test_a_slab_is_sampled_in_its_plane_only(datasets: Path) -> None:
    slab = fcc100("Al", (1, 1, 2), vacuum=2)
    result = labeler(datasets, settings={"vacuum": 5.0}).label(Structure.from_atoms(slab))
    assert result.evidence["kpoints"] == [9, 9, 1]
    assert np.asarray(result.evidence["box"])[2] == pytest.approx([0, 0, 10 + np.ptp(slab.positions[:, 2])])


# -- refusals --------------------------------------------------------------------------------------------------------


def test_what_it_refuses(datasets: Path, aluminium: Structure) -> None:
    crystals, everything = labeler(datasets), labeler(datasets, settings={"vacuum": 4.0})
    assert crystals.refuses(aluminium) is None
    assert crystals.refuses(Structure.from_atoms(bulk("Cu"))) == "no parameters for Cu, only for Al"
    dimer = Atoms("Al2", positions=[[0, 0, 0], [0, 0, 2.5]])
    assert (
        crystals.refuses(Structure.from_atoms(dimer)) == "0 periodic directions, and no `vacuum` is set for the others"
    )
    assert everything.refuses(Structure.from_atoms(dimer)) is None
    dimer.info["charge"] = 1.0
    charged = Structure.from_atoms(dimer)
    assert charged.charge == 1.0
    assert everything.refuses(charged) is None
    atoms = aluminium.to_atoms()
    atoms.info["charge"] = 1.0
    assert "depends on the background" in str(everything.refuses(Structure.from_atoms(atoms)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "setups"),
        ({"setups": {}}, "setups"),
        ({"setups": {"Aluminium": "paw"}}, "no element 'Aluminium'"),
        ({"setups": {"Sx": "paw"}}, r"setups.*there is no element 'Sx'; did you mean 'S"),
        ({"setups": {"X": "paw"}}, "no element 'X'; did you mean 'Xe'"),
        ({"setups": {"Al": "../secret"}}, "setups"),
        ({"setups": {"Al": "paw"}, "cutof": 400}, "did you mean `cutoff`"),
        ({"setups": {"Al": "paw"}, "spin": "collinear"}, "needs starting_moments of Al"),
        ({"setups": {"Al": "paw"}, "starting_moments": {"Al": 1}}, "need spin: collinear"),
        (
            {"setups": {"Al": "paw"}, "spin": "collinear", "starting_moments": {"Al": 1, "Ni": 1}},
            "of Ni: no such element",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_one_clear_error(datasets: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        get_labeler("gpaw", settings, worker=worker(datasets))


# -- the installation --------------------------------------------------------------------------------------------------


def test_datasets_count_by_content(datasets: Path, tmp_path: Path) -> None:
    spec = labeler(datasets).theory()
    assert spec.files == {"Al": hashlib.sha256(DATASET).hexdigest()}
    assert spec.code == "gpaw 26.7"
    prints = []
    for name, content in (("same", DATASET), ("other", DATASET + b" ")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Al.PBE").write_bytes(content)  # not packed, in another place
        prints.append(labeler(tmp_path / name).theory().fingerprint)
    assert prints[0] == spec.fingerprint
    assert prints[1] != spec.fingerprint


def test_a_dataset_of_another_kind_is_another_theory(datasets: Path) -> None:
    named = labeler(datasets, settings={"setups": {"Ni": "10"}})
    assert named.theory().files == {"Ni": hashlib.sha256((datasets / "Ni.10.PBE").read_bytes()).hexdigest()}


def test_a_patch_of_gpaw_is_no_other_theory(datasets: Path) -> None:
    here, patched, newer = (labeler(datasets, prints=v).theory() for v in ("26.7.0", "26.7.1", "26.8.0"))
    assert patched.fingerprint == here.fingerprint
    assert newer.fingerprint != here.fingerprint


@pytest.mark.parametrize("version", ["26", "26.7", "26.7.0"])
def test_a_stated_version_may_be_short(datasets: Path, version: str) -> None:
    assert labeler(datasets, version=version).theory().code == "gpaw 26.7"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ({"version": "25.1"}, r"version is 25\.1, but .* runs GPAW 26\.7\.0"),
        ({"version": "2"}, "version is 2, but"),
        ({"command": ["no-such-python"]}, "`no-such-python` cannot be run"),
        ({"command": ["true"]}, "`true` does not run Python scripts"),
        ({"environment": {"STAND_IN_MOOD": "broken", "PYTHONPATH": str(STAND_IN)}}, r"GPAW \(ImportError: libxc"),
        ({"prints": "25.1.0"}, r"26\.7 or newer is needed"),
        ({"potentials": "/no/such/folder"}, "/no/such/folder is not a folder"),
    ],
)
def test_an_installation_that_cannot_be_used_is_one_clear_error(
    datasets: Path, program: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        labeler(datasets, **program).theory()


@pytest.mark.parametrize("answer", ["[26]", "26.7", "null", '"gpaw"'])
def test_an_answer_that_is_json_but_no_description_is_refused(datasets: Path, tmp_path: Path, answer: str) -> None:
    program = tmp_path / "answers"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    with pytest.raises(ConfigError, match=r"answers .* instead of what GPAW it has: correct `command`"):
        labeler(datasets, command=[str(program)]).theory()


def test_a_missing_dataset_is_named(datasets: Path) -> None:
    with pytest.raises(ConfigError, match=r"finds no PAW dataset Si\.PBE: `pip install gpaw-data` there"):
        labeler(datasets, settings={"setups": {"Al": "paw", "Si": "paw"}}).theory()


def test_without_an_entry_it_is_this_python_or_an_error_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GpawSettings(setups={"Al": "paw"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"write `programs: gpaw: command: .*pip install gpaw"):
        GpawLabeler.create(settings, worker=WorkerConfig(), directory=Path())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    made = GpawLabeler.create(settings, worker=WorkerConfig(), directory=Path())
    assert made.program == ProgramSettings(command=(sys.executable,))
    elsewhere = GpawSettings(setups={"Al": "paw"}, program="gpaw-mpi")
    with pytest.raises(ConfigError, match="programs: gpaw-mpi: command"):
        GpawLabeler.create(elsewhere, worker=WorkerConfig(), directory=Path())


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mood", "kind", "words"),
    [
        ("hopeless", FailureKind.NOT_CONVERGED, f"did not converge within {LADDER[-1].max_steps} steps"),
        ("says nothing", FailureKind.NOT_CONVERGED, "does not say: Converged in 12 steps"),
        ("close", FailureKind.REFUSED, "AtomsTooClose: Atoms are too close"),
        ("unsupported", FailureKind.REFUSED, "stress of this functional"),
        ("memory", FailureKind.MEMORY, "MemoryError"),
        ("disk", FailureKind.DISK_FULL, "No space left"),
        ("dataset", FailureKind.MISSING_FILE, 'PAW dataset file "Al.PBE"'),
        ("bug", FailureKind.CRASHED, "ZeroDivisionError: division by zero"),
        ("silent death", FailureKind.TRUNCATED, r"result\.json was not written: it said nothing"),
        ("moves", FailureKind.INCONSISTENT, "the geometry changed: positions by up to 0.01"),
    ],
)
def test_every_failure_is_recognised_as_what_it_is(
    datasets: Path,
    aluminium: Structure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mood: str,
    kind: FailureKind,
    words: str,
) -> None:
    monkeypatch.setenv("STAND_IN_MOOD", mood)
    with pytest.raises(LabelFailure, match=words) as caught:
        labeler(datasets).label(aluminium, tmp_path / "job")
    assert caught.value.kind is kind


def test_the_ladder_changes_numerics_and_nothing_else(
    datasets: Path, aluminium: Structure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_MOOD", "hard")
    result = labeler(datasets).label(aluminium, tmp_path / "job")
    assert (result.evidence["runs"], result.evidence["rung"]) == (2, 1)
    jobs = [json.loads((tmp_path / f"job/run-{n}/job.json").read_text()) for n in (1, 2)]
    physics = [
        {k: v for k, v in job["parameters"].items() if k not in {"mixer", "eigensolver", "maxiter"}} for job in jobs
    ]
    assert physics[0] == physics[1]
    assert jobs[0]["parameters"] != jobs[1]["parameters"]
    assert all(set(rung.keywords) <= {"mixer", "eigensolver"} for rung in LADDER)
    assert list(LADDER) == sorted(LADDER, key=lambda rung: rung.max_steps)


def test_an_upgrade_under_a_running_worker_is_no_label(aluminium: Structure, tmp_path: Path) -> None:
    (tmp_path / "Al.PBE").write_bytes(DATASET)
    made = labeler(tmp_path)
    made.theory()
    (tmp_path / "Al.PBE").write_bytes(DATASET + b"!")
    with pytest.raises(LabelFailure, match="computed with other data for Al") as caught:
        made.label(aluminium)
    assert caught.value.kind is FailureKind.INCONSISTENT


def test_a_damaged_result_is_truncated(datasets: Path, aluminium: Structure, tmp_path: Path) -> None:
    made = labeler(datasets)
    made.label(aluminium, tmp_path / "job")
    for damage in ("", '{"energy": -1', "[]", '{"energy": -1.0}'):
        (tmp_path / "job/run-1/result.json").write_text(damage)
        with pytest.raises(LabelFailure) as caught:
            made.parse(tmp_path / "job")
        assert caught.value.kind is FailureKind.TRUNCATED, damage


def test_a_text_that_is_gone_is_said(datasets: Path, aluminium: Structure, tmp_path: Path) -> None:
    made = labeler(datasets)
    made.label(aluminium, tmp_path / "job")
    (tmp_path / "job/run-1/gpaw.txt").unlink()
    with pytest.raises(LabelFailure, match=r"gpaw\.txt is gone") as caught:
        made.parse(tmp_path / "job")
    assert caught.value.kind is FailureKind.MISSING_FILE


def test_the_files_of_the_page_are_valid(datasets: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "labelers.md").read_text(encoding="utf-8")
    section = page[page.index("## `gpaw`") :]
    local, campaign = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)[:2])
    theory = CampaignConfig.model_validate(campaign).theory
    assert theory.labeler == "gpaw"
    assert "Si" in GpawSettings.model_validate(theory.settings).setups
    assert WorkerConfig.model_validate(local).programs["gpaw"].wall_seconds == 3600


def test_the_script_needs_nothing_of_alflow() -> None:
    import alflow.labelers._gpaw_run as script

    assert "import alflow" not in Path(script.__file__).read_text()
    assert "from alflow" not in Path(script.__file__).read_text()
