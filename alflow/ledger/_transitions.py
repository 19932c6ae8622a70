"""Changes of candidates' states: checked, in one transaction, with a reason each and one event per campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from alflow.errors import NotFoundError, TransitionError
from alflow.ledger import _tables as t
from alflow.ledger._engine import among, now
from alflow.ledger._events import as_ranges, record
from alflow.ledger._states import KEPT_CANDIDATES, CandidateState, allowed_candidate_states
from alflow.ledger._structures import ensure_fingerprints

_NOT_COMPARED = frozenset({CandidateState.REJECTED, CandidateState.DUPLICATE})


def aligned(values: Any, count: int, what: str) -> list[Any]:
    """One value per candidate: a sequence of that length as it is, anything else repeated.

    Raises
    ------
    ValueError
        if a sequence has another length
    """
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
        return [values] * count
    if len(values) != count:
        raise ValueError(f"{len(values)} values of {what} for {count} candidates")
    return list(values)


def lock_states(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[CandidateState, int]]:
    """State and campaign of every candidate, held until the transaction ends; raises NotFoundError."""
    query = (
        select(t.Candidate.id, t.Candidate.state, t.Candidate.campaign_id)
        .where(among(connection, t.Candidate.id, ids))
        .order_by(t.Candidate.id)
        .with_for_update()
    )
    found = {int(i): (CandidateState(state), int(campaign)) for i, state, campaign in connection.execute(query)}
    missing = [i for i in ids if i not in found]
    if missing:
        raise NotFoundError(f"no candidate with id {missing[0]} in the ledger")
    return found


def move(
    connection: Connection,
    ids: Sequence[int],
    to: CandidateState,
    reasons: Sequence[str],
    *,
    actor: str,
    columns: Mapping[str, Sequence[Any]] | None = None,
    job_id: int | None = None,
) -> list[int]:
    """Bring candidates into a state; those that are in it already stay untouched. Return the ids that moved.

    Parameters
    ----------
    reasons
        one sentence per candidate
    columns
        further columns to set, one value per candidate

    Raises
    ------
    TransitionError
        if one of them may not go there; then none goes
    """
    if not ids:
        return []
    states = lock_states(connection, ids)
    moving: dict[int, int] = {}  # candidate → its place in the arguments, the last where one is named twice
    for place, candidate_id in enumerate(ids):
        old = states[candidate_id][0]
        if old == to:
            continue
        if to not in allowed_candidate_states(old, actor):
            allowed = ", ".join(sorted(allowed_candidate_states(old, actor))) or "nothing: this state is final"
            what = f"candidate {candidate_id} is {old} and cannot become {to} by {actor}"
            raise TransitionError(f"{what}; from {old} it may become {allowed}")
        if not reasons[place]:
            raise TransitionError(f"candidate {candidate_id} cannot become {to} without a reason a person can read")
        moving[candidate_id] = place
    if not moving:
        return []
    back = [i for i in moving if states[i][0] in _NOT_COMPARED] if to in KEPT_CANDIDATES else []
    if back:
        ensure_fingerprints(connection, back)
    time = now(connection)
    further = dict(columns or {})
    names = ["reason", *further]
    rows = [
        {"key": candidate_id, "new_reason": reasons[place], **{f"new_{n}": v[place] for n, v in further.items()}}
        for candidate_id, place in moving.items()
    ]
    statement = (
        update(t.Candidate)
        .where(t.Candidate.id == bindparam("key"))
        .values(state=to, updated=time, **{name: bindparam(f"new_{name}") for name in names})
    )
    connection.execute(statement, rows)
    _tell(connection, moving, to, reasons, states, actor=actor, job_id=job_id)
    return list(moving)


def _tell(
    connection: Connection,
    moving: Mapping[int, int],
    to: CandidateState,
    reasons: Sequence[str],
    states: Mapping[int, tuple[CandidateState, int]],
    *,
    actor: str,
    job_id: int | None,
) -> None:
    by_campaign: dict[int, list[int]] = {}
    for candidate_id in moving:
        by_campaign.setdefault(states[candidate_id][1], []).append(candidate_id)
    for campaign_id, members in by_campaign.items():
        by_change: dict[tuple[str, str], list[int]] = {}
        for candidate_id in members:
            by_change.setdefault((states[candidate_id][0], reasons[moving[candidate_id]]), []).append(candidate_id)
        changes = [
            {"from": str(old), "reason": reason, "ids": as_ranges(group)} for (old, reason), group in by_change.items()
        ]
        one = members[0] if len(members) == 1 else None
        subject = f"candidate {one}" if one is not None else f"{len(members)} candidates"
        because = f": {changes[0]['reason']}" if len(changes) == 1 else ""
        record(
            connection,
            "transition",
            f"{subject} became {to}{because}",
            campaign_id=campaign_id,
            candidate_id=one,
            job_id=job_id,
            payload={"to": to, "changes": changes},
            actor=actor,
        )
