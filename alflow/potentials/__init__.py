"""The committee potential: training, prediction, the errors it admits to, and how they are calibrated.

Settings, calibration and protocols are light; whatever needs torch is loaded when it is first asked for, so that
reading a campaign file or a ledger does not pay for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alflow.potentials._calibration import Calibration, KindCalibration, fit_calibration
from alflow.potentials._coverage import Coverage, coverage, drift_warning, rank_correlation
from alflow.potentials._kinds import PotentialKind, load_committee, potential_kind
from alflow.potentials._prediction import Prediction
from alflow.potentials._protocol import BatchEvaluator, Committee
from alflow.potentials._report import ErrorSummary, TrainingProgress, TrainingReport
from alflow.potentials._spec import CommitteeSpec, TrainingSpec, changed_fields
from alflow.potentials._targets import Kind, Targets
from alflow.potentials._uncertainty import (
    Errors,
    Means,
    Spreads,
    actual_errors,
    largest_ratio,
    leading_kinds,
    spreads,
)
from alflow.potentials.mace import MaceSpec

if TYPE_CHECKING:
    from alflow.potentials._adapter import CalculatorCommittee
    from alflow.potentials._calculator import CommitteeCalculator
    from alflow.potentials._committee import NativeCommittee
    from alflow.potentials._conformance import check_committee
    from alflow.potentials._dataset import why_unusable
    from alflow.potentials._engine import kernel_state
    from alflow.potentials._explorer import ExploringCommittee
    from alflow.potentials._label_doubts import LabelSummary, summarise_labels
    from alflow.potentials._lammps import MliapCommittee, export_lammps
    from alflow.potentials._lammps_fix import drive_lammps
    from alflow.potentials._threads import compute_threads
    from alflow.potentials._train import train_committee

_LAZY = {
    "CalculatorCommittee": "_adapter",
    "CommitteeCalculator": "_calculator",
    "ExploringCommittee": "_explorer",
    "LabelSummary": "_label_doubts",
    "MliapCommittee": "_lammps",
    "NativeCommittee": "_committee",
    "check_committee": "_conformance",
    "compute_threads": "_threads",
    "drive_lammps": "_lammps_fix",
    "export_lammps": "_lammps",
    "kernel_state": "_engine",
    "summarise_labels": "_label_doubts",
    "train_committee": "_train",
    "why_unusable": "_dataset",
}

__all__ = [
    "BatchEvaluator",
    "CalculatorCommittee",
    "Calibration",
    "Committee",
    "CommitteeCalculator",
    "CommitteeSpec",
    "Coverage",
    "ErrorSummary",
    "Errors",
    "ExploringCommittee",
    "Kind",
    "KindCalibration",
    "LabelSummary",
    "MaceSpec",
    "Means",
    "MliapCommittee",
    "NativeCommittee",
    "PotentialKind",
    "Prediction",
    "Spreads",
    "Targets",
    "TrainingProgress",
    "TrainingReport",
    "TrainingSpec",
    "actual_errors",
    "changed_fields",
    "check_committee",
    "compute_threads",
    "coverage",
    "drift_warning",
    "drive_lammps",
    "export_lammps",
    "fit_calibration",
    "kernel_state",
    "largest_ratio",
    "leading_kinds",
    "load_committee",
    "potential_kind",
    "rank_correlation",
    "spreads",
    "summarise_labels",
    "train_committee",
    "why_unusable",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
