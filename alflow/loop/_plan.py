"""What would be labelled next, and why; and where a campaign stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from alflow.explore import round0
from alflow.ledger import CandidateState, FailureCount, JobState, RoundState
from alflow.loop._choose import latest_batch
from alflow.loop._context import CampaignContext, target_warnings
from alflow.loop._stop import count_labels, earliest


@dataclass(frozen=True, kw_only=True)
class PlannedLabel:
    """One candidate that would be labelled; ``candidate_id`` is None where it is not in the ledger yet."""

    candidate_id: int | None
    formula: str
    n_atoms: int
    stream: str
    u: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the next round would label.

    ``when`` says in words what stage the items belong to, ``set_aside`` how many candidates are implausible now,
    ``earliest_stop`` when convergence can be declared at the earliest, ``warnings`` which targets cannot be reached.
    """

    when: str
    items: tuple[PlannedLabel, ...]
    set_aside: int
    earliest_stop: str
    warnings: tuple[str, ...] = ()


def plan(ctx: CampaignContext) -> Plan:
    """Say what would be labelled next without changing anything.

    Chosen candidates that wait for approval or labelling come first; else the newest committee's choice from the pool
    as it stands, before the next round trains and explores; before the first training, the designed round.
    """
    return replace(_plan(ctx), warnings=target_warnings(ctx))


def _plan(ctx: CampaignContext) -> Plan:
    sentence = earliest(ctx)
    waiting = ctx.ledger.pool.rows(
        ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.SELECTED, CandidateState.QUEUED])
    )
    if waiting:
        waiting.sort(key=lambda r: (r.rank if r.rank is not None else 0, r.id))
        items = [
            PlannedLabel(
                candidate_id=r.id, formula=r.formula, n_atoms=r.n_atoms, stream=r.stream.value, u=r.u, reason=r.reason
            )
            for r in waiting
        ]
        return Plan(when="chosen, to be labelled now", items=tuple(items), set_aside=0, earliest_stop=sentence)
    current = ctx.ledger.rounds.current(ctx.campaign_id)
    index = 0 if current is None else current.index + (current.state is RoundState.CLOSED)
    batch = latest_batch(ctx, index)
    if batch is not None:
        items = [
            PlannedLabel(
                candidate_id=c.id,
                formula=batch.rows[c.id].formula,
                n_atoms=batch.rows[c.id].n_atoms,
                stream=c.stream.value,
                u=batch.rows[c.id].u,
                reason=c.reason,
            )
            for c in batch.selection.items
        ]
        when = f"round {index}, as the newest committee sees the pool now; the round trains and explores first"
        return Plan(when=when, items=tuple(items), set_aside=len(batch.selection.set_aside), earliest_stop=sentence)
    if index > 0:
        when = f"round {index} trains the first committee before it chooses; `alflow run` does both"
        return Plan(when=when, items=(), set_aside=0, earliest_stop=sentence)
    proposals = round0(ctx.config.round0, ctx.config.elements, ctx.rng(0, "design"))
    items = [
        PlannedLabel(
            candidate_id=None,
            formula=p.structure.formula,
            n_atoms=p.structure.n_atoms,
            stream="design",
            u=None,
            reason="part of the designed first round",
        )
        for p in proposals
    ]
    return Plan(when="round 0, before duplicates are dropped", items=tuple(items), set_aside=0, earliest_stop=sentence)


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where a campaign stands; ``committee`` is the newest: its round, and the number of labels it was trained on."""

    name: str
    goal: str
    state: str
    reason: str
    round_index: int | None
    step: str | None
    steps: tuple[tuple[str, str], ...]
    candidates: dict[str, int]
    jobs: dict[str, int]
    failures: tuple[FailureCount, ...]
    labels: int
    labels_budget: int | None
    committee: dict[str, int] | None
    driven_by: str | None
    ledger: str
    theory: str
    stable: tuple[dict[str, Any], ...]


def status(ctx: CampaignContext) -> Status:
    """Summarise state, round, candidates, jobs and budget from the ledger."""
    from alflow.loop._driver import round_steps

    row = ctx.campaign
    current = ctx.ledger.rounds.current(ctx.campaign_id)
    steps: list[tuple[str, str]] = []
    if current is not None:
        steps = [
            (name, ctx.ledger.rounds.step(current.id, name).state.value) for name, _ in round_steps(ctx, current.index)
        ]
    hull = ctx.ledger.hulls.latest(ctx.campaign_id)
    newest = ctx.ledger.committees.latest(ctx.campaign_id)
    return Status(
        name=row.name,
        goal=row.goal,
        state=row.state.value,
        reason=row.reason,
        round_index=None if current is None else current.index,
        step=next((name for name, state in steps if state != "finished"), None),
        steps=tuple(steps),
        candidates={str(k): n for k, n in ctx.ledger.pool.counts(ctx.campaign_id).items()},
        jobs={str(k): n for k, n in ctx.ledger.queue.counts(ctx.campaign_id).items() if k is not JobState.DONE or n},
        failures=tuple(ctx.ledger.queue.failures(ctx.campaign_id)),
        labels=count_labels(ctx),
        labels_budget=ctx.config.budget.labels,
        committee=None
        if newest is None
        else {"round": newest.round_index, "labels": len(ctx.ledger.committees.labels(newest.id))},
        driven_by=row.lease_owner,
        ledger=ctx.ledger.url,
        theory=ctx.theory.name or ctx.theory.fingerprint[:12],
        stable=() if hull is None else tuple(dict(s) for s in hull.stable),
    )
