"""Inputs and outcomes as JSON files in a directory, written so that a kill at any instant leaves no half file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alflow.errors import AlflowError, FailureKind, LabelFailure
from alflow.labelers._result import RawOutcome
from alflow.structures import Properties, Structure

INPUT_FILE = "input.json"
OUTCOME_FILE = "outcome.json"
FAILURE_FILE = "failure.json"
_VERSION = 1
_ARRAYS = ("forces", "stress", "dipole", "moments")
_SCALARS = ("energy", "energy_extrapolated", "total_moment")


def write_input(directory: Path, structure: Structure, fingerprint: str) -> None:
    """Write what was asked for: the structure, exact to the last bit, and the fingerprint of the theory."""
    _write(directory / INPUT_FILE, {"structure": structure_to_dict(structure), "theory": fingerprint})


def read_input(directory: Path) -> tuple[Structure, str]:
    """Return the structure and the theory's fingerprint; raises LabelFailure where they are missing or damaged."""
    content = _read(directory / INPUT_FILE, "prepare the calculation first")
    try:
        return structure_from_dict(content["structure"]), str(content["theory"])
    except (AlflowError, KeyError, TypeError, ValueError) as error:
        raise LabelFailure(FailureKind.TRUNCATED, f"{directory / INPUT_FILE} is damaged: {error!r}") from error


def write_outcome(directory: Path, outcome: RawOutcome, seconds: float) -> None:
    """Write what the code said; the gates are applied when it is parsed."""
    content = {
        "structure": structure_to_dict(outcome.structure),
        "properties": properties_to_dict(outcome.properties),
        "evidence": dict(outcome.evidence),
        "warnings": list(outcome.warnings),
        "seconds": seconds,
    }
    _write(directory / OUTCOME_FILE, content)
    (directory / FAILURE_FILE).unlink(missing_ok=True)


def read_outcome(directory: Path) -> tuple[RawOutcome, float]:
    """Return what the code said and how long it took; raises the recorded LabelFailure where it failed."""
    if not (directory / OUTCOME_FILE).exists() and (directory / FAILURE_FILE).exists():
        failure = _read(directory / FAILURE_FILE, "")
        raise LabelFailure(FailureKind(failure["kind"]), str(failure["message"]))
    content = _read(directory / OUTCOME_FILE, "submit the calculation, or it did not end")
    try:
        outcome = RawOutcome(
            structure=structure_from_dict(content["structure"]),
            properties=Properties(**content["properties"]),
            evidence=content["evidence"],
            warnings=tuple(content["warnings"]),
        )
        return outcome, float(content["seconds"])
    except (AlflowError, KeyError, TypeError, ValueError) as error:
        raise LabelFailure(FailureKind.TRUNCATED, f"{directory / OUTCOME_FILE} is damaged: {error!r}") from error


def write_failure(directory: Path, failure: LabelFailure) -> None:
    """Write why there is no outcome."""
    _write(directory / FAILURE_FILE, {"kind": failure.kind.value, "message": failure.message})


def files_in(directory: Path) -> tuple[str, ...]:
    """Names of the regular files below the directory, sorted."""
    return tuple(sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()))


def structure_to_dict(structure: Structure) -> dict[str, Any]:
    """Return JSON values; Python writes floats with all their digits, so nothing is lost."""
    return {
        "cell": structure.cell.tolist(),
        "pbc": structure.pbc.tolist(),
        "numbers": structure.numbers.tolist(),
        "positions": structure.positions.tolist(),
        "charge": structure.charge,
        "moments": None if structure.moments is None else structure.moments.tolist(),
    }


def structure_from_dict(content: Mapping[str, Any]) -> Structure:
    """Inverse of :func:`structure_to_dict`."""
    return Structure(**content)


def properties_to_dict(properties: Properties) -> dict[str, Any]:
    """Return JSON values of what was computed; absent properties are left out."""
    scalars = {name: getattr(properties, name) for name in _SCALARS}
    arrays = {name: getattr(properties, name) for name in _ARRAYS}
    content: dict[str, Any] = {name: float(value) for name, value in scalars.items() if value is not None}
    content |= {name: np.asarray(value).tolist() for name, value in arrays.items() if value is not None}
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    # allow_nan: an outcome with NaN is kept as evidence; the gate refuses it when it is parsed.
    text = json.dumps({"version": _VERSION, **content}, indent=1)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LabelFailure(FailureKind.MISSING_FILE, f"{path} does not exist: {remedy}") from error
    except ValueError as error:
        raise LabelFailure(FailureKind.TRUNCATED, f"{path} is not complete JSON: {error}") from error
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise LabelFailure(FailureKind.TRUNCATED, f"{path} is not a record of version {_VERSION}")
    return content
