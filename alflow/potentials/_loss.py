"""How wrong a prediction is, in units of the user's targets, for every member by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from alflow.potentials._dataset import Labels
    from alflow.potentials._network import NetworkOutput
    from alflow.potentials._spec import TrainingSpec
    from alflow.potentials._targets import Targets

SOFT = 0.5
"""δ: errors beyond this many targets count linearly."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Factors of (error / target)²."""

    energy: float
    force: float
    stress: float
    targets: Targets

    @classmethod
    def of(cls, training: TrainingSpec, targets: Targets, progress: float) -> LossWeights:
        """Weights at a fraction of the training.

        Energies start light: many components of forces and stresses teach the shape of the landscape first, a single
        number per structure pins its height later (the order matters, BARS 1).
        """
        done = min(progress / training.energy_ramp, 1.0) if training.energy_ramp > 0 else 1.0
        return cls(
            energy=training.energy_weight * training.energy_start ** (1.0 - done),
            force=training.force_weight,
            stress=training.stress_weight,
            targets=targets,
        )


def soften(square: torch.Tensor) -> torch.Tensor:
    """Turn the squared error x² in units of the target into x² for small and 2 δ |x| for large x (pseudo-Huber).

    A few far-off structures must not decide what the others teach. It acts on norms, so that it does not depend on the
    orientation.
    """
    return 2 * SOFT**2 * (torch.sqrt(1 + square / SOFT**2) - 1)


def member_losses(
    out: NetworkOutput, labels: Labels, structure: torch.Tensor, weights: LossWeights, share: torch.Tensor
) -> torch.Tensor:
    r"""Loss of every member, (K,).

    :math:`L_k = \frac{1}{\sum_s w_{ks}} \sum_s w_{ks} [ w_E\,\rho(\Delta E_s / n_s t_E) + w_F\,\rho(|\Delta F| / t_F)
    + w_S\,\rho(|\Delta\sigma| / t_S) ]` with :math:`\rho(x) \approx x^2`, see :func:`soften`; forces are averaged over
    all atoms of the batch, so that an atom counts the same in a small and in a large cell.

    Parameters
    ----------
    out
        energies (K, n), forces (K, N, 3), virials (K, n, 6)
    labels
        of the same batch
    structure
        (N,) structure of every atom
    weights
        factors
    share
        (K, n) weight of every structure for every member
    """
    t = weights.targets
    total = share.sum(1).clamp(min=1e-12)
    energy = soften(((out.energy - labels.energy) / (labels.n_atoms * t.energy)) ** 2)
    loss = weights.energy * (share * energy).sum(1) / total
    if out.forces is not None and out.virial is not None:
        per_atom = share.index_select(1, structure) * labels.has_forces[:, 0]
        force = soften(((out.forces - labels.forces) ** 2).mean(2) / t.force**2)
        loss = loss + weights.force * (per_atom * force).sum(1) / per_atom.sum(1).clamp(min=1e-12)
        per_cell = share * labels.has_stress[:, 0]
        stress = soften((((out.virial - labels.virial) / labels.volume.unsqueeze(1)) ** 2).mean(2) / t.stress**2)
        loss = loss + weights.stress * (per_cell * stress).sum(1) / per_cell.sum(1).clamp(min=1e-12)
    return loss


def committee_loss(out: NetworkOutput, labels: Labels, structure: torch.Tensor, weights: LossWeights) -> torch.Tensor:
    """Loss of the mean over members, a scalar; every structure counts the same.

    It is what a committee is judged by, for its mean is what is used. Members that learn their examples by heart
    disagree more, and the mean of their losses grows while their mean goes on to gain.

    Parameters
    ----------
    out, labels, structure, weights
        as in :func:`member_losses`
    """
    mean = replace(
        out,
        energy=out.energy.mean(0, keepdim=True),
        forces=None if out.forces is None else out.forces.mean(0, keepdim=True),
        virial=None if out.virial is None else out.virial.mean(0, keepdim=True),
    )
    return member_losses(mean, labels, structure, weights, torch.ones_like(mean.energy))[0]
