"""What a campaign leaves open: phases on its hull without proof, and predictions below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alflow.discovery import DiscoverySettings
from alflow.ledger import CandidateState
from alflow.report._gather import settings_of, theory_of
from alflow.report._hull import gather_hull

if TYPE_CHECKING:
    from alflow.ledger import Ledger
    from alflow.report._data import Hull


@dataclass(frozen=True, kw_only=True)
class OpenPhase:
    """A phase that may belong to the answer.

    Parameters
    ----------
    label_id
        its label, on the hull of the labels but not confirmed; None for a prediction below that hull
    formation_energy, e_hull
        eV/atom, from the label or predicted; ``e_hull`` is negative below the hull of the labels
    remark
        why it is open
    """

    formula: str
    candidate_id: int | None
    label_id: int | None
    formation_energy: float
    e_hull: float
    remark: str


def open_phases(ledger: Ledger, campaign: str | int) -> tuple[OpenPhase, ...]:
    """Return what the report calls open: first what has a label, then the lowest prediction of each composition.

    Of the predictions only those that were on the hull when they were last scored are read, so that a large pool costs
    nothing. Nothing is open before the first round has ended.

    Raises
    ------
    NotFoundError
        if the ledger holds no such campaign
    """
    with ledger.read():
        row = ledger.campaigns.get(campaign)
        theory, snapshot, settings = theory_of(ledger, row), ledger.hulls.latest(row.id), settings_of(row)
        if theory is None or snapshot is None:
            return ()
        discovery = settings.get("discovery") or {}
        tolerance = DiscoverySettings.model_validate(discovery).stable_tolerance
        candidates = ledger.pool.rows(ledger.pool.ids(row.id, [CandidateState.LABELLED]))
        candidates += ledger.candidates(f"state={CandidateState.POOLED},e_hull<={tolerance}", campaign=row.id)
        hull = gather_hull(candidates, ledger.labels.accepted(theory.id, row.id), discovery, snapshot)
    return () if hull is None else tuple(_open(hull))


def _open(hull: Hull) -> Iterator[OpenPhase]:
    for compound in hull.unconfirmed:
        yield OpenPhase(
            formula=compound.formula,
            candidate_id=compound.candidate_id,
            label_id=compound.label_id,
            formation_energy=compound.formation,
            e_hull=compound.e_hull,
            remark=compound.remark,
        )
    seen = set()
    for point in hull.promising:
        if point.formula not in seen:
            seen.add(point.formula)
            yield OpenPhase(
                formula=point.formula,
                candidate_id=point.candidate_id,
                label_id=None,
                formation_energy=point.formation,
                e_hull=point.e_hull,
                remark="predicted below the hull of the labels",
            )
