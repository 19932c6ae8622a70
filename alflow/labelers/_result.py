"""What a labeler returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alflow.structures import LabelledStructure, Properties, Structure


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelResult:
    """A trustworthy label: every quality gate was passed.

    Parameters
    ----------
    structure
        what was asked for, and computed
    properties
        energy, forces, stress, …
    evidence
        why the result is believed, as JSON values; ``converged`` is True and ``convergence`` says how that is known
    seconds
        wall time of the calculation
    warnings
        what a person should know although the label is accepted
    files
        names of the files that the calculation left in its directory
    """

    structure: Structure
    properties: Properties
    evidence: Mapping[str, Any]
    seconds: float
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def labelled(self) -> LabelledStructure:
        """Return structure and properties as one training example."""
        return LabelledStructure(structure=self.structure, properties=self.properties)


@dataclass(frozen=True, kw_only=True, eq=False)
class RawOutcome:
    """What a code said, before any gate: its own geometry, its numbers, its word on convergence.

    Parameters
    ----------
    structure
        the geometry that the code reports, which need not be the one asked for
    properties
        as computed
    evidence
        must hold ``converged`` (bool) and ``convergence`` (how that is known)
    warnings
        notes of the code
    """

    structure: Structure
    properties: Properties
    evidence: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
