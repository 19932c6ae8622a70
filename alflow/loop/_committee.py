"""The committees of a campaign, as they were stored."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from alflow.errors import NotFoundError
from alflow.ledger import CandidateRow, CommitteeRow, Ledger, RoundRow
from alflow.loop._context import CampaignContext
from alflow.potentials import Calibration, Committee, potential_kind


def find_committee(ledger: Ledger, campaign: str | int, *, round_index: int | None = None) -> CommitteeRow:
    """Return what is stored about a committee of a campaign.

    Parameters
    ----------
    ledger
        where the campaign lives
    campaign
        its name or id
    round_index
        the round in which the committee was trained; None: the newest

    Raises
    ------
    NotFoundError
        if there is no such campaign, or nothing was trained yet or in that round
    """
    row = ledger.campaigns.get(campaign)
    committees = ledger.committees.list(row.id)
    if not committees:
        raise NotFoundError(f"campaign {row.name!r} has no committee yet; `alflow run` trains one")
    chosen = [c for c in committees if round_index is None or c.round_index == round_index]
    if not chosen:
        rounds = ", ".join(str(c.round_index) for c in committees)
        raise NotFoundError(f"campaign {row.name!r} trained no committee in round {round_index}, but in {rounds}")
    return chosen[-1]


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
    return open_committee(ctx.ledger, row)


def committee_row(ctx: CampaignContext, round_row: RoundRow) -> CommitteeRow | None:
    """Return the row of the committee trained in a round, or None."""
    return next((c for c in ctx.ledger.committees.list(ctx.campaign_id) if c.round_id == round_row.id), None)


def latest_committee(ctx: CampaignContext) -> Committee | None:
    """Return the newest committee of the campaign, or None before the first training."""
    row = ctx.ledger.committees.latest(ctx.campaign_id)
    return None if row is None else open_committee(ctx.ledger, row)


def open_committee(ledger: Ledger, row: CommitteeRow) -> Committee:
    """Load a stored committee with its calibration.

    Raises
    ------
    NotFoundError
        if its file was let go
    LedgerError
        if its file is missing
    """
    if row.artifact_id is None:
        raise NotFoundError(
            f"the committee of round {row.round_index} was let go to save space; `alflow committee ls` shows which "
            "are kept"
        )
    committee = _load(str(row.spec.get("kind", "native")), ledger.artifacts.path(row.artifact_id))
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
