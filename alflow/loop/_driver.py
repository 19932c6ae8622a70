"""The one driver: rounds, made of named steps, until a rule stops the campaign or this run's limits are reached."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from alflow.errors import LedgerUnavailableError
from alflow.ledger import CampaignState, CandidateState, RoundRow, RoundState, StepState
from alflow.loop._assess import assess
from alflow.loop._choose import choose
from alflow.loop._context import CampaignContext, target_warnings
from alflow.loop._design import design
from alflow.loop._explore import explore_steps
from alflow.loop._hull import labelled_candidates
from alflow.loop._label import label
from alflow.loop._lease import campaign_lease
from alflow.loop._limits import Allowance, RunLimits
from alflow.loop._outage import through_outage
from alflow.loop._queue import queue
from alflow.loop._score import score
from alflow.loop._stop import count_labels
from alflow.loop._train import train
from alflow.potentials import compute_threads

StepFunction = Callable[[CampaignContext, RoundRow], dict[str, Any]]
CallStep = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]

MAX_OUTAGES = 5
"""Within an hour and without a finished step: then it is the step that the ledger does not survive."""


class RunState(StrEnum):
    """How a run ended."""

    STOPPED = "stopped"
    WAITING = "waiting"
    LIMIT = "limit"


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """Why a run ended, in a sentence, and what it did.

    ``did_nothing`` is True where the campaign had stopped, or waited for approval, before this run began.
    """

    state: RunState
    sentence: str
    rounds: int
    labels: int
    did_nothing: bool


def plain_call(name: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:  # noqa: ARG001  the protocol's
    """Call a step in this process: no server, no Prefect."""
    return function()


def round_steps(ctx: CampaignContext, index: int) -> list[tuple[str, StepFunction]]:
    """Return the named steps of a round in their order; round 0 is the designed one."""
    before: list[tuple[str, StepFunction]]
    if index == 0:
        before = [*explore_steps(ctx, index), ("design", design)]
    else:
        before = [("train", train), *explore_steps(ctx, index), ("score", score), ("select", choose)]
    return [*before, ("queue", queue), ("label", label), ("assess", assess)]


def run(
    ctx: CampaignContext,
    call_step: CallStep = plain_call,
    *,
    limits: RunLimits | None = None,
    work: bool = True,
    resume: bool = False,
    driver: str = "",
) -> RunOutcome:
    """Drive a campaign forward until a rule stops it, a person must decide, or the limits are reached.

    May be killed at any instant: finished steps are never redone, an unfinished one is repeated with the same random
    numbers, and the same call continues. When the ledger cannot be reached for a while, the run waits for it and goes
    on in the same way. A campaign that stops at the end of a round trains once more, so that its newest committee has
    learnt from every label.

    Parameters
    ----------
    ctx
        the opened campaign
    call_step
        how a step is called; a Prefect flow passes a wrapper that makes each step a task
    limits
        what this run may do at most; one that reaches them leaves the campaign ready for the next, also inside a round
    work
        True: this process also computes the labels; False: it waits for label workers
    resume
        True: go on although the campaign has stopped, as a person asks for
    driver
        what else to call this run beside its process, for those who find the campaign busy

    Raises
    ------
    CampaignBusyError
        if another run drives the campaign
    LeaseLostError
        if another run took the campaign over
    LedgerUnavailableError
        if the ledger cannot be reached for minutes; the same call continues later
    """
    allowance = Allowance(limits or RunLimits(), lambda: count_labels(ctx))
    closed_before = _closed_rounds(ctx)
    acted = False
    outages: list[float] = []
    for sentence in target_warnings(ctx):
        ctx.report.note(sentence)

    def ended(state: RunState, sentence: str) -> RunOutcome:
        rounds, labels = _closed_rounds(ctx) - closed_before, allowance.labels
        ctx.report.done(sentence)
        return RunOutcome(state=state, sentence=sentence, rounds=rounds, labels=labels, did_nothing=not acted)

    def advance() -> RunOutcome | None:
        """Work on the current round, or the next; return how the run ended, or None to be called again."""
        nonlocal acted
        campaign = ctx.campaign
        stopped = campaign.state is CampaignState.STOPPED
        if stopped and not owes_training(ctx):
            return ended(RunState.STOPPED, campaign.reason)
        round_row = ctx.ledger.rounds.current(ctx.campaign_id)
        if round_row is None or round_row.state is RoundState.CLOSED:
            reached = None if stopped else allowance.no_round(_closed_rounds(ctx) - closed_before)
            if reached is not None:
                return ended(RunState.LIMIT, reached)
            index = 0 if round_row is None else round_row.index + 1
            with ctx.write():
                round_row = ctx.ledger.rounds.open(ctx.campaign_id, index)
        about = "its training only: the last labels are learnt from" if stopped else ""
        ctx.report.round(round_row.index, "design" if round_row.index == 0 else about)
        steps = round_steps(ctx, round_row.index)
        for name, function in steps[:1] if stopped else steps:
            if _is_finished(ctx, round_row, name):
                continue
            if _must_wait(ctx, round_row, name):
                return ended(RunState.WAITING, ctx.campaign.reason)
            reached = allowance.no_time()
            if reached is None:
                ctx.work_here, ctx.allowance = work, allowance
                acted = True
                _run_step(ctx, round_row, name, function, call_step)
                outages.clear()
                if ctx.campaign.state is CampaignState.STOPPED:
                    break
                if not _is_finished(ctx, round_row, name):  # labelling ends where the limits do
                    reached = allowance.no_label()
            if reached is not None:
                return ended(RunState.LIMIT, reached)
        return None

    with campaign_lease(ctx, driver=driver), compute_threads(ctx.config.training.threads):
        _reopen(ctx, resume=resume)
        while True:
            try:
                outcome = advance()
            except LedgerUnavailableError as error:
                # whether the last transaction took effect is unknown: what is finished is read again from the ledger
                outages[:] = [t for t in outages if time.monotonic() - t < 3600.0] + [time.monotonic()]
                if len(outages) > MAX_OUTAGES:
                    raise
                ctx.report.note(f"{error}; the step is repeated")
                through_outage(ctx.ledger.now, ctx.report)
            else:
                if outcome is not None:
                    return outcome


def _closed_rounds(ctx: CampaignContext) -> int:
    return sum(row.state is RoundState.CLOSED for row in ctx.ledger.rounds.list(ctx.campaign_id))


def owes_training(ctx: CampaignContext) -> bool:
    """True where a stopped campaign has labels that its newest committee has not seen.

    It learns from them in the first step of the round that would come next, from which it goes on if it is resumed.
    Where labelling itself was stopped the round is still open, and is to be mended first.
    """
    round_row = ctx.ledger.rounds.current(ctx.campaign_id)
    if round_row is None:
        return False
    if round_row.state is RoundState.OPEN:
        return round_row.index > 0 and not _is_finished(ctx, round_row, "train")
    newest = ctx.ledger.committees.latest(ctx.campaign_id)
    seen = set() if newest is None else {label.label_id for label in ctx.ledger.committees.labels(newest.id)}
    return any(label.id not in seen for _, label in labelled_candidates(ctx))


def _run_step(
    ctx: CampaignContext,
    round_row: RoundRow,
    name: str,
    function: StepFunction,
    call_step: CallStep,
) -> None:
    with ctx.write():
        ctx.ledger.rounds.begin_step(round_row.id, name)
    call_step(name, lambda: function(ctx, round_row))


def _is_finished(ctx: CampaignContext, round_row: RoundRow, name: str) -> bool:
    return ctx.ledger.rounds.step(round_row.id, name).state is StepState.FINISHED


def _must_wait(ctx: CampaignContext, round_row: RoundRow, name: str) -> bool:
    """True where a person must approve the batch before it is queued."""
    if name != "queue" or ctx.config.approval != "manual":
        return False
    if ctx.ledger.rounds.get(round_row.id).summary.get("approved"):  # as it is now: a person may have been quick
        return False
    n = len(ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.SELECTED]))
    if n == 0:
        return False
    with ctx.write():
        ctx.ledger.campaigns.set_state(
            ctx.campaign_id,
            CampaignState.WAITING,
            f"{n} candidates wait for approval: `alflow plan` shows them, `alflow approve` lets them be labelled",
        )
    return True


def _reopen(ctx: CampaignContext, *, resume: bool) -> None:
    state = ctx.campaign.state
    if state is CampaignState.WAITING or (resume and state is CampaignState.STOPPED):
        with ctx.write():
            ctx.ledger.campaigns.set_state(ctx.campaign_id, CampaignState.ACTIVE, "continued by a run")
