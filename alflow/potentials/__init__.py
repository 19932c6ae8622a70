"""The committee potential: training, prediction, the errors it admits to, and how they are calibrated."""

from alflow.potentials._calibration import (
    Calibration,
    Coverage,
    KindCalibration,
    coverage,
    drift_warning,
    fit_calibration,
)
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

__all__ = [
    "Calibration",
    "Coverage",
    "Errors",
    "Kind",
    "KindCalibration",
    "Means",
    "Spreads",
    "Targets",
    "actual_errors",
    "coverage",
    "drift_warning",
    "fit_calibration",
    "largest_ratio",
    "leading_kinds",
    "spreads",
]
