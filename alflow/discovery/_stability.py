"""What may be called stable, and what must be labelled before it may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Collection

    from alflow.discovery._snapshot import HullSnapshot


class DiscoverySettings(BaseModel):
    """What the campaign looks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(default=True, description="build a hull every round and confirm what lies on it")
    e_hull_window: float = Field(
        default=0.02, ge=0, description="eV/atom above the hull: relaxed structures below it are labelled to confirm"
    )
    stable_tolerance: float = Field(default=0.001, ge=0, description="eV/atom above the hull that counts as stable")
    max_force: float = Field(
        default=0.05, gt=0, description="eV/Å: largest residual force in the label of a structure called relaxed"
    )
    max_stress: float = Field(
        default=0.005, gt=0, description="eV/Å³: largest residual stress (Frobenius norm) in such a label"
    )


@dataclass(frozen=True, kw_only=True)
class RelaxedLabel:
    """What the label of one entry says about being relaxed; nan where it has no forces or stress.

    Parameters
    ----------
    force
        largest residual force, eV/Å
    stress
        Frobenius norm of the residual stress, eV/Å³
    """

    force: float
    stress: float


@dataclass(frozen=True, kw_only=True)
class StableCompound:
    """A compound that may be called stable, with the evidence.

    Parameters
    ----------
    id
        entry of the hull
    composition
        atomic fraction per element
    e_hull, formation_energy
        eV/atom
    p_stable
        share of the members whose own hull passes through it
    force, stress
        residuals of its label, eV/Å and eV/Å³
    """

    id: int
    composition: Mapping[str, float]
    e_hull: float
    formation_energy: float
    p_stable: float
    force: float
    stress: float


@dataclass(frozen=True, kw_only=True)
class StabilityReport:
    """Compounds reported stable, and those that only look so, with the reason.

    Parameters
    ----------
    stable
        confirmed, in order of composition
    unconfirmed
        (id, sentence): near the hull, but without sufficient evidence
    """

    stable: tuple[StableCompound, ...]
    unconfirmed: tuple[tuple[int, str], ...]


def report_stable(
    snapshot: HullSnapshot, labels: Mapping[int, RelaxedLabel], settings: DiscoverySettings
) -> StabilityReport:
    """Report as stable what lies on the hull *and* has a label at its relaxed geometry.

    Parameters
    ----------
    labels
        residuals of the labelled entries by id

    Notes
    -----
    A missing force or stress (nan) is no evidence. A compound must also survive the hull that every unlabelled
    prediction helps to lower: a noisy rival can hide it for a round, until the rival is confirmed or refuted.
    """
    stable, unconfirmed = [], []
    near = np.flatnonzero(snapshot.e_hull <= settings.stable_tolerance)
    for row in sorted(near, key=lambda r: tuple(snapshot.fractions[r])):
        entry = snapshot.ids[row]
        found = labels.get(entry)
        if not snapshot.labelled[row] or found is None:
            unconfirmed.append((entry, "predicted only: no label at this geometry"))
        elif not found.force <= settings.max_force:
            unconfirmed.append((entry, _residual("force", found.force, settings.max_force, "eV/Å")))
        elif not found.stress <= settings.max_stress:
            unconfirmed.append((entry, _residual("stress", found.stress, settings.max_stress, "eV/Å³")))
        else:
            stable.append(
                StableCompound(
                    id=entry,
                    composition={
                        e: float(x) for e, x in zip(snapshot.elements, snapshot.fractions[row], strict=True) if x > 0
                    },
                    e_hull=float(snapshot.e_hull[row]),
                    formation_energy=float(snapshot.formation_energy[row]),
                    p_stable=float(snapshot.p_stable[row]),
                    force=found.force,
                    stress=found.stress,
                )
            )
    return StabilityReport(stable=tuple(stable), unconfirmed=tuple(unconfirmed))


def _residual(what: str, value: float, limit: float, unit: str) -> str:
    if np.isnan(value):
        return f"its label has no {what}, so nothing shows that it is relaxed"
    return f"not relaxed: residual {what} {value:.3g} {unit} is above {limit:g} {unit}"


def confirmation_order(
    snapshot: HullSnapshot, relaxed: Collection[int], settings: DiscoverySettings, *, n_spreads: float = 1.0
) -> list[int]:
    """Ids that need a label at their relaxed geometry, most promising first.

    Unlabelled entries at relaxed geometries whose energy above the hull, less `n_spreads` times its spread, is inside
    the window. What lies on the hull now (within the stable tolerance) comes first, since the answer rests on it; then
    what may turn out to lie on it, by that optimistic distance.

    Parameters
    ----------
    relaxed
        ids of entries that the committee relaxed to the end
    """
    optimistic = snapshot.e_hull - n_spreads * snapshot.spread
    wanted = set(relaxed)
    near = [
        int(row)
        for row in np.flatnonzero((optimistic <= settings.e_hull_window) & ~snapshot.labelled)
        if snapshot.ids[row] in wanted
    ]
    above = snapshot.e_hull > settings.stable_tolerance
    order = sorted(near, key=lambda r: (above[r], optimistic[r], snapshot.e_hull[r], snapshot.ids[r]))
    return [snapshot.ids[row] for row in order]
