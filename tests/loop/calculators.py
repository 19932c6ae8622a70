"""Calculators that misbehave in known ways."""

from __future__ import annotations

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
