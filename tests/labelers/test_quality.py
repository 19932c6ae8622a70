from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers import Capabilities, RawOutcome
from alflow.labelers._quality import check_outcome
from alflow.structures import Properties, Structure

GOOD = {"converged": True, "convergence": "said so"}


def outcome(structure: Structure, **changes: Any) -> RawOutcome:
    content: dict[str, Any] = {
        "energy": -4.0,
        "forces": np.array([[0.1, 0, 0], [-0.1, 0, 0], [0, 0.2, 0], [0, -0.2, 0]]),
        "stress": 0.01 * np.eye(3),
    }
    return RawOutcome(structure=structure, properties=Properties(**(content | changes)), evidence=GOOD)


def fails(kind: FailureKind, asked: Structure, raw: RawOutcome, capabilities: Capabilities | None = None) -> str:
    with pytest.raises(LabelFailure) as caught:
        check_outcome(asked, raw, capabilities or Capabilities())
    assert caught.value.kind is kind
    return caught.value.message


def test_a_good_outcome_passes(alloy: Structure) -> None:
    assert check_outcome(alloy, outcome(alloy), Capabilities()) == ()


@pytest.mark.parametrize("evidence", [{}, {"converged": False}, {"converged": 1}, {"converged": "yes"}])
def test_only_positive_evidence_is_evidence(alloy: Structure, evidence: dict[str, Any]) -> None:
    fails(FailureKind.NOT_CONVERGED, alloy, replace(outcome(alloy), evidence=evidence))


def moved(structure: Structure) -> Structure:
    positions = structure.positions.copy()
    positions[0, 0] += 1e-3
    return structure.with_geometry(cell=structure.cell, positions=positions)


def strained(structure: Structure) -> Structure:
    return structure.with_geometry(cell=1.001 * structure.cell, positions=structure.positions)


def reordered(structure: Structure) -> Structure:
    return Structure(
        cell=structure.cell, pbc=structure.pbc, numbers=structure.numbers[::-1], positions=structure.positions
    )


def open_boundary(structure: Structure) -> Structure:
    return Structure(
        cell=structure.cell, pbc=np.array([True, True, False]), numbers=structure.numbers, positions=structure.positions
    )


@pytest.mark.parametrize("change", [moved, strained, reordered, open_boundary])
def test_another_geometry_is_inconsistent(alloy: Structure, change: Callable[[Structure], Structure]) -> None:
    fails(FailureKind.INCONSISTENT, alloy, outcome(change(alloy)))


def test_digits_lost_in_an_input_file_are_not_another_geometry(alloy: Structure) -> None:
    rounded = alloy.with_geometry(cell=alloy.cell.round(6), positions=alloy.positions.round(6))
    check_outcome(alloy, outcome(rounded), Capabilities())


@pytest.mark.parametrize(
    "changes",
    [
        {"energy": np.nan},
        {"energy_extrapolated": np.inf},
        {"dipole": [np.nan, 0, 0]},
        {"stress": np.full((3, 3), np.nan)},
    ],
)
def test_numbers_that_are_not_finite(alloy: Structure, changes: dict[str, Any]) -> None:
    assert "not finite" in fails(FailureKind.IMPLAUSIBLE, alloy, outcome(alloy, **changes))


def test_the_net_force_vanishes(alloy: Structure) -> None:
    forces = np.zeros((4, 3))
    forces[0, 0] = 0.05
    assert "net force" in fails(FailureKind.IMPLAUSIBLE, alloy, outcome(alloy, forces=forces))
    check_outcome(alloy, outcome(alloy, forces=forces), Capabilities(net_force_limit=None))
    check_outcome(alloy, outcome(alloy, forces=forces / 10), Capabilities())


def test_a_force_beyond_all_bounds(alloy: Structure) -> None:
    forces = np.zeros((4, 3))
    forces[0, 0], forces[1, 0] = 2000.0, -2000.0
    fails(FailureKind.IMPLAUSIBLE, alloy, outcome(alloy, forces=forces))


@pytest.mark.parametrize("stress", [50 * np.eye(3), [[0, 0.1, 0], [0, 0, 0], [0, 0, 0]]])
def test_a_stress_that_cannot_be(alloy: Structure, stress: Any) -> None:
    fails(FailureKind.IMPLAUSIBLE, alloy, outcome(alloy, stress=stress))


def test_what_is_missing_is_named(alloy: Structure) -> None:
    assert "no forces" in fails(FailureKind.INCONSISTENT, alloy, outcome(alloy, forces=None))
    assert "no stress" in fails(FailureKind.INCONSISTENT, alloy, outcome(alloy, stress=None))
    check_outcome(alloy, outcome(alloy, stress=None), Capabilities(stress=False))


def test_a_stress_without_three_periods_has_no_meaning(water: Structure) -> None:
    raw = outcome(water, forces=np.zeros((3, 3)))
    assert "vacuum" in fails(FailureKind.INCONSISTENT, water, raw)


def test_forces_of_another_number_of_atoms(alloy: Structure) -> None:
    fails(FailureKind.INCONSISTENT, alloy, outcome(alloy, forces=np.zeros((3, 3))))


def test_a_large_entropy_term_is_flagged(alloy: Structure) -> None:
    (warning,) = check_outcome(alloy, outcome(alloy, energy_extrapolated=-4.0 + 4 * 0.003), Capabilities())
    assert "3.0 meV/atom" in warning
    assert check_outcome(alloy, outcome(alloy, energy_extrapolated=-4.0 + 4 * 0.001), Capabilities()) == ()
