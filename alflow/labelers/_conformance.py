"""The conformance check of the labeler plug point: call it in the tests of your own labeler."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers._protocol import Labeler, RunState
from alflow.labelers._record import files_in
from alflow.labelers._registry import get_labeler
from alflow.labelers._result import LabelResult
from alflow.labelers._worker import WorkerConfig
from alflow.structures import Structure

_STEP = 1e-3


def check_labeler(
    labeler: Labeler,
    structures: Sequence[Structure],
    *,
    energy_tolerance: float = 1e-6,
    force_tolerance: float = 1e-3,
    stress_tolerance: float = 1e-4,
    worker: WorkerConfig | None = None,
    seed: int = 0,
) -> None:
    """Check that a labeler keeps the promises of :class:`~alflow.labelers.Labeler`.

    Its theory is JSON and makes the same labeler again; a label is the same twice, through a directory and without one,
    and does not depend on where the origin lies; forces are ``-dE/dx`` and the stress is ``dE/dε / V`` by central
    differences along one random direction (skipped where the displaced structures are refused, as by known labels);
    what is refused raises a typed failure and leaves nothing behind.

    Parameters
    ----------
    labeler
        what to check
    structures
        small structures that it should be able to label, away from symmetric positions
    energy_tolerance
        eV per atom, for repeated and translated labels
    force_tolerance
        eV/Å, for forces against differences of the energy
    stress_tolerance
        eV/Å³, for the stress against differences of the energy
    worker
        local configuration that the labeler was made with
    seed
        of the random directions

    Raises
    ------
    AssertionError
        naming the promise that is broken
    LabelFailure
        if a structure that is not refused cannot be labelled
    """
    assert isinstance(labeler, Labeler), f"{type(labeler).__name__} does not have every member of the Labeler protocol"
    _check_theory(labeler, worker)
    rng = np.random.default_rng(seed)
    for structure in structures:
        reason = labeler.refuses(structure)
        if reason is not None:
            _check_refusal(labeler, structure)
            continue
        result = labeler.label(structure)
        _check_result(labeler, structure, result)
        _check_directory(labeler, structure, result, energy_tolerance)
        _check_translation(labeler, structure, result, energy_tolerance, rng)
        _check_forces(labeler, structure, result, force_tolerance, rng)
        _check_stress(labeler, structure, result, stress_tolerance, rng)


def _check_theory(labeler: Labeler, worker: WorkerConfig | None) -> None:
    spec = labeler.theory()
    assert spec.labeler == labeler.name, f"the theory names {spec.labeler!r}, the labeler is {labeler.name!r}"
    assert spec.code, "the theory does not say which code computes"
    settings = json.loads(json.dumps(dict(spec.settings), allow_nan=False))
    assert settings == dict(spec.settings), "the theory's settings change on their way through JSON"
    assert labeler.theory().fingerprint == spec.fingerprint, "the fingerprint differs from one call to the next"
    again = get_labeler(labeler.name, settings, worker=worker).theory()
    assert again.fingerprint == spec.fingerprint, "the recorded settings make a labeler of another theory"


def _check_refusal(labeler: Labeler, structure: Structure) -> None:
    with tempfile.TemporaryDirectory(prefix="alflow-check-") as folder:
        kind = None
        try:
            labeler.prepare(structure, Path(folder))
        except LabelFailure as failure:
            kind = failure.kind
        assert kind is not None, "prepare accepts a structure that `refuses` gives a reason against"
        assert kind is FailureKind.REFUSED, f"a refused structure fails as {kind}"
        assert not files_in(Path(folder)), "prepare leaves files of a structure that it refuses"


def _check_result(labeler: Labeler, structure: Structure, result: LabelResult) -> None:
    assert result.structure == structure, "the label belongs to another structure"
    assert result.evidence.get("converged") is True, "the label carries no evidence of convergence"
    assert "convergence" in result.evidence, "the evidence does not say how convergence is known"
    json.dumps(dict(result.evidence), allow_nan=False)
    forces, stress = result.properties.forces, result.properties.stress
    assert (forces is not None) or not labeler.capabilities.forces, "forces are missing"
    assert (stress is not None) or not (labeler.capabilities.stress and structure.pbc.all()), "the stress is missing"


def _check_directory(labeler: Labeler, structure: Structure, expected: LabelResult, tolerance: float) -> None:
    with tempfile.TemporaryDirectory(prefix="alflow-check-") as folder:
        directory = Path(folder) / "job"
        labeler.prepare(structure, directory)
        handle = labeler.submit(directory)
        while labeler.poll(handle) is not RunState.FINISHED:
            pass
        first, second = labeler.parse(directory), labeler.parse(directory)
        assert files_in(directory), "a calculation in a directory leaves no record there"
    assert first.properties.energy == second.properties.energy, "parsing twice gives two energies"
    difference = abs(first.properties.energy - expected.properties.energy) / structure.n_atoms
    assert difference <= tolerance, f"the same structure twice: energies differ by {difference:.3g} eV/atom"


def _check_translation(
    labeler: Labeler, structure: Structure, result: LabelResult, tolerance: float, rng: np.random.Generator
) -> None:
    if labeler.capabilities.net_force_limit is None:
        return
    moved = structure.with_geometry(cell=structure.cell, positions=structure.positions + rng.normal(size=3))
    energy = _energy(labeler, moved)
    if energy is not None:
        difference = abs(energy - result.properties.energy) / structure.n_atoms
        assert difference <= tolerance, f"the energy changes by {difference:.3g} eV/atom with the origin"


def _check_forces(
    labeler: Labeler, structure: Structure, result: LabelResult, tolerance: float, rng: np.random.Generator
) -> None:
    """Check F·d = -(E(x + h d) - E(x - h d)) / 2h for a unit vector d over all coordinates."""
    if result.properties.forces is None:
        return
    direction = rng.normal(size=(structure.n_atoms, 3))
    direction /= np.linalg.norm(direction)
    energies = [
        _energy(labeler, structure.with_geometry(cell=structure.cell, positions=structure.positions + h * direction))
        for h in (_STEP, -_STEP)
    ]
    if energies[0] is None or energies[1] is None:
        return
    difference = -(energies[0] - energies[1]) / (2 * _STEP)
    stated = float(np.sum(result.properties.forces * direction))
    assert abs(stated - difference) <= tolerance, (
        f"along a random direction the force is {stated:.6g} eV/Å, but -dE/dx is {difference:.6g}"
    )


def _check_stress(
    labeler: Labeler, structure: Structure, result: LabelResult, tolerance: float, rng: np.random.Generator
) -> None:
    """Check σ:e = (E(1 + h e) - E(1 - h e)) / 2hV for a symmetric unit strain e."""
    if result.properties.stress is None:
        return
    strain = rng.normal(size=(3, 3))
    strain = strain + strain.T
    strain /= np.linalg.norm(strain)
    energies = []
    for h in (_STEP, -_STEP):
        deform = np.eye(3) + h * strain
        deformed = structure.with_geometry(cell=structure.cell @ deform, positions=structure.positions @ deform)
        energies.append(_energy(labeler, deformed))
    if energies[0] is None or energies[1] is None:
        return
    difference = (energies[0] - energies[1]) / (2 * _STEP * structure.volume)
    stated = float(np.sum(result.properties.stress * strain))
    assert abs(stated - difference) <= tolerance, (
        f"along a random strain the stress is {stated:.6g} eV/Å³, but dE/dε/V is {difference:.6g}"
    )


def _energy(labeler: Labeler, structure: Structure) -> float | None:
    return None if labeler.refuses(structure) is not None else labeler.label(structure).properties.energy
