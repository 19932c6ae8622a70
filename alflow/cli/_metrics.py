"""How good a committee is on labelled structures: mean errors in the units people quote, and the calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.potentials import Kind, actual_errors, coverage, rank_correlation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials import Prediction
    from alflow.structures import Properties


@dataclass(frozen=True, kw_only=True)
class KindMetrics:
    """Errors of one kind over all structures.

    Parameters
    ----------
    n
        values compared: structures (energy), Cartesian components (force, stress)
    mae, rmse
        in the unit of the kind: eV/atom, eV/Å, eV/Å³
    sigma
        mean calibrated 1σ; None for one member
    coverage90
        share of errors inside the calibrated 90 % interval; None without calibration or with too few rows
    spearman
        rank correlation of expected and actual errors; None with too few rows
    """

    n: int
    mae: float
    rmse: float
    sigma: float | None = None
    coverage90: float | None = None
    spearman: float | None = None


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Errors of a committee on labelled structures, per kind; None for a kind without labels.

    `far_from_data` is the share of structures further from the training data than 95 % of these; None where not known.
    """

    n_structures: int
    n_atoms: int
    n_members: int
    calibrated: bool
    u_above_one: float | None
    far_from_data: float | None
    energy: KindMetrics
    force: KindMetrics | None
    stress: KindMetrics | None


def measure(prediction: Prediction, properties: Sequence[Properties]) -> Metrics:
    """Compare n predictions with n labels."""
    energy = [(prediction.energy_mean[i] - label.energy) / prediction.n_atoms[i] for i, label in enumerate(properties)]
    force = [
        (prediction.force_mean[i] - label.forces).ravel()
        for i, label in enumerate(properties)
        if label.forces is not None
    ]
    predicted = prediction.stress_mean
    stress = (
        []
        if predicted is None
        else [(predicted[i] - label.stress).ravel() for i, label in enumerate(properties) if label.stress is not None]
    )
    judged = _judge(prediction, properties)
    return Metrics(
        n_structures=len(properties),
        n_atoms=int(np.sum(prediction.n_atoms)),
        n_members=prediction.n_members,
        calibrated=prediction.calibration is not None,
        u_above_one=float(np.mean(prediction.u > 1.0)) if prediction.n_members > 1 else None,
        far_from_data=None if prediction.distance is None else float(np.mean(prediction.distance > 1.0)),
        energy=_kind(np.asarray(energy), judged.get(Kind.ENERGY, {})),
        force=_kind(np.concatenate(force), judged.get(Kind.FORCE, {})) if force else None,
        stress=_kind(np.concatenate(stress), judged.get(Kind.STRESS, {})) if stress else None,
    )


def _kind(difference: NDArray[np.float64], judged: dict[str, Any]) -> KindMetrics:
    known = difference[np.isfinite(difference)]  # the stress of a slab or molecule is nan
    return KindMetrics(
        n=known.size,
        mae=float(np.abs(known).mean()) if known.size else math.nan,
        rmse=float(np.sqrt(np.square(known).mean())) if known.size else math.nan,
        **judged,
    )


def _judge(prediction: Prediction, properties: Sequence[Properties]) -> dict[Kind, dict[str, Any]]:
    if prediction.n_members < 2:
        return {}
    judged: dict[Kind, dict[str, Any]] = {}
    for kind in Kind:
        sigma = prediction.errors.of(kind)
        finite = np.isfinite(sigma)
        if finite.any():
            judged[kind] = {"sigma": float(sigma[finite].mean())}
    errors = actual_errors(prediction.means, properties, prediction.spreads)
    if prediction.calibration is not None:
        for kind, found in coverage(prediction.calibration, prediction.spreads, errors).items():
            judged.setdefault(kind, {}).update(coverage90=found.coverage90, spearman=found.spearman)
        return judged
    for kind, values in judged.items():
        spread, error = prediction.spreads.of(kind), errors.of(kind)
        usable = np.isfinite(spread) & np.isfinite(error)
        values["spearman"] = rank_correlation(spread[usable], error[usable])
    return judged
