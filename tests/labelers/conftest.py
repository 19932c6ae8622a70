"""Structures and an ASE calculator that misbehaves on demand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule

from alflow.structures import Structure

# A module of its own: the labeler `ase` finds calculators by import path, as users' calculators are found.
CALCULATOR = '''
import errno
import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, SCFError, all_changes


class KohnShamConvergenceError(RuntimeError):
    pass


class Moody(Calculator):
    """A harmonic well per atom; ``mood`` says what goes wrong."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]
    default_parameters = {"stiffness": 1.0, "mood": "fine", "file": None, "entropy": 0.0}
    made = 0

    def __init__(self, **kwargs):
        Moody.made += 1
        super().__init__(**kwargs)
        self.converged = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        mood, n = self.parameters["mood"], len(self.atoms)
        errors = {
            "scf": SCFError("no convergence"), "kohn-sham": KohnShamConvergenceError("did not converge"),
            "disk": OSError(errno.ENOSPC, "No space left on device"), "memory": MemoryError(),
            "file": FileNotFoundError("Ni.UPF"), "time": TimeoutError("too long"), "bug": ZeroDivisionError("oops"),
            "property": PropertyNotImplementedError("stress"), "import": ImportError("no libxc"),
            "eof": EOFError("short"),
        }
        if mood in errors:
            raise errors[mood]
        self.converged = {"unsure": None, "unconverged": False}.get(mood, True)
        forces = self.parameters["stiffness"] * np.ones((n, 3))
        forces -= forces.mean(axis=0)
        if mood == "net":
            forces[0] += 0.5
        if mood == "relaxes":
            self.atoms.positions[0] += 0.01
        stress = np.zeros(6)
        if mood == "huge":
            stress[:] = 100.0
        energy = float("nan") if mood == "nan" else -1.0 * n
        self.results = {"energy": energy, "free_energy": energy - self.parameters["entropy"] * n, "forces": forces}
        if self.atoms.pbc.all() and mood != "no-stress":
            self.results["stress"] = stress
        if mood == "vacuum-stress":
            self.results["stress"] = stress
'''


@pytest.fixture
def moody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Import path of the calculator."""
    folder = tmp_path / "modules"
    folder.mkdir()
    name = f"moody_{tmp_path.name}"  # tests must not share an imported module
    (folder / f"{name}.py").write_text(CALCULATOR)
    monkeypatch.syspath_prepend(folder)
    return f"{name}.Moody"


@pytest.fixture
def alloy() -> Structure:
    """Four atoms of Ni-Pt, away from every symmetric position."""
    atoms = bulk("Pt", cubic=True, a=3.8)
    atoms.symbols[:2] = "Ni"
    deformation = np.array([[1.02, 0.01, 0], [0, 0.99, 0.02], [0.01, 0, 1]])
    atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return Structure.from_atoms(atoms)


@pytest.fixture
def water() -> Structure:
    """A molecule without cell."""
    return Structure.from_atoms(molecule("H2O"))
