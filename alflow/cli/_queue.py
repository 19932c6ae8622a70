"""``queue``: labelling jobs, and what a person may do with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alflow.cli._options import CampaignOption, CsvOption, JobIds, JsonOption, LedgerOption, WorkerConfigOption
from alflow.cli._output import Column, clock, plural, print_json, print_rows
from alflow.cli._target import actor, find_target, opened
from alflow.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from alflow.ledger import JobRow

COLUMNS = (
    Column(key="id", label="Job"),
    Column(key="state", label="State"),
    Column(key="formula", label="Formula"),
    Column(key="structure", label="Structure"),
    Column(key="theory", label="Theory"),
    Column(key="attempts", label="Attempts"),
    Column(key="worker", label="Worker"),
    Column(key="updated", label="Changed"),
    Column(key="error_kind", label="Error"),
    Column(key="message", label="Message", elastic=True),
)


def complete_state(incomplete: str) -> list[str]:
    """Offer job states."""
    from alflow.ledger import JobState

    return [state.value for state in JobState if state.value.startswith(incomplete)]


StateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        "-s",
        metavar="STATE",
        help="Only jobs in this state; may be repeated.",
        show_default=False,
        autocompletion=complete_state,
    ),
]


def ls(
    state: StateOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also jobs of other campaigns, and those that nobody asks for any more.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=0, help="At most so many; 0 for all.")] = 0,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """List labelling jobs."""
    from alflow.cli._console import stderr
    from alflow.ledger import JobState

    states = _states(state)
    with opened(campaign, ledger) as target:
        jobs = target.ledger.queue.list(
            None if everything or target.campaign is None else target.campaign.id,
            [JobState(name) for name in states] or None,
            limit=limit or None,
        )
        theories = {theory.id: theory.name or theory.labeler for theory in target.ledger.theories.list()}
    rows = [
        {
            "id": job.id,
            "state": job.state,
            "formula": job.formula,
            "structure": job.structure_id,
            "theory": theories[job.theory_id],
            "attempts": job.attempts,
            "worker": job.worker,
            "updated": job.updated if as_json or as_csv else clock(job.updated),
            "error_kind": job.error_kind,
            "message": job.message or None,
        }
        for job in jobs
    ]
    if rows or as_json or as_csv:
        print_rows(COLUMNS, rows, as_json=as_json, as_csv=as_csv)
    else:
        stderr().print("no job" + (f" is {' or '.join(states)}" if states else " yet"), style="dim")


def explain(
    jobs: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[JOB]...",
            help="Job ids, as `alflow queue ls` shows them. Default: the queue as a whole.",
            show_default=False,
        ),
    ] = None,
    candidates: Annotated[
        list[int] | None,
        typer.Option(
            "--candidate",
            "-c",
            metavar="ID",
            help="The jobs of this candidate, as `alflow ls` shows it; may be repeated.",
            show_default=False,
        ),
    ] = None,
    config: WorkerConfigOption = None,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say where jobs stand, what happens next, and why nobody takes them.

    With a job: who asked for it, every attempt with its cause and the place of its outputs, the limits that apply, and
    what to do. Without one: the queue in a few sentences.
    """
    from rich.text import Text

    from alflow.cli._console import stdout
    from alflow.cli._explain import explain_job, explain_queue
    from alflow.cli._output import cell_style
    from alflow.labelers import load_worker_config

    file = find_target(campaign, ledger).file
    with opened(campaign, ledger) as target:
        settings = load_worker_config(config, directory=Path() if file is None else file.parent)
        chosen = list(jobs or [])
        for candidate in candidates or []:
            found = target.ledger.queue.jobs_of(candidate)
            if not found:
                raise NotFoundError(
                    f"candidate {candidate} never asked for a label: `alflow why {candidate}` tells its story"
                )
            chosen += found
        if chosen:
            told = [explain_job(target.ledger, job, settings) for job in dict.fromkeys(chosen)]
        else:
            row = target.campaign
            title = f"queue of {target.ledger.url}" if row is None else f"queue of campaign {row.name}"
            told = [explain_queue(target.ledger, None if row is None else row.id, settings, title)]
    if as_json:
        documents = [explanation.document for explanation in told]
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    console = stdout()
    for position, explanation in enumerate(told):
        if position:
            console.print()
        heading = Text(f"{explanation.title}  ", style="bold")
        heading.append(explanation.state.replace("_", " "), style=cell_style("state", {"state": explanation.state}))
        console.print(heading)
        for name, text in explanation.lines:
            console.print(Text(f"  {name:<12} {text}"), soft_wrap=True)


def retry(
    jobs: JobIds, campaign: CampaignOption = None, ledger: LedgerOption = None, as_json: JsonOption = False
) -> None:
    """Queue failed, quarantined or cancelled jobs once more."""
    with opened(campaign, ledger) as target:
        rows = target.ledger.queue.retry(jobs, actor())
    _tell(rows, "queued again", as_json=as_json)


def release(
    jobs: JobIds, campaign: CampaignOption = None, ledger: LedgerOption = None, as_json: JsonOption = False
) -> None:
    """Take jobs from a worker that will not come back.

    What it still writes is refused.
    """
    with opened(campaign, ledger) as target:
        rows = target.ledger.queue.release(jobs, actor())
    _tell(rows, "given back to the queue", as_json=as_json)


def cancel(
    jobs: JobIds, campaign: CampaignOption = None, ledger: LedgerOption = None, as_json: JsonOption = False
) -> None:
    """Withdraw this campaign's request for labels.

    Another campaign's request for the same label stays.
    """
    with opened(campaign, ledger) as target:
        rows = target.ledger.queue.cancel(jobs, target.require_campaign().id, actor())
    _tell(rows, "withdrawn", as_json=as_json)


def _tell(jobs: Sequence[JobRow], what: str, *, as_json: bool) -> None:
    from alflow.cli._console import stderr

    if as_json:
        print_json([{"id": job.id, "state": job.state} for job in jobs])
    else:
        stderr().print(f"{plural(len(jobs), 'job')} {what}")


def _states(given: list[str] | None) -> list[str]:
    from alflow.ledger import JobState

    known = [state.value for state in JobState]
    for name in given or []:
        if name not in known:
            raise UserError(f"there is no job state {name!r}; the states are {', '.join(known)}")
    return list(given or [])
