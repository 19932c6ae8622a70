"""The committee of a round, as it was stored."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from alflow.errors import NotFoundError
from alflow.ledger import CandidateRow, CommitteeRow, RoundRow
from alflow.loop._context import CampaignContext
from alflow.potentials import Calibration, Committee, potential_kind


def round_committee(ctx: CampaignContext, round_row: RoundRow) -> Committee:
    """Return the calibrated committee that was trained in a round.

    Raises
    ------
    NotFoundError
        if the round has none: its training step has not finished
    """
    row = committee_row(ctx, round_row)
    if row is None:
        raise NotFoundError(f"round {round_row.index} of {ctx.name} has no committee yet; `alflow run` trains it")
    return open_committee(ctx, row)


def committee_row(ctx: CampaignContext, round_row: RoundRow) -> CommitteeRow | None:
    """Return the row of the committee trained in a round, or None."""
    return next((c for c in ctx.ledger.committees.list(ctx.campaign_id) if c.round_id == round_row.id), None)


def latest_committee(ctx: CampaignContext) -> Committee | None:
    """Return the newest committee of the campaign, or None before the first training."""
    row = ctx.ledger.committees.latest(ctx.campaign_id)
    return None if row is None else open_committee(ctx, row)


def open_committee(ctx: CampaignContext, row: CommitteeRow) -> Committee:
    """Load a stored committee with its calibration."""
    if row.artifact_id is None:
        raise NotFoundError(f"the committee of round {row.round_index} was pruned; `alflow train` makes another")
    committee = _load(str(row.spec.get("kind", "native")), ctx.ledger.artifacts.path(row.artifact_id))
    if row.calibration is None:
        return committee
    return committee.with_calibration(Calibration.from_dict(dict(row.calibration)))


def knows(committee: Committee, row: CandidateRow) -> bool:
    """True where the committee has met every element of a candidate: only then it can say anything about it."""
    return set(committee.elements).issuperset(row.chemical_system.split("-"))


@lru_cache(maxsize=2)
def _load(kind: str, path: Path) -> Committee:
    # content-addressed: a path never changes its content
    return potential_kind(kind).load(path)
