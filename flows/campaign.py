"""Drive one campaign as a Prefect flow: each step of a round is a task, the ledger is the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from alflow.loop import RunLimits, RunOutcome, open_campaign, run


class LogReporter:
    """Passes the loop's progress on to the logger of the flow run."""

    def __init__(self) -> None:
        self._log = get_run_logger()

    def round(self, index: int, text: str) -> None:
        """Log that a round begins or goes on."""
        self._log.info("round %d %s", index, text)

    def step(self, name: str, text: str) -> None:
        """Log the result of a step."""
        self._log.info("%s: %s", name, text)

    def progress(self, name: str, done: int, total: int | None, text: str = "") -> None:
        """Leave progress inside a step to the debug level."""
        self._log.debug("%s: %d of %s %s", name, done, total, text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Log a table row by row."""
        for row in rows:
            self._log.info("%s: %s", title, ", ".join(f"{c} {v}" for c, v in zip(columns, row, strict=True)))

    def note(self, text: str) -> None:
        """Log something worth knowing."""
        self._log.warning("%s", text)

    def done(self, text: str) -> None:
        """Log why the run ends."""
        self._log.info("%s", text)


def call_as_task(name: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run one step of the loop as a Prefect task; caching and persistence stay off, since the ledger remembers."""

    @task(name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)
    def step() -> dict[str, Any]:
        return function()

    result: dict[str, Any] = step()
    return result


@flow(name="campaign", flow_run_name="{campaign_file}", persist_result=False)
def campaign(
    campaign_file: str,
    rounds: int | None = None,
    labels: int | None = None,
    hours: float | None = None,
    work: bool = True,
) -> str:
    """Drive a campaign forward and return in a sentence why the run ended.

    Parameters
    ----------
    campaign_file
        path of the campaign file on the worker's machine
    rounds, labels, hours
        what this run may do at most; None: no limit beside the campaign's own budget
    work
        compute labels in this flow run; False leaves them to label workers

    Raises
    ------
    CampaignBusyError
        if another run drives the campaign
    """
    limits = RunLimits(rounds=rounds, labels=labels, wall_seconds=None if hours is None else 3600.0 * hours)
    ctx = open_campaign(campaign_file, report=LogReporter())
    try:
        outcome: RunOutcome = run(ctx, call_as_task, limits=limits, work=work)
    finally:
        ctx.ledger.close()
    return outcome.sentence
