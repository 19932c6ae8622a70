"""What training says while it runs and when it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from alflow.potentials._prediction import Prediction


@dataclass(frozen=True, kw_only=True)
class ErrorSummary:
    """Errors of the committee's mean over some structures; None where there are no labels of a kind.

    Parameters
    ----------
    energy_mae
        mean absolute error, eV/atom
    energy_rmse
        eV/atom
    force_mae
        mean absolute error of force components, eV/Å
    force_rmse
        of force components, eV/Å
    stress_mae
        mean absolute error of stress components, eV/Å³
    """

    n_structures: int
    energy_mae: float
    energy_rmse: float
    force_mae: float | None
    force_rmse: float | None
    stress_mae: float | None


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """One look at a running training.

    Parameters
    ----------
    epoch, max_epochs
        passes done, the running one included, and planned; `max_epochs` is None under a time budget
    loss
        mean over members and over the steps since the last look
    held_out_loss
        loss of the members' mean, by averaged weights, on the held-out structures; None when there are none or none was
        looked at
    cpu_seconds
        processor time used so far, eased over resumptions
    fraction
        of the budget that is used, 0 to 1
    """

    epoch: int
    max_epochs: int | None
    loss: float
    held_out_loss: float | None
    cpu_seconds: float
    fraction: float


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingReport:
    """The record of one training.

    Parameters
    ----------
    n_train
        structures given, held-out ones included
    held_out
        indices of the structures that were held out
    epochs
        passes over the training structures, the last of which may be incomplete
    cpu_seconds
        processor time, all threads
    train, validation
        errors of the committee's mean on what it learned from and on what was held out
    member_weights
        (K, n) weight of every structure for every member; 0 where held out
    held_out_prediction
        prediction for the held-out structures by the stored weights
    reference_energies
        per element, eV
    warm_start
        how the earlier committee was used: a sentence, empty when training started from scratch
    history
        looks at the held-out structures: epoch, training loss (mean over members), held-out loss (of the members' mean)
    """

    n_train: int
    held_out: tuple[int, ...]
    epochs: int
    cpu_seconds: float
    train: ErrorSummary
    validation: ErrorSummary | None
    member_weights: NDArray[np.float64]
    held_out_prediction: Prediction | None
    reference_energies: dict[str, float]
    warm_start: str
    history: tuple[tuple[int, float, float | None], ...]
