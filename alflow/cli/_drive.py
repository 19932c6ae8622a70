"""``plan``, ``run``, ``status``, ``approve``, ``pin``, ``exclude`` and ``worker``: driving a campaign."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alflow.cli._errors import ExitCode
from alflow.cli._options import (
    CampaignArgument,
    CampaignOption,
    CandidateIds,
    CsvOption,
    JsonOption,
    LedgerOption,
    QuietOption,
    ReasonOption,
    WorkerConfigOption,
)
from alflow.cli._output import Column, jsonable, plural, print_json, print_rows
from alflow.cli._target import (
    actor,
    candidate_ids,
    find_target,
    opened,
    opened_campaign,
    require_ledger,
    split_campaign,
)

if TYPE_CHECKING:
    from alflow.loop import CampaignContext, Plan, Status
    from alflow.report import OpenPhase

BatchIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CAMPAIGN] [ID]...",
        help="Only these candidates; the others of the batch go back to the pool. Default: the whole batch.",
        show_default=False,
    ),
]
_UNTIL = ("empty", "idle", "forever")
_CAPACITY = 100


def plan(
    campaign: CampaignArgument = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Show what would be labelled next, and why.

    Also says when the campaign can stop at the earliest. Changes nothing.
    """
    from alflow.cli._console import working
    from alflow.loop import plan as make_plan

    with opened_campaign(campaign, ledger) as ctx, working("planning"):
        found = make_plan(ctx)
    if as_json:
        print_json(found)
    else:
        _print_plan(found, as_csv=as_csv)
    if not found.items:
        raise typer.Exit(ExitCode.NOTHING_TO_DO)


def run(
    campaign: CampaignArgument = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", metavar="N", min=1, help="Stop after so many rounds.", show_default=False)
    ] = None,
    labels: Annotated[
        int | None,
        typer.Option("--labels", metavar="N", min=1, help="Stop after so many new labels.", show_default=False),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            "--hours", metavar="HOURS", min=0.0, help="Begin no round after so many hours.", show_default=False
        ),
    ] = None,
    work: Annotated[
        bool, typer.Option("--work/--no-work", help="Compute labels here, or leave that to `alflow worker`.")
    ] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on although a rule has stopped the campaign.")] = False,
    config: WorkerConfigOption = None,
    ledger: LedgerOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run rounds until a stopping rule fires.

    With `approval: manual` it ends before labels are paid for, until `alflow approve`. Interrupted in whatever way, the
    same command continues; nothing is lost and nothing is labelled twice.
    """
    from alflow.cli._reporter import ConsoleReporter
    from alflow.loop import RunLimits, RunState
    from alflow.loop import run as drive
    from alflow.loop import status as look
    from alflow.report import open_phases

    limits = RunLimits(rounds=rounds, labels=labels, wall_seconds=None if hours is None else 3600.0 * hours)
    with (
        ConsoleReporter(quiet=quiet) as report,
        opened_campaign(campaign, ledger, worker=config, report=report) as ctx,
    ):
        outcome = drive(ctx, limits=limits, work=work, resume=resume)
        rule = _stop_rule(ctx) if outcome.state is RunState.STOPPED else None
        found = look(ctx)
        open_ = () if quiet or as_json else open_phases(ctx.ledger, ctx.campaign_id)
    if as_json:
        print_json({"campaign": ctx.name, **jsonable(outcome), "rule": rule})
    elif not quiet:
        _print_result(found, open_)
    raise typer.Exit(_exit_code(rule, did_nothing=outcome.did_nothing))


def status(
    campaign: CampaignArgument = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say where a campaign stands.

    State, round and step, candidates, jobs, labels and budget, stable compounds.
    """
    from alflow.loop import status as look
    from alflow.report import open_phases

    with opened_campaign(campaign, ledger, create=False) as ctx:
        found, open_ = look(ctx), open_phases(ctx.ledger, ctx.campaign_id)
    if as_json:
        print_json({**jsonable(found), "open": open_})
    else:
        _print_status(found, open_)


def approve(
    ids: BatchIds = None,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a batch that waits for approval be labelled.

    `alflow plan` shows the batch.
    """
    from alflow.cli._console import stderr
    from alflow.loop import approve as let_pass

    campaign, rest = split_campaign(ids or [], campaign)
    chosen = candidate_ids(rest, required=False)
    with opened_campaign(campaign, ledger, create=False) as ctx:
        approved, returned = let_pass(ctx, chosen or None)
    if as_json:
        print_json({"approved": approved, "returned": returned})
        return
    back = f", {returned} returned to the pool" if returned else ""
    stderr().print(f"{plural(approved, 'candidate')} approved{back}; `alflow run` labels them")


def pin(
    ids: CandidateIds,
    reason: ReasonOption = "asked for by a person",
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have candidates labelled in the next round.

    Whatever their uncertainty; they come before all others.
    """
    campaign, rest = split_campaign(ids, campaign)
    chosen = candidate_ids(rest)
    with opened(campaign, ledger) as target:
        target.ledger.pool.pin(chosen, reason, actor=actor())
    _tell(chosen, "pinned: labelled in the next round", as_json=as_json)


def exclude(
    ids: CandidateIds,
    reason: ReasonOption = "excluded by a person",
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep candidates from being labelled.

    They stay in the ledger, rejected with your reason.
    """
    campaign, rest = split_campaign(ids, campaign)
    chosen = candidate_ids(rest)
    with opened(campaign, ledger) as target:
        target.ledger.pool.exclude(chosen, reason, actor=actor())
    _tell(chosen, "excluded: they stay in the ledger with your reason", as_json=as_json)


def worker(
    until: Annotated[
        str,
        typer.Option(
            "--until",
            "-u",
            metavar="WHEN",
            help="End when the queue is empty, was idle for a minute, or never: empty, idle, forever.",
            autocompletion=lambda incomplete: [word for word in _UNTIL if word.startswith(incomplete)],
        ),
    ] = "empty",
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, help="End after so many jobs.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="Compute nothing here: write jobs into a folder for `alflow-label`, and read what it computes.",
            show_default=False,
        ),
    ] = None,
    capacity: Annotated[
        int | None,
        typer.Option(
            "--capacity",
            metavar="N",
            min=1,
            help="With --folder: at most so many jobs in it at once.",
            show_default=str(_CAPACITY),
        ),
    ] = None,
    config: WorkerConfigOption = None,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compute labels from the queue of a ledger.

    Start as many workers as you like, on any machine that reaches the ledger; what one may run is decided by the local
    file alflow-worker.yaml, never by the ledger. An interrupted worker gives its jobs back.

    Where nodes reach no database, one `alflow worker --folder` beside the ledger serves a folder that they see, and
    they run `alflow-label`.
    """
    if folder is not None and jobs is not None:
        raise typer.BadParameter("goes with a worker that computes; leave it out with --folder", param_hint="--jobs")
    if folder is None and capacity is not None:
        raise typer.BadParameter("goes with --folder only", param_hint="--capacity")
    if until not in _UNTIL:
        raise typer.BadParameter(f"{until!r}: choose {', '.join(_UNTIL)}", param_hint="--until")
    target = find_target(campaign, ledger)
    require_ledger(target.url)
    from alflow.cli._reporter import ConsoleReporter
    from alflow.labelers import load_worker_config
    from alflow.ledger import open_ledger
    from alflow.loop import FolderServer, WorkUntil, work

    settings = load_worker_config(config, directory=Path() if target.file is None else target.file.parent)
    with ConsoleReporter(quiet=quiet) as report:
        store = open_ledger(target.url, create=False)
        try:
            report.step("worker")
            if folder is None:
                summary = work(store, settings, until=WorkUntil(until), max_jobs=jobs, report=report)
            else:
                server = FolderServer(store, settings, folder, capacity=capacity or _CAPACITY, report=report)
                summary = server.serve(WorkUntil(until))
        finally:
            store.close()
        done = f"{plural(summary.labelled, 'label')}, {summary.failed} failed, {summary.retried} to be tried again"
        report.step("worker", done)
    if as_json:
        print_json(summary)
    if summary.labelled + summary.failed + summary.retried + summary.lost == 0:
        raise typer.Exit(ExitCode.NOTHING_TO_DO)


def _stop_rule(ctx: CampaignContext) -> str | None:
    """Name of the rule that stopped a campaign, as a round recorded it: the last, or the one before its training."""
    stops = [row.summary["stop"] for row in ctx.ledger.rounds.list(ctx.campaign_id) if "stop" in row.summary]
    rule: str | None = stops[-1].get("rule") if stops else None
    return rule


def _exit_code(rule: str | None, *, did_nothing: bool) -> ExitCode:
    """Exit code of ``run``: a spent budget and an idle run are worth telling a script, failing labels even more."""
    if did_nothing or (rule is not None and rule.startswith("budget")):
        return ExitCode.NOTHING_TO_DO
    return ExitCode.USER_ERROR if rule == "failure_rate" else ExitCode.OK


# -- what they print ---------------------------------------------------------------------------------------------------


def _tell(ids: list[int], what: str, *, as_json: bool) -> None:
    from alflow.cli._console import stderr

    if as_json:
        print_json({"ids": ids})
    else:
        stderr().print(f"{plural(len(ids), 'candidate')} {what}")


def _print_plan(found: Plan, *, as_csv: bool) -> None:
    from alflow.cli._console import stderr

    columns = [
        Column(key="candidate_id", label="ID"),
        Column(key="formula", label="Formula"),
        Column(key="n_atoms", label="Atoms"),
        Column(key="stream", label="Stream"),
        Column(key="u", label="u", digits=2),
        Column(key="reason", label="Reason", elastic=True),
    ]
    rows = [{column.key: getattr(item, column.key) for column in columns} for item in found.items]
    if as_csv:
        print_rows(columns, rows, as_csv=True)
        return
    if all(row["candidate_id"] is None for row in rows):
        columns = [column for column in columns if column.key not in {"candidate_id", "u"}]
    console = stderr()
    if rows:
        print_rows(columns, rows, title=f"{plural(len(rows), 'label')}: {found.when}")
    else:
        console.print(f"nothing chosen: {found.when}")
    if found.set_aside:
        console.print(
            f"{plural(found.set_aside, 'candidate')} set aside as implausible (u > u_max) until the next round"
        )
    console.print(found.earliest_stop)
    for sentence in found.warnings:
        console.print(sentence, markup=False, soft_wrap=True)


def _print_status(found: Status, open_: Sequence[OpenPhase]) -> None:
    from rich.text import Text

    from alflow.cli._compounds import print_compounds
    from alflow.cli._console import stdout
    from alflow.cli._output import cell_style
    from alflow.ledger import driver_text

    console = stdout()
    title = Text(f"{found.name}  ", style="bold")
    title.append(found.state, style=cell_style("state", {"state": found.state}))
    console.print(title)

    def add(name: str, text: str) -> None:
        console.print(Text(f"  {name:<12} {text}"), soft_wrap=True)

    if found.goal:
        add("goal", found.goal)
    if found.reason:
        add("reason", found.reason)
    if found.round_index is not None:
        now = f"step {found.step}" if found.step else "finished"
        if found.state == "stopped" and [name for name, state in found.steps if state == "finished"] == ["train"]:
            now = "its training only"
        driver = f", driven by {driver_text(found.driven_by)}" if found.driven_by else ""
        add("round", f"{found.round_index}, {now}{driver}")
    budget = "" if found.labels_budget is None else f" of {found.labels_budget}"
    add("labels", f"{found.labels}{budget} computed, theory {found.theory}")
    if found.committee is not None:
        add("committee", f"of round {found.committee['round']}, from {plural(found.committee['labels'], 'label')}")
    add("candidates", _counts(found.candidates))
    if any(found.jobs.values()):
        add("jobs", _counts(found.jobs))
    for failure in found.failures:
        add("failures", f"{failure.count} {failure.kind.replace('_', ' ')}. {failure.suggestion}")
    add("ledger", found.ledger)
    if found.stable or open_:
        console.print()
    print_compounds(found.stable, open_)


def _print_result(found: Status, open_: Sequence[OpenPhase]) -> None:
    """Print what a run leaves behind: the compounds, and what they cost."""
    from alflow.cli._compounds import print_compounds
    from alflow.cli._console import stderr

    print_compounds(found.stable, open_)
    budget = "" if found.labels_budget is None else f" of {found.labels_budget}"
    failed = found.candidates.get("failed", 0) + found.candidates.get("quarantined", 0)
    spent = [
        f"{found.labels}{budget} labels spent",
        f"{plural(found.candidates.get('duplicate', 0), 'duplicate')} avoided",
    ]
    if failed:
        spent.append(f"{plural(failed, 'candidate')} failed")
    console = stderr()
    console.print(", ".join(spent))
    console.print("`alflow report` draws the campaign; `alflow why ID` tells why a candidate was or was not labelled")
    if found.committee is not None:
        about = f"round {found.committee['round']}, from {plural(found.committee['labels'], 'label')}"
        console.print(f"`alflow committee save --output MODEL` writes the newest potential: {about}")


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "none yet"
