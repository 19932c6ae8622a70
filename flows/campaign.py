"""Drive one campaign as a Prefect flow: each step of a round is a task, the ledger is the memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from alflow.errors import (
    CampaignBusyError,
    LeaseLostError,
    LedgerError,
    LedgerUnavailableError,
    LedgerVersionError,
)
from alflow.flows._artifacts import Artifacts
from alflow.flows._parameters import CampaignName, Count, Hours, run_name
from alflow.flows._reporter import FlowReporter
from alflow.loop import CampaignContext, RunLimits, RunState, locate_campaign, open_campaign, run

RETRY_SECONDS = [5.0, 30.0, 120.0]
"""Waiting times before a step is tried again after the database or the file system failed."""
_DIGEST = re.compile(r"-[0-9a-f]{8}$")  # of a source's settings, which tells a person nothing
_FINAL = (LeaseLostError, CampaignBusyError, LedgerVersionError, LedgerUnavailableError)


def is_passing(_task: Any, _run: Any, state: State[Any]) -> bool:
    """True where a step failed for want of the database or the file system: repeating it may succeed."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, LedgerError | OSError) and not isinstance(error, _FINAL)


class StepTasks:
    """Runs the steps of a round as Prefect tasks; caching and persistence stay off, since the ledger remembers."""

    def __init__(self, ctx: CampaignContext, report: FlowReporter, artifacts: Artifacts) -> None:
        self._ctx = ctx
        self._report = report
        self._artifacts = artifacts
        self.told = False
        """Whether the findings on show are those of the last step."""

    def __call__(self, name: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run one step; what it failed for passes on unchanged once its repetitions are used up."""
        shown = _DIGEST.sub("", name)

        @task(
            name=shown,
            task_run_name=f"round {self._report.round_index}: {shown}",
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=len(RETRY_SECONDS),
            retry_delay_seconds=RETRY_SECONDS,
            retry_condition_fn=is_passing,
        )
        def step() -> dict[str, Any]:
            return function()

        result: dict[str, Any] = step()
        self._artifacts.finish_progress()
        self.told = name == "assess"
        if self.told:
            self._artifacts.summary(self._ctx.ledger)
        return result


@flow(name="campaign", flow_run_name=run_name, persist_result=False)
def campaign(
    campaign: CampaignName,
    rounds: Count | None = None,
    labels: Count | None = None,
    hours: Hours | None = None,
    work: bool = True,
) -> State[str]:
    """Drive a campaign forward until a rule stops it, a person must decide, or this run has done its share.

    The state's message says in a sentence why the run ended. A campaign that has stopped, and one that another run
    drives, are left alone: the run says so and completes.

    Parameters
    ----------
    campaign
        campaign file or its folder on the worker's machine, or the name of a campaign in the ledger that the variable
        ALFLOW_LEDGER names there
    rounds, labels, hours
        what this run may do at most; None: no limit beside the campaign's own budget. The next run goes on
    work
        compute labels in this flow run; False leaves them to label workers

    Raises
    ------
    AlflowError
        whatever :func:`alflow.loop.run` raises, but for a busy campaign
    """
    log = get_run_logger()
    limits = RunLimits(rounds=rounds, labels=labels, wall_seconds=None if hours is None else 3600.0 * hours)
    ctx = open_campaign(locate_campaign(campaign))
    artifacts = Artifacts(ctx.name, log)
    report = FlowReporter(log, artifacts)
    ctx.report = report
    steps = StepTasks(ctx, report, artifacts)
    try:
        outcome = run(
            ctx,
            steps,
            limits=limits,
            work=work,
            driver=f"flow run {runtime.flow_run.name} {str(runtime.flow_run.id)[:8]}",
        )
    except CampaignBusyError as error:
        sentence = f"Nothing was done: {error}"
        log.warning("%s", sentence)
        artifacts.markdown("run", f"{sentence}\n", f"{ctx.name}: the latest run")
        return Completed(message=sentence, data=sentence)
    else:
        if not steps.told:
            artifacts.summary(ctx.ledger)
        sentence = _sentence(ctx, outcome.state, outcome.sentence, did_nothing=outcome.did_nothing)
        done = f"{outcome.rounds} rounds ended, {outcome.labels} labels computed"
        artifacts.markdown("run", f"{sentence}\n\n{done}.\n", f"{ctx.name}: the latest run")
        return Completed(message=sentence, data=sentence)
    finally:
        ctx.ledger.close()


def _sentence(ctx: CampaignContext, state: RunState, why: str, *, did_nothing: bool) -> str:
    if state is RunState.STOPPED and did_nothing:
        return f"Nothing was done, campaign {ctx.name} has stopped: {why}"
    if state is RunState.STOPPED:
        return f"Campaign {ctx.name} has stopped: {why}"
    return f"Campaign {ctx.name}: {why}"
