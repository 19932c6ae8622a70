"""The labeler espresso with pw.x itself: its numbers against differences of its energies, its ends, its orphans."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from alflow.errors import FailureKind, LabelFailure
from alflow.folder import keeper
from alflow.labelers import EspressoLabeler, RunState, WorkerConfig, check_labeler, get_labeler
from alflow.labelers._pw_input import RUNGS
from alflow.structures import Structure
from tests.labelers.test_program import processes_in

POTENTIALS = Path(os.environ.get("ESPRESSO_PSEUDO", "/usr/share/espresso/pseudo"))
NEEDED = ("Si.pz-vbc.UPF", "Al.pz-vbc.UPF", "Ni.pbe-nd-rrkjus.UPF")
MISSING = [
    *([] if shutil.which("pw.x") else ["pw.x on the PATH (Debian: quantum-espresso)"]),
    *(f"{POTENTIALS / name} (Debian: quantum-espresso-data)" for name in NEEDED if not (POTENTIALS / name).is_file()),
]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]

SILICON: dict[str, Any] = {"pseudopotentials": {"Si": NEEDED[0]}, "ecutwfc": 20, "k_spacing": 1.2}
ALUMINIUM: dict[str, Any] = {"pseudopotentials": {"Al": NEEDED[1]}, "ecutwfc": 15, "k_spacing": 0.9, "degauss": 0.03}
NICKEL: dict[str, Any] = {
    "pseudopotentials": {"Ni": NEEDED[2]},
    "ecutwfc": 25,
    "k_spacing": 1.3,
    "degauss": 0.02,
    "conv_thr": 1e-7,
    "spin": "collinear",
}


USED_RUNGS = "alflow.labelers._espresso.RUNGS"


def worker(**limits: Any) -> WorkerConfig:
    entry = {"command": ["pw.x"], "potentials": POTENTIALS, "environment": {"OMP_NUM_THREADS": "1"}}
    return WorkerConfig.model_validate({"programs": {"espresso": entry | limits}})


def labeler(physics: dict[str, Any], **limits: Any) -> EspressoLabeler:
    made = get_labeler("espresso", physics, worker=worker(**limits))
    assert isinstance(made, EspressoLabeler)
    return made


def rattled(atoms: Atoms, seed: int) -> Structure:
    atoms.rattle(0.05, seed=seed)
    return Structure.from_atoms(atoms)


def slow_structure() -> Structure:
    """Half a minute of work for the settings of aluminium on a fast core, and more memory than a start needs."""
    return rattled(bulk("Al", cubic=True, a=4.0) * (3, 3, 2), seed=3)


@pytest.mark.parametrize(
    ("physics", "structure"),
    [
        pytest.param(SILICON, rattled(bulk("Si"), seed=1), id="Si2"),
        pytest.param(ALUMINIUM, rattled(bulk("Al", cubic=True, a=4.0), seed=2), id="Al4"),
    ],
)
def test_forces_and_stress_are_differences_of_the_energy(physics: dict[str, Any], structure: Structure) -> None:
    check_labeler(labeler(physics), [structure], worker=worker(), energy_tolerance=1e-4)


def test_insulators_may_have_fixed_occupations() -> None:
    result = labeler(SILICON | {"occupations": "fixed"}).label(bulk("Si"))
    assert result.properties.energy_extrapolated is None
    assert result.evidence["smearing_energy"] == 0.0
    assert result.properties.forces is not None
    assert np.abs(result.properties.forces).max() < 1e-6


@pytest.mark.parametrize("smearing", ["gaussian", "fermi-dirac"])
def test_the_extrapolated_energy_depends_less_on_the_width(smearing: str) -> None:
    made = [labeler(ALUMINIUM | {"k_spacing": 0.25, "smearing": smearing, "degauss": d}) for d in (0.02, 0.04)]
    narrow, wide = (one.label(bulk("Al", a=4.0)).properties for one in made)
    assert narrow.energy_extrapolated is not None
    assert wide.energy_extrapolated is not None
    assert abs(wide.energy_extrapolated - narrow.energy_extrapolated) < 0.2 * abs(wide.energy - narrow.energy)


def test_a_left_handed_cell_has_the_same_label() -> None:
    right = rattled(bulk("Si"), seed=1)
    left = right.with_geometry(cell=right.cell[[1, 0, 2]], positions=right.positions)
    made = labeler(SILICON)
    assert made.label(left).properties.energy == pytest.approx(made.label(right).properties.energy, abs=1e-6)


def test_moments_of_both_orders_start_and_come_back() -> None:
    atoms = Atoms("Ni2", cell=[2.5, 2.5, 3.5], positions=[[0.1, 0, 0], [1.25, 1.25, 1.75]], pbc=True)
    energies = []
    for moments in ([1.0, 1.0], [1.0, -1.0]):
        atoms.set_initial_magnetic_moments(moments)
        result = labeler(NICKEL).label(atoms)
        assert result.properties.moments is not None
        assert (np.sign(result.properties.moments) == moments).all()
        assert result.properties.total_moment == pytest.approx(sum(result.properties.moments), abs=0.3)
        energies.append(result.properties.energy)
    assert energies[0] < energies[1]


def test_gamma_alone_is_the_mesh_of_one_point() -> None:
    cell = rattled(bulk("Si", cubic=True), seed=4)
    made = labeler(SILICON | {"k_spacing": 2.0, "occupations": "fixed"})
    one = made.label(cell)
    assert one.evidence["k_mesh"] == [1, 1, 1]
    assert one.properties.forces is not None
    assert np.abs(one.properties.forces.sum(axis=0)).max() < 1e-5


def test_slabs_are_computed_with_vacuum_and_without_stress() -> None:
    slab = bulk("Al", cubic=True, a=4.0)
    slab.cell[2, 2] += 8.0
    slab.pbc = (True, True, False)
    result = labeler(ALUMINIUM | {"vacuum": 8.0}).label(slab)
    assert result.properties.stress is None
    assert result.evidence["k_mesh"] == [2, 2, 1]


def test_a_charged_cell_has_a_background() -> None:
    atoms = bulk("Al", cubic=True, a=4.0)
    atoms.info["charge"] = 1.0
    result = labeler(ALUMINIUM | {"charge": "background"}).label(atoms)
    assert result.evidence["charge"] == 1.0
    neutral = labeler(ALUMINIUM).label(bulk("Al", cubic=True, a=4.0))
    assert abs(result.properties.energy - neutral.properties.energy) > 1.0


def test_the_ladder_is_climbed_where_two_steps_are_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = labeler(SILICON).label(bulk("Si"))
    monkeypatch.setattr(USED_RUNGS, ({"electrons": {"electron_maxstep": 2}}, *RUNGS[1:]))
    patient = labeler(SILICON).label(bulk("Si"), tmp_path / "job")
    assert (patient.evidence["rung"], patient.evidence["runs"]) == (1, 2)
    assert "JOB DONE" in (tmp_path / "job" / "run-1" / "pw.out").read_text()
    assert patient.properties.energy == pytest.approx(usual.properties.energy, abs=1e-6)


def test_every_rung_gives_the_same_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    energies = []
    for rung in RUNGS:
        monkeypatch.setattr(USED_RUNGS, (rung,))
        energies.append(labeler(SILICON).label(bulk("Si")).properties.energy)
    assert np.ptp(energies) < 1e-6


def test_a_run_that_does_not_converge_is_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(USED_RUNGS, 2 * ({"electrons": {"electron_maxstep": 2}},))
    with pytest.raises(LabelFailure, match=r"convergence NOT achieved after +2 iterations") as caught:
        labeler(SILICON).label(bulk("Si"))
    assert caught.value.kind is FailureKind.NOT_CONVERGED


def test_a_pseudopotential_that_is_lost_on_the_way(tmp_path: Path) -> None:
    # A name of its own: pw.x looks for names that it knows in other folders, too.
    shutil.copy(POTENTIALS / NEEDED[0], tmp_path / "Mine.UPF")
    made = labeler(SILICON | {"pseudopotentials": {"Si": "Mine.UPF"}}, potentials=tmp_path)
    made.prepare(Structure.from_atoms(bulk("Si")), tmp_path / "job")
    (tmp_path / "job" / "run-1" / "pseudo" / "Mine.UPF").unlink()
    handle = made.submit(tmp_path / "job")
    while made.poll(handle) is RunState.RUNNING:
        time.sleep(0.05)
    with pytest.raises(LabelFailure, match="readpp") as caught:
        made.parse(tmp_path / "job")
    assert caught.value.kind is FailureKind.MISSING_FILE


def test_another_pseudopotential_on_the_way_is_noticed(tmp_path: Path) -> None:
    made = labeler(SILICON)
    made.prepare(Structure.from_atoms(bulk("Si")), tmp_path / "job")
    copy = tmp_path / "job" / "run-1" / "pseudo" / NEEDED[0]
    copy.write_text(copy.read_text() + "\n")
    handle = made.submit(tmp_path / "job")
    while made.poll(handle) is RunState.RUNNING:
        time.sleep(0.05)
    with pytest.raises(LabelFailure, match="a file changed") as caught:
        made.parse(tmp_path / "job")
    assert caught.value.kind is FailureKind.INCONSISTENT


def test_atoms_on_top_of_each_other_are_an_error_of_the_code() -> None:
    atoms = Atoms("Si2", cell=[4, 4, 4], positions=[[0, 0, 0], [0, 0, 1e-7]], pbc=True)
    with pytest.raises(LabelFailure, match="check_atoms") as caught:
        labeler(SILICON).label(atoms)
    assert caught.value.kind is FailureKind.CRASHED


@pytest.mark.parametrize(
    ("limits", "kind"),
    [({"wall_seconds": 1.5}, FailureKind.WALL_TIME), ({"memory_gb": 0.02}, FailureKind.MEMORY)],
    ids=["wall", "memory"],
)
def test_limits_end_the_program(tmp_path: Path, limits: dict[str, float], kind: FailureKind) -> None:
    with pytest.raises(LabelFailure) as caught:
        labeler(ALUMINIUM, **limits).label(slow_structure(), tmp_path / "job")
    assert caught.value.kind is kind
    assert "pw.x" not in names_in(tmp_path)
    deadline = time.monotonic() + 10
    while processes_in(tmp_path) and time.monotonic() < deadline:  # MPI's daemon, of a session of its own, notices it
        time.sleep(0.05)
    assert not processes_in(tmp_path)


def names_in(folder: Path) -> set[str]:
    """Names of the programs that run below a folder."""
    found = set()
    for pid in processes_in(folder):
        with contextlib.suppress(OSError):  # it has ended since
            found.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return found


def test_a_worker_that_is_killed_leaves_no_program_behind(tmp_path: Path) -> None:
    job = tmp_path / "job"
    program = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.labelers.test_espresso_program import ALUMINIUM, labeler, slow_structure
        labeler(ALUMINIUM).label(slow_structure(), Path({str(job)!r}))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    output = job / "run-1" / "pw.out"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if output.exists() and "Self-consistent Calculation" in output.read_text():
            break
        time.sleep(0.05)
    assert "pw.x" in names_in(job)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while processes_in(job) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_in(job)
    assert (job / "run-1" / keeper.ENDED).exists()
    with pytest.raises(LabelFailure) as caught:
        labeler(ALUMINIUM).parse(job)
    assert caught.value.kind is FailureKind.WORKER_DIED
