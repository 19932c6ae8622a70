"""The conformance check must notice a labeler that breaks a promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alflow.labelers import Capabilities, EmtLabeler, RawOutcome, TheorySpec, check_labeler
from alflow.structures import Properties, Structure


class Changed(EmtLabeler):
    """EMT with something changed in every outcome."""

    calls = 0

    def change(self, properties: Properties, structure: Structure) -> dict[str, Any]:
        return {}

    def compute(self, structure: Structure, directory: Path | None) -> RawOutcome:
        outcome = super().compute(structure, directory)
        self.calls += 1
        p = outcome.properties
        content: dict[str, Any] = {"energy": p.energy, "forces": p.forces, "stress": p.stress}
        return replace(outcome, properties=Properties(**(content | self.change(p, structure))))


class WrongForces(Changed):
    def change(self, properties: Properties, structure: Structure) -> dict[str, Any]:
        return {"forces": 1.1 * np.asarray(properties.forces)}


class WrongStress(Changed):
    def change(self, properties: Properties, structure: Structure) -> dict[str, Any]:
        return {"stress": -np.asarray(properties.stress)}


class Drifting(Changed):
    def change(self, properties: Properties, structure: Structure) -> dict[str, Any]:
        return {"energy": properties.energy + 0.01 * self.calls}


class EggBox(Changed):
    def change(self, properties: Properties, structure: Structure) -> dict[str, Any]:
        return {"energy": properties.energy + 0.05 * float(np.sin(structure.positions[:, 0]).sum())}


class OpenTheory(EmtLabeler):
    def theory(self) -> TheorySpec:
        return replace(super().theory(), settings={"asap_cutoff": True})


class Accepting(EmtLabeler):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(elements=frozenset({"Cu"}))

    def prepare(self, structure: Structure, directory: Path) -> None:
        (directory / "input.json").write_text("{}")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (WrongForces, "-dE/dx"),
        (WrongStress, "dE/dε/V"),
        (Drifting, "the same structure twice"),
        (EggBox, "with the origin"),
        (Accepting, "prepare accepts a structure"),
    ],
)
def test_broken_promises_are_named(kind: type[EmtLabeler], message: str, alloy: Structure) -> None:
    with pytest.raises(AssertionError, match=message):
        check_labeler(kind(), [alloy])


def test_a_theory_that_cannot_be_made_again(alloy: Structure) -> None:
    class Versioned(EmtLabeler):
        def theory(self) -> TheorySpec:
            return replace(super().theory(), code="mine 1.0")

    with pytest.raises(AssertionError, match="another theory"):
        check_labeler(Versioned(), [alloy])


def test_something_else_is_no_labeler(alloy: Structure) -> None:
    with pytest.raises(AssertionError, match="does not have every member"):
        check_labeler(object(), [alloy])  # type: ignore[arg-type]
