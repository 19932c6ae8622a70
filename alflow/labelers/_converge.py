"""How labels change with one numeric setting of a labeler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alflow.errors import ConfigError, LabelFailure
from alflow.labelers._registry import get_labeler
from alflow.labelers._result import LabelResult
from alflow.labelers._worker import WorkerConfig
from alflow.structures import Structure

_ARGUMENTS = "arguments."


@dataclass(frozen=True, kw_only=True)
class ConvergencePoint:
    """One value of the setting; differences are those to the last value, None where one of both has no label.

    ``energy`` eV/atom, ``energy_difference`` eV/atom, ``force_difference`` eV/Å of the worst atom,
    ``stress_difference`` eV/Å³ (Frobenius norm), ``seconds`` wall time; ``failure`` says why there is no label.
    """

    value: float
    energy: float | None
    energy_difference: float | None
    force_difference: float | None
    stress_difference: float | None
    seconds: float | None
    failure: str | None = None


def converge(
    labeler: str,
    settings: Mapping[str, Any],
    setting: str,
    values: Sequence[float],
    structure: Structure,
    *,
    worker: WorkerConfig,
    directory: Path,
) -> Iterator[LabelResult | LabelFailure]:
    """Label a structure with one value of a setting after the other; :func:`compare` makes a table of the results.

    Parameters
    ----------
    labeler, settings, worker, directory
        as for :func:`alflow.labelers.get_labeler`
    setting
        its key, with dots into sections: ``ecut``, ``mode.ecut``; for the labeler `ase` an argument of the calculator
        in the worker's file: ``arguments.rc``

    Raises
    ------
    ConfigError
        if the setting is not known, or takes no such value; before anything is computed
    """
    made = []
    for value in values:
        if labeler == "ase" and setting.startswith(_ARGUMENTS):
            changed = _with_argument(worker, str(settings.get("calculator")), setting.removeprefix(_ARGUMENTS), value)
            made.append(get_labeler(labeler, settings, worker=changed, directory=directory))
        else:
            given = with_value(settings, setting, value)
            made.append(get_labeler(labeler, given, worker=worker, directory=directory))
    if len({one.theory().fingerprint for one in made}) < len(made):
        raise ConfigError(
            f"labeler {labeler!r}: {setting} changes nothing: the theory is the same for several values; name a "
            "setting of the physics"
        )
    for one in made:
        try:
            yield one.label(structure)
        except LabelFailure as failure:
            yield failure


def with_value(settings: Mapping[str, Any], key: str, value: float) -> dict[str, Any]:
    """Settings with one of them replaced, given by its dotted key; sections on the way are made."""
    first, _, rest = key.partition(".")
    if not rest:
        return {**settings, first: value}
    inner = settings.get(first)
    return {**settings, first: with_value(inner if isinstance(inner, Mapping) else {}, rest, value)}


def _with_argument(worker: WorkerConfig, calculator: str, key: str, value: float) -> WorkerConfig:
    entry = worker.labelers.get(calculator)
    if entry is None:  # the labeler says so better
        return worker
    changed = entry.model_copy(update={"arguments": with_value(entry.arguments, key, value)})
    return worker.model_copy(update={"labelers": {**worker.labelers, calculator: changed}})


def compare(values: Sequence[float], results: Sequence[LabelResult | LabelFailure]) -> list[ConvergencePoint]:
    """Compare every result with the last one, which is the best converged if the values go up in accuracy."""
    last = results[-1]
    reference = last if isinstance(last, LabelResult) else None
    return [_point(value, result, reference) for value, result in zip(values, results, strict=True)]


def _point(value: float, result: LabelResult | LabelFailure, reference: LabelResult | None) -> ConvergencePoint:
    if isinstance(result, LabelFailure):
        nothing = dict.fromkeys(("energy", "energy_difference", "force_difference", "stress_difference", "seconds"))
        return ConvergencePoint(value=value, failure=str(result), **nothing)
    found, n_atoms = result.properties, result.structure.n_atoms
    energy = force = stress = None
    if reference is not None:
        best = reference.properties
        energy = (found.energy - best.energy) / n_atoms
        if found.forces is not None and best.forces is not None:
            force = float(np.linalg.norm(found.forces - best.forces, axis=1).max())
        if found.stress is not None and best.stress is not None:
            stress = float(np.linalg.norm(found.stress - best.stress))
    return ConvergencePoint(
        value=value,
        energy=found.energy / n_atoms,
        energy_difference=energy,
        force_difference=force,
        stress_difference=stress,
        seconds=result.seconds,
    )
