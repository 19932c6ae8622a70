"""``deploy`` and ``upkeep``: campaigns that run by themselves, and what keeps their ledger in order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alflow.cli._errors import ExitCode
from alflow.cli._options import CampaignArgument, CampaignOption, JsonOption, LedgerOption
from alflow.cli._output import plural, print_json, size
from alflow.cli._target import find_target, opened
from alflow.errors import UserError

if TYPE_CHECKING:
    from alflow.flows.deploying import Deployed


def deploy(
    campaign: CampaignArgument = None,
    cron: Annotated[
        str | None,
        typer.Option(
            "--cron",
            metavar="EXPRESSION",
            help="When to run, for example '0 2 * * *'.",
            show_default="as deployed before, else every night at two",
        ),
    ] = None,
    timezone: Annotated[str, typer.Option("--timezone", metavar="NAME", help="Time zone of --cron.")] = "UTC",
    active: Annotated[
        bool | None,
        typer.Option(
            "--active/--paused",
            help="Whether the schedule fires at once.",
            show_default="as deployed before, else paused",
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", metavar="N", min=1, help="Rounds of one run.", show_default=False)
    ] = None,
    labels: Annotated[
        int | None, typer.Option("--labels", metavar="N", min=1, help="New labels of one run.", show_default=False)
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            "--hours", metavar="HOURS", min=0.01, help="Begin nothing new after so many hours.", show_default=False
        ),
    ] = None,
    work: Annotated[
        bool, typer.Option("--work/--no-work", help="Compute labels in the run, or leave that to label workers.")
    ] = True,
    pool: Annotated[
        str, typer.Option("--pool", metavar="NAME", help="Prefect work pool; made, of type process, where missing.")
    ] = "alflow",
    as_json: JsonOption = False,
) -> None:
    """Deploy a campaign with Prefect, to run on a schedule or on demand.

    Needs a Prefect server. Each run goes on where the last one ended, does at most what --rounds, --labels and --hours
    allow, and leaves. Deploying again updates the deployment and keeps its schedule.
    """
    from alflow.cli._console import working

    target = find_target(campaign, None)
    if target.file is None:
        raise UserError("this needs the campaign file: a deployment runs it on the worker's machine")
    with working("deploying"):
        from alflow.flows.deploying import deploy_campaign

        done = deploy_campaign(
            target.file,
            cron=cron,
            timezone=timezone,
            active=active,
            pool=pool,
            rounds=rounds,
            labels=labels,
            hours=hours,
            work=work,
        )
    if as_json:
        print_json(done)
    else:
        _print_deployed(done)


def _print_deployed(done: Deployed) -> None:
    from rich.text import Text

    from alflow.cli._console import stderr, stdout

    console = stdout()

    def say(what: str, text: str) -> None:
        console.print(Text(f"  {what:<12} {text}"), soft_wrap=True)

    console.print(Text(f"campaign {done.campaign} is deployed", style="bold"))
    for flow in done.deployments:
        when = "on demand" if flow.cron is None else f"cron '{flow.cron}', {'active' if flow.active else 'paused'}"
        say("deployment", f"{flow.name}  {when}")
    say(
        "work pool",
        f"{done.pool}{', made just now' if done.made_pool else ''}, {plural(done.workers, 'worker')} online",
    )
    for note in done.notes:
        stderr().print(Text(note, style="yellow"), soft_wrap=True)
    console.print()
    main = done.deployments[0]
    if not done.workers:
        say("start", f"prefect worker start --pool {done.pool}")
    say("run now", f"prefect deployment run '{main.name}'")
    paused = [flow for flow in done.deployments if flow.schedule_id is not None and not flow.active]
    for flow in paused:
        say("schedule", f"prefect deployment schedule resume '{flow.name}' {flow.schedule_id}")


def upkeep(
    keep_committees: Annotated[
        int | None,
        typer.Option(
            "--keep-committees",
            metavar="N",
            min=1,
            help="Let go of the checkpoints of all but the N newest committees of each campaign.",
            show_default="all stay",
        ),
    ] = None,
    keep_outputs_days: Annotated[
        float | None,
        typer.Option(
            "--keep-outputs-days",
            metavar="DAYS",
            min=0.0,
            help="Remove the folders of successful calculations after so many days.",
            show_default="all stay",
        ),
    ] = None,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look after a ledger: dead workers' jobs, programs they left running, contradictions, files to forget.

    Safe at any time. Labels, candidates and events are never removed.
    """
    from alflow.cli._console import stderr, working
    from alflow.labelers import load_worker_config
    from alflow.loop import UpkeepPolicy
    from alflow.loop import upkeep as look_after

    policy = UpkeepPolicy(keep_committees=keep_committees, keep_outputs_days=keep_outputs_days)
    file = find_target(campaign, ledger).file
    worker = load_worker_config(directory=Path() if file is None else file.parent)
    with opened(campaign, ledger) as target, working("looking after the ledger"):
        report = look_after(target.ledger, policy, max_deaths=worker.retries.deaths)
    if as_json:
        print_json(report)
    else:
        console = stderr()
        for number, what in (
            (len(report.reclaimed), "job of dead workers queued again"),
            (len(report.ended), "program left running ended"),
            (report.committees, "checkpoint let go"),
            (report.outputs, "output folder removed"),
        ):
            if number:
                noun, rest = what.split(" ", 1)
                console.print(f"{plural(number, noun)} {rest}")
        console.print(f"{size(report.bytes_freed)} freed in the ledger's folder")
        for problem in report.problems:
            console.print(f"problem: {problem}", style="red", soft_wrap=True)
        if not report.problems:
            console.print("the ledger is sound")
    if report.problems:
        raise typer.Exit(ExitCode.USER_ERROR)
