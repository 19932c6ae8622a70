"""The Typer application: which commands there are, in which order, with an example each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import alflow
from alflow.cli import (
    _committee,
    _data,
    _db,
    _dedup,
    _deploy,
    _drive,
    _labeler,
    _lammps,
    _look,
    _models,
    _queue,
    _start,
    _theory,
)
from alflow.cli._errors import BUG_NOTE, ExitCode, describe, print_error, print_interrupted, silence_broken_pipe


class AlflowGroup(TyperGroup):
    """The top command: turns exceptions into a line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; ``--debug`` lets every exception through with its traceback."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if ctx.params.get("debug"):
                raise
            print_interrupted()
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            silence_broken_pipe()
            raise typer.Exit(ExitCode.OK) from None
        except Exception as error:
            message = describe(error)
            if ctx.params.get("debug") or message is None:
                if message is None and not _is_control_flow(error):
                    sys.stderr.write(f"{BUG_NOTE}\n")
                raise
            print_error(message)
            raise typer.Exit(ExitCode.USER_ERROR) from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands in groups, in the order in which one meets them."""
        panels: dict[str, list[Any]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panels.setdefault(str(getattr(command, "rich_help_panel", "Commands")), []).append((name, command))
        for panel, commands in panels.items():
            with formatter.section(panel):
                formatter.write_dl([(name, command.get_short_help_str(limit=100)) for name, command in commands])


def _is_control_flow(error: Exception) -> bool:
    """True for the exceptions by which the command-line library ends a command or reports a usage error."""
    return type(error).__module__.split(".")[0] in {"click", "typer"}


app = typer.Typer(
    cls=AlflowGroup,
    name="alflow",
    help="Active learning for materials discovery with as few expensive calculations as possible.",
    no_args_is_help=True,
    rich_markup_mode=None,  # drawing help with rich costs 0.1 s of CPU, and the commands are grouped below all the same
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: alflow init, alflow check, alflow run",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"alflow {alflow.__version__}\n")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="ALFLOW_DEBUG", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Active learning for materials discovery with as few expensive calculations as possible."""


def _add(
    group: typer.Typer, function: Callable[..., None], name: str, example: str, *, panel: str | None = None
) -> None:
    group.command(name, epilog=f"Example: {example}", rich_help_panel=panel)(function)


_CAMPAIGN, _LOOK, _DATA, _MACHINES = "Campaign", "Look", "Data", "Machines and potentials"

_add(app, _start.init, "init", "alflow init --elements Ni,Pt --labeler emt", panel=_CAMPAIGN)
_add(app, _start.check, "check", "alflow check campaign.yaml", panel=_CAMPAIGN)
_add(app, _drive.plan, "plan", "alflow plan campaign.yaml", panel=_CAMPAIGN)
_add(app, _drive.run, "run", "alflow run campaign.yaml --labels 100", panel=_CAMPAIGN)
_add(app, _drive.status, "status", "alflow status --json", panel=_CAMPAIGN)
_add(app, _drive.approve, "approve", "alflow approve 12 15 18", panel=_CAMPAIGN)
_add(app, _drive.pin, "pin", "alflow pin 42 --reason 'looks like L1_0'", panel=_CAMPAIGN)
_add(app, _drive.exclude, "exclude", "alflow exclude 43 --reason 'unphysical stacking'", panel=_CAMPAIGN)

_add(app, _deploy.deploy, "deploy", "alflow deploy campaign.yaml --cron '0 2 * * *' --labels 50", panel=_CAMPAIGN)

_add(app, _look.ls, "ls", "alflow ls 'Ni,Pt,u>1,state=pooled,e_hull<0.05' -c id,formula,u -s -u", panel=_LOOK)
_add(app, _look.show, "show", "alflow show 42", panel=_LOOK)
_add(app, _look.why, "why", "alflow why 42", panel=_LOOK)
_add(app, _look.report, "report", "alflow report --output report.html", panel=_LOOK)

_add(app, _data.add, "add", "alflow add polymorphs.cif frames.extxyz", panel=_DATA)
_add(app, _data.import_, "import", "alflow import labels.extxyz --theory pbe-500eV", panel=_DATA)
_add(app, _data.export, "export", "alflow export 'Ni,state=labelled' --output train.extxyz", panel=_DATA)
_add(app, _dedup.dedup, "dedup", "alflow dedup *.cif relaxations.extxyz --output unique.extxyz", panel=_DATA)

_add(app, _drive.worker, "worker", "alflow worker --until idle --config alflow-worker.yaml", panel=_MACHINES)
_add(app, _deploy.upkeep, "upkeep", "alflow upkeep --keep-committees 3", panel=_MACHINES)
_add(app, _models.train, "train", "alflow train train.extxyz --output model", panel=_MACHINES)
_add(app, _models.evaluate, "eval", "alflow eval model test.extxyz --json", panel=_MACHINES)
_add(app, _lammps.lammps, "lammps", "alflow lammps model --output model.mliap > model.in", panel=_MACHINES)

committee_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List the potentials that a campaign trained, and take one along."
)
_add(committee_app, _committee.ls, "ls", "alflow committee ls")
_add(committee_app, _committee.save, "save", "alflow committee save --output model")
app.add_typer(committee_app, name="committee", rich_help_panel=_MACHINES)

queue_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at labelling jobs and act on them.")
_add(queue_app, _queue.ls, "ls", "alflow queue ls --state failed")
_add(queue_app, _queue.explain, "explain", "alflow queue explain 7")
_add(queue_app, _queue.retry, "retry", "alflow queue retry 7 9")
_add(queue_app, _queue.release, "release", "alflow queue release 7")
_add(queue_app, _queue.cancel, "cancel", "alflow queue cancel 7")
app.add_typer(queue_app, name="queue", rich_help_panel=_MACHINES)

labeler_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Try what computes labels, and see how exact it is."
)
_add(labeler_app, _labeler.check, "check", "alflow labeler check campaign.yaml")
_add(labeler_app, _labeler.converge, "converge", "alflow labeler converge --setting ecutwfc=30,40,50,60")
_add(labeler_app, _labeler.noise, "noise", "alflow labeler noise --structure Ni3Pt.cif")
app.add_typer(labeler_app, name="labeler", rich_help_panel=_MACHINES)

theory_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at theories and compare them.")
_add(theory_app, _theory.ls, "ls", "alflow theory ls")
_add(theory_app, _theory.show, "show", "alflow theory show pbe pbe-new")
_add(
    theory_app,
    _theory.equate,
    "equate",
    "alflow theory equate pbe pbe-new --reason '40 structures, at most 0.1 meV/atom apart'",
)
app.add_typer(theory_app, name="theory", rich_help_panel=_MACHINES)

db_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after the ledger's database.")
_add(db_app, _db.upgrade, "upgrade", "alflow db upgrade")
_add(db_app, _db.stats, "stats", "alflow db stats --json")
_add(db_app, _db.backup, "backup", "alflow db backup --output backup.db")
_add(
    db_app,
    _db.copy,
    "copy",
    "alflow db copy campaign.db 'postgresql+psycopg://me:${PASSWORD}@host/campaign' --files /shared/campaign.files",
)
app.add_typer(db_app, name="db", rich_help_panel=_MACHINES)
