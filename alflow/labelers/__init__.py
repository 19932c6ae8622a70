"""Labelers compute energy, forces and stress at one theory, and judge whether the result can be trusted.

A labeler gets a directory and settings; it knows no database, no campaign and no committee. `emt`, `ase` and `replay`
live here; others are found through the entry points `alflow.labelers`. A calculation without positive evidence of
success is a typed :class:`~alflow.errors.LabelFailure`, never a number.
"""

from alflow.labelers._protocol import Labeler, RunHandle, RunState
from alflow.labelers._result import LabelResult
from alflow.labelers._theory import Capabilities, Moments, TheorySpec
from alflow.labelers._worker import CalculatorSettings, WorkerConfig

__all__ = [
    "CalculatorSettings",
    "Capabilities",
    "LabelResult",
    "Labeler",
    "Moments",
    "RunHandle",
    "RunState",
    "TheorySpec",
    "WorkerConfig",
]
