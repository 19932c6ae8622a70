"""Calculators that misbehave in known ways."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT


class Broken(EMT):  # type: ignore[misc]
    """Never gives a result."""

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        raise CalculationFailed("the code is not installed properly")


class FailsOnPurePlatinum(EMT):  # type: ignore[misc]
    """Fails where there is nothing but platinum."""

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        if set(atoms.get_chemical_symbols()) == {"Pt"}:
            raise CalculationFailed("did not converge")
        super().calculate(atoms, *args, **kwargs)


class BrokenForNow(EMT):  # type: ignore[misc]
    """Fails until somebody mends it: while a file exists that the environment names."""

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        if Path(os.environ["ALFLOW_TEST_BROKEN"]).exists():
            raise CalculationFailed("the code is not installed properly")
        super().calculate(*args, **kwargs)


class FromFile(EMT):  # type: ignore[misc]
    """Shifts every energy by what a file says for each atom, eV, as another pseudopotential would."""

    def __init__(self, potential: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shift = float(Path(potential).read_text(encoding="utf-8"))

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        for name in ("energy", "free_energy"):
            self.results[name] += self.shift * len(self.atoms)
