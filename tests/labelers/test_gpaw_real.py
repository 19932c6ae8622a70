"""The labeler gpaw with GPAW itself: physics, ladder and limits, on cells of one to four atoms.

The Python with GPAW is named by ``ALFLOW_TEST_GPAW``; without it, GPAW beside alflow is used; without that, all of this
is skipped.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from alflow.errors import ConfigError, FailureKind, LabelFailure
from alflow.labelers import GpawLabeler, LabelResult, WorkerConfig, _gpaw, check_labeler, get_labeler
from alflow.structures import Structure

PYTHON = os.environ.get("ALFLOW_TEST_GPAW") or (sys.executable if importlib.util.find_spec("gpaw") else None)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(PYTHON is None, reason="no GPAW: set ALFLOW_TEST_GPAW to a Python that has it"),
]

SILICON = {"setups": {"Si": "paw"}, "cutoff": 300.0, "k_spacing": 1.1}


def worker(**program: Any) -> WorkerConfig:
    content = {"command": [PYTHON], "environment": {"OMP_NUM_THREADS": "1"}, "free_disk_gb": 0.0, **program}
    return WorkerConfig.model_validate({"programs": {"gpaw": content}})


def labeler(settings: dict[str, Any], **program: Any) -> GpawLabeler:
    made = get_labeler("gpaw", settings, worker=worker(**program))
    assert isinstance(made, GpawLabeler)
    return made


def rattled(atoms: Atoms, seed: int = 3) -> Structure:
    """Away from every symmetric position, sheared."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ np.array([[1.01, 0.02, 0], [0, 0.99, 0.01], [0, 0, 1.005]]), scale_atoms=True)
    atoms.rattle(0.1, seed=seed)
    return Structure.from_atoms(atoms)


def shifted(structure: Structure, atom: int, axis: int, by: float) -> Structure:
    positions = structure.positions.copy()
    positions[atom, axis] += by
    return structure.with_geometry(cell=structure.cell, positions=positions)


def strained(structure: Structure, strain: np.ndarray[Any, Any]) -> Structure:
    deform = np.eye(3) + strain
    return structure.with_geometry(cell=structure.cell @ deform, positions=structure.positions @ deform)


def pressure_strain(made: GpawLabeler, structure: Structure, step: float = 0.005) -> float:
    """Mean of the diagonal of dE/dε / V by central differences of a volume strain, eV/Å³."""
    energies = [made.label(strained(structure, sign * step * np.eye(3))).properties.energy for sign in (1, -1)]
    return (energies[0] - energies[1]) / (2 * step * 3 * structure.volume)


def stress_of(result: LabelResult) -> np.ndarray[Any, Any]:
    assert result.properties.stress is not None
    return result.properties.stress


def test_silicon_keeps_the_promises_of_a_labeler() -> None:
    """Repeated, translated, through a directory; forces and stress against differences of 0.001 Å and 0.001."""
    check_labeler(
        labeler(SILICON),
        [rattled(bulk("Si"))],
        energy_tolerance=2e-5,
        force_tolerance=5e-3,
        stress_tolerance=1e-3,
        worker=worker(),
    )


def test_forces_of_silicon_are_differences_of_its_energies() -> None:
    made, structure = labeler(SILICON), rattled(bulk("Si"))
    forces = made.label(structure).properties.forces
    assert forces is not None
    for atom, axis in ((0, 0), (1, 2)):
        ends = [made.label(shifted(structure, atom, axis, by)).properties.energy for by in (0.01, -0.01)]
        assert forces[atom, axis] == pytest.approx(-(ends[0] - ends[1]) / 0.02, abs=2e-3)


def test_aluminium_is_a_metal_with_two_energies() -> None:
    settings = {"setups": {"Al": "paw"}, "cutoff": 300.0, "k_spacing": 0.7, "width": 0.1}
    made, structure = labeler(settings), strained(Structure.from_atoms(bulk("Al")), 0.02 * np.eye(3))
    result = made.label(structure)
    assert result.properties.energy_extrapolated is not None
    # E0 - F = TS / 2, the entropy being that of so few k-points; the two move apart with the square of the width
    assert 1e-3 < result.properties.energy_extrapolated - result.properties.energy < 0.04
    assert any("reduce the smearing" in warning for warning in result.warnings)
    assert result.evidence["kpoints"] == [4, 4, 4]
    assert np.trace(stress_of(result)) / 3 == pytest.approx(pressure_strain(made, structure), abs=5e-4)
    assert result.evidence["converged"] is True


def test_a_cutoff_too_low_for_the_stress_is_said() -> None:
    """MgO: at 400 eV the stress is off by tens of GPa while the forces look well."""
    structure = Structure.from_atoms(bulk("MgO", "rocksalt", a=4.21))
    settings = {"setups": {"Mg": "paw", "O": "paw"}, "k_spacing": 1.0}
    low, high = (labeler(settings | {"cutoff": cutoff}).label(structure) for cutoff in (400.0, 800.0))
    assert abs(np.trace(stress_of(low) - stress_of(high))) / 3 > 0.1
    assert any("GPAW estimates a Pulay stress of -" in warning for warning in low.warnings)
    assert not high.warnings


def test_iron_is_magnetic_where_it_is_told_to_be() -> None:
    settings = {"setups": {"Fe": "paw"}, "cutoff": 350.0, "k_spacing": 0.9, "width": 0.1}
    atoms = bulk("Fe")
    atoms.set_initial_magnetic_moments(None)
    iron = Structure.from_atoms(atoms)
    spin = labeler(settings | {"spin": "collinear", "starting_moments": {"Fe": 2.5}}).label(iron)
    plain = labeler(settings).label(iron)
    assert spin.properties.total_moment is not None
    assert 1.5 < spin.properties.total_moment < 3.0
    assert spin.properties.moments is not None
    assert spin.properties.energy < plain.properties.energy - 0.1
    assert plain.properties.moments is None


def test_a_charged_molecule_is_charged() -> None:
    """OH loses an electron for 13.0 eV (experiment) and becomes a triplet; both are labels of one theory."""
    spin = {"spin": "collinear", "starting_moments": {"O": 1.5, "H": 0}}
    made = labeler({"setups": {"O": "paw", "H": "paw"}, "cutoff": 400.0, "vacuum": 3.0, **spin})
    atoms = molecule("OH")
    atoms.set_initial_magnetic_moments(None)
    neutral = made.label(Structure.from_atoms(atoms))
    atoms.info["charge"] = 1.0
    cation = made.label(Structure.from_atoms(atoms))
    assert neutral.properties.total_moment == pytest.approx(1.0, abs=0.05)
    assert cation.properties.total_moment == pytest.approx(2.0, abs=0.05)
    assert 12.0 < cation.properties.energy - neutral.properties.energy < 14.0
    assert cation.evidence["charge"] == 1.0
    assert cation.properties.stress is None


def test_what_does_not_converge_is_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tuple(_gpaw.Numerics(max_steps=2, keywords=rung.keywords) for rung in _gpaw.LADDER)
    monkeypatch.setattr(_gpaw, "LADDER", short)
    with pytest.raises(LabelFailure, match="did not converge within 2 steps") as caught:
        labeler(SILICON).label(rattled(bulk("Si")), tmp_path / "job")
    assert caught.value.kind is FailureKind.NOT_CONVERGED
    assert len(list((tmp_path / "job").glob("run-*"))) == len(_gpaw.LADDER)


@pytest.mark.parametrize("spin", [False, True])
def test_every_rung_finds_the_same_solution(monkeypatch: pytest.MonkeyPatch, spin: bool) -> None:
    magnetic = {"spin": "collinear", "starting_moments": {"Al": 1.0}} if spin else {}
    made = labeler({"setups": {"Al": "paw"}, "cutoff": 200.0, "k_spacing": 1.3, "width": 0.1, **magnetic})
    structure = rattled(bulk("Al") * (2, 1, 1))
    results = []
    for rung in _gpaw.LADDER:
        monkeypatch.setattr(_gpaw, "LADDER", (rung,))
        results.append(made.label(structure))
    energies = [result.properties.energy for result in results]
    assert np.ptp(energies) < 4 * 2e-5
    forces = np.array([result.properties.forces for result in results])
    assert np.ptp(forces, axis=0).max() < 2e-3
    assert len({result.evidence["steps"] for result in results}) > 1


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"finds no PAW dataset U\.PBE"):
        labeler({"setups": {"U": "paw"}}).theory()


def test_the_launcher_of_gpaw_is_a_command_too() -> None:
    """`mpirun … gpaw python` is how GPAW wants to be started in parallel."""
    assert PYTHON is not None
    launcher = [str(Path(PYTHON).with_name("gpaw")), "python"]
    crystal = Structure.from_atoms(bulk("Si"))
    launched, plain = labeler(SILICON, command=launcher).label(crystal), labeler(SILICON).label(crystal)
    assert launched.evidence["command"][:2] == launcher
    assert launched.properties.energy == pytest.approx(plain.properties.energy, abs=1e-6)


def test_limits_are_recognised_as_what_they_are(tmp_path: Path) -> None:
    structure = Structure.from_atoms(bulk("Si", cubic=True))
    settings = SILICON | {"cutoff": 900.0, "k_spacing": 0.1}
    for limit, kind in (({"wall_seconds": 3.0}, FailureKind.WALL_TIME), ({"memory_gb": 0.05}, FailureKind.MEMORY)):
        with pytest.raises(LabelFailure, match=next(iter(limit))) as caught:
            labeler(settings, **limit).label(structure, tmp_path / kind.value)
        assert caught.value.kind is kind


def test_atoms_on_top_of_each_other_are_refused() -> None:
    crystal = bulk("Si")
    crystal.positions[1] = crystal.positions[0] + [0.005, 0, 0]
    with pytest.raises(LabelFailure, match="AtomsTooClose") as caught:
        labeler(SILICON).label(Structure.from_atoms(crystal))
    assert caught.value.kind is FailureKind.REFUSED
