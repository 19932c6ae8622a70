"""What a labeler returns, and its record in a directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alflow.errors import FailureKind, LabelFailure
from alflow.structures import Properties, Structure

RECORD_VERSION = 1


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
