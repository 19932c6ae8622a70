"""The gates between a code's output and a label."""

from __future__ import annotations

import numpy as np

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers._result import RawOutcome
from alflow.labelers._theory import Capabilities
from alflow.structures import Properties, Structure

GEOMETRY_TOLERANCE = 1e-5
"""Å: codes write positions with 6–10 digits; a relaxation step moves atoms by far more."""

STRESS_LIMIT = 10.0
"""eV/Å³ (1,600 GPa): beyond the pressures at which a potential for materials is fitted."""

FORCE_LIMIT = 1000.0
"""eV/Å: atoms on top of each other, or a unit mistaken."""

ENTROPY_LIMIT = 0.002
"""eV/atom: from here on free and extrapolated energy differ enough to move a hull."""


def check_outcome(asked: Structure, outcome: RawOutcome, capabilities: Capabilities) -> tuple[str, ...]:
    """Pass every quality gate and return the warnings.

    Raises
    ------
    LabelFailure
        NOT_CONVERGED without positive evidence of convergence; INCONSISTENT where the geometry is not the one asked
        for or a result has the wrong shape, is missing or has no meaning; IMPLAUSIBLE where numbers are not finite,
        the net force does not vanish, or force or stress are beyond all bounds
    """
    _check_convergence(outcome)
    _check_geometry(asked, outcome.structure)
    _check_shapes(asked, outcome.properties, capabilities)
    _check_finite(outcome.properties)
    _check_forces(outcome.properties, asked.n_atoms, capabilities)
    _check_stress(outcome.properties)
    return outcome.warnings + _entropy_warning(outcome.properties, asked.n_atoms)


def _check_convergence(outcome: RawOutcome) -> None:
    if outcome.evidence.get("converged") is not True:
        reason = outcome.evidence.get("convergence", "the code says nothing about convergence")
        raise LabelFailure(FailureKind.NOT_CONVERGED, str(reason))


def _check_geometry(asked: Structure, got: Structure) -> None:
    if len(asked) != len(got) or not np.array_equal(asked.numbers, got.numbers):
        raise LabelFailure(FailureKind.INCONSISTENT, f"asked for {asked.formula}, the code computed {got.formula}")
    if not np.array_equal(asked.pbc, got.pbc):
        raise LabelFailure(
            FailureKind.INCONSISTENT, f"asked for pbc {asked.pbc.tolist()}, the code used {got.pbc.tolist()}"
        )
    rows = asked.pbc
    cell_change = np.abs(asked.cell[rows] - got.cell[rows]).max(initial=0.0)
    shift = np.abs(asked.positions - got.positions).max()
    if max(cell_change, shift) > GEOMETRY_TOLERANCE:
        raise LabelFailure(
            FailureKind.INCONSISTENT,
            f"the geometry changed: positions by up to {shift:.2g} Å, cell by up to {cell_change:.2g} Å; "
            "switch off relaxation and symmetrisation in the code",
        )


def _check_shapes(asked: Structure, properties: Properties, capabilities: Capabilities) -> None:
    crystal = bool(asked.pbc.all())
    forces, stress = properties.forces, properties.stress
    if capabilities.forces and forces is None:
        raise LabelFailure(FailureKind.INCONSISTENT, "the code returned no forces although it should")
    if forces is not None and forces.shape != (asked.n_atoms, 3):
        raise LabelFailure(FailureKind.INCONSISTENT, f"forces have shape {forces.shape} for {asked.n_atoms} atoms")
    if capabilities.stress and crystal and stress is None:
        raise LabelFailure(
            FailureKind.INCONSISTENT,
            "the code returned no stress for a crystal; set `stress: false` for the calculator if it has none",
        )
    if stress is not None and stress.shape != (3, 3):
        raise LabelFailure(FailureKind.INCONSISTENT, f"the stress has shape {stress.shape}, not (3, 3)")
    if stress is not None and not crystal:
        raise LabelFailure(
            FailureKind.INCONSISTENT, f"a stress for {asked.n_periodic} periodic directions depends on the vacuum"
        )


def _check_finite(properties: Properties) -> None:
    for name in ("energy", "energy_extrapolated", "forces", "stress", "dipole", "moments", "total_moment"):
        value = getattr(properties, name)
        if value is not None and not np.isfinite(value).all():
            raise LabelFailure(FailureKind.IMPLAUSIBLE, f"{name} holds values that are not finite")


def _check_forces(properties: Properties, n_atoms: int, capabilities: Capabilities) -> None:
    if properties.forces is None:
        return
    largest = float(np.linalg.norm(properties.forces, axis=1).max())
    if largest > FORCE_LIMIT:
        raise LabelFailure(FailureKind.IMPLAUSIBLE, f"a force of {largest:.3g} eV/Å, above {FORCE_LIMIT:g}")
    if capabilities.net_force_limit is None:
        return
    net = float(np.linalg.norm(properties.forces.sum(axis=0))) / n_atoms
    # A relative part: rounding of large forces leaves a net force that says nothing about the physics.
    limit = capabilities.net_force_limit + 1e-6 * largest
    if net > limit:
        raise LabelFailure(
            FailureKind.IMPLAUSIBLE,
            f"the net force is {net:.3g} eV/Å per atom, above {limit:.3g}: not converged, a basis too small, or forces "
            "of another structure",
        )


def _check_stress(properties: Properties) -> None:
    if properties.stress is None:
        return
    stress = properties.stress
    largest = float(np.abs(stress).max())
    if largest > STRESS_LIMIT:
        raise LabelFailure(
            FailureKind.IMPLAUSIBLE,
            f"a stress of {largest:.3g} eV/Å³ ({160.2 * largest:.0f} GPa), above {STRESS_LIMIT:g}: a unit mistaken?",
        )
    asymmetry = float(np.abs(stress - stress.T).max())
    if asymmetry > 1e-6 + 1e-3 * largest:
        raise LabelFailure(FailureKind.IMPLAUSIBLE, f"the stress is not symmetric: off by {asymmetry:.3g} eV/Å³")


def _entropy_warning(properties: Properties, n_atoms: int) -> tuple[str, ...]:
    if properties.energy_extrapolated is None:
        return ()
    entropy = abs(properties.energy - properties.energy_extrapolated) / n_atoms
    if entropy <= ENTROPY_LIMIT:
        return ()
    difference = f"{1000 * entropy:.1f} meV/atom, above {1000 * ENTROPY_LIMIT:g}"
    return (f"free and extrapolated energy differ by {difference}: reduce the smearing",)
