"""A GPAW in little for the tests: ASE's effective medium theory with the face of GPAW, and moods.

``STAND_IN_MOOD`` says what goes wrong. The energy of every atom is too high by ``BASIS_ERROR * exp(-c / DECAY)`` at a
cutoff of c, and the stress is, as GPAW's, the one at a fixed number of plane waves.
"""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

__version__ = os.environ.get("STAND_IN_VERSION", "26.7.0")
BASIS_ERROR, DECAY = 5.0, 100.0
MOOD = os.environ.get("STAND_IN_MOOD", "fine")
if MOOD == "broken":
    raise ImportError("libxc.so.9: cannot open shared object file")


class ConvergenceError(Exception):
    pass


class KohnShamConvergenceError(ConvergenceError):
    pass


class AtomsTooClose(Exception):  # noqa: N818  as GPAW names it
    pass


ERRORS: dict[str, BaseException] = {
    "close": AtomsTooClose("Atoms are too close, e.g. 0.01 Å"),
    "memory": MemoryError(),
    "disk": OSError(errno.ENOSPC, "No space left on device"),
    "bug": ZeroDivisionError("division by zero"),
    "dataset": FileNotFoundError('Could not find required PAW dataset file "Al.PBE".\n\nYou need to set …'),
    "unsupported": NotImplementedError("stress of this functional"),
}


def get_libraries() -> dict[str, str]:
    return {"libxc": "7.0.0"}


class GPAW(Calculator):  # type: ignore[misc]
    implemented_properties = ("energy", "free_energy", "forces", "stress", "magmom", "magmoms")

    def __init__(self, *, txt: str, **keywords: Any) -> None:
        super().__init__()
        self.txt, self.keywords = txt, keywords

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        steps = self._steps()
        if steps > self.keywords["maxiter"]:
            raise KohnShamConvergenceError
        if MOOD in ERRORS:
            raise ERRORS[MOOD]
        if MOOD == "silent death":
            os._exit(0)
        said = "" if MOOD == "says nothing" else f"\nConverged in {steps} steps\n"
        Path(self.txt).write_text(f"SCF loop{said}", encoding="utf-8")
        energy, forces, stress = self._emt()
        cutoff = self.keywords["mode"]["ecut"]
        error = len(self.atoms) * BASIS_ERROR * math.exp(-cutoff / DECAY)
        stress = stress + 2 / 3 * cutoff * error / DECAY / self.atoms.get_volume() * np.array([1, 1, 1, 0, 0, 0])
        if MOOD == "moves":
            self.atoms.positions[0] += 0.01
        moments = self.atoms.get_initial_magnetic_moments() / 2
        self.results = {
            "energy": energy + error + 0.001,
            "free_energy": energy + error,
            "forces": forces,
            "stress": stress,
            "magmoms": moments,
            "magmom": float(moments.sum()),
        }
        self.dft = SimpleNamespace(
            scf_loop=SimpleNamespace(niter=steps),
            ibzwfs=SimpleNamespace(nbands=8, ibz=[0, 1]),
            density=SimpleNamespace(nt_sR=SimpleNamespace(desc=SimpleNamespace(size=np.array([8, 8, 8])))),
            setups=Setups(self.atoms.get_chemical_symbols(), self.keywords, error / DECAY),
        )

    def _steps(self) -> int:
        """How many steps the self-consistency needs."""
        patient = "mixer" in self.keywords
        return {"hard": 200 if patient else 10_000, "hopeless": 10_000}.get(MOOD, 12)

    def _emt(self) -> tuple[float, Any, Any]:
        atoms = self.atoms.copy()
        atoms.calc = EMT()
        stress = atoms.get_stress() if atoms.pbc.all() else np.zeros(6)
        return atoms.get_potential_energy(), atoms.get_forces(), stress


class Setups(list[SimpleNamespace]):
    """The datasets of the atoms."""

    def __init__(self, symbols: list[str], keywords: dict[str, Any], slope: float) -> None:
        from gpaw.setup_data import SetupData, search_for_file

        self.slope = slope
        for symbol in symbols:
            name = SetupData(symbol, keywords["xc"], name=keywords["setups"][symbol], readxml=False).stdfilename
            self.append(SimpleNamespace(symbol=symbol, filename=search_for_file(name)[0]))

    def estimate_dedecut(self, cutoff: float) -> float:
        """Half of the truth."""
        assert cutoff < 100, "in Hartree"
        return -self.slope / 2
