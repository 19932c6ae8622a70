"""The committee that most tests of this room explore with."""

from __future__ import annotations

import pytest
from ase.calculators.emt import EMT

from tests.explore.committees import CalculatorCommittee


@pytest.fixture
def emt() -> CalculatorCommittee:
    """EMT twice, nearly certain of itself."""
    return CalculatorCommittee(EMT())
