"""``init`` and ``check``: a campaign file, and whether it can be run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alflow.cli._errors import ExitCode
from alflow.cli._options import CampaignArgument, ForceOption, JsonOption, LedgerOption, WorkerConfigOption
from alflow.cli._output import plural, print_json
from alflow.cli._target import find_target, missing_sqlite_file
from alflow.errors import AlflowError, ConfigError, NotFoundError, UserError

if TYPE_CHECKING:
    from alflow.config import LoadedCampaign


def complete_labeler(incomplete: str) -> list[str]:
    """Offer registered labelers."""
    from alflow.labelers import labeler_names

    return [name for name in labeler_names() if name.startswith(incomplete)]


def init(
    campaign: Annotated[Path, typer.Argument(metavar="FILE", help="Campaign file to write.", dir_okay=False)] = Path(
        "campaign.yaml"
    ),
    elements: Annotated[
        str, typer.Option("--elements", "-e", metavar="SYMBOLS", help="Elements, joined by commas: Ni,Pt.")
    ] = "Ni,Pt",
    labeler: Annotated[
        str,
        typer.Option("--labeler", "-l", metavar="NAME", help="What computes labels.", autocompletion=complete_labeler),
    ] = "emt",
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the campaign.", show_default="from the elements"),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented campaign file to start from."""
    from alflow.cli._console import stderr
    from alflow.config import init_template

    symbols = elements.replace("-", " ").replace(",", " ").split()
    if not symbols:
        raise UserError("--elements names no element; write for example --elements Ni,Pt")
    chosen = name or "-".join(symbols).lower()
    _check_choices(chosen, symbols, labeler)
    if campaign.exists() and not force:
        raise UserError(f"{campaign} exists already; --force writes over it, or give another file name")
    if not campaign.absolute().parent.is_dir():
        raise UserError(f"the folder {campaign.parent} does not exist; create it first")
    campaign.write_text(init_template(chosen, symbols, labeler), encoding="utf-8")
    if as_json:
        print_json({"campaign": campaign.resolve()})
    else:
        stderr().print(f"wrote {campaign}; look through it, then `alflow check {campaign}`", soft_wrap=True)


def _check_choices(name: str, elements: list[str], labeler: str) -> None:
    """Refuse what the campaign file could not hold, before it is written."""
    from pydantic import ValidationError

    from alflow.config import CampaignConfig

    try:
        CampaignConfig.model_validate({"name": name, "elements": elements, "theory": {"labeler": labeler}})
    except ValidationError as error:
        problem = error.errors()[0]
        key = "labeler" if "theory" in problem["loc"] else str(problem["loc"][0])
        raise ConfigError(f"--{key}: {problem['msg'].removeprefix('Value error, ')}") from error


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked; ``ok`` None means: nothing to check yet."""

    what: str
    ok: bool | None
    text: str


def check(
    campaign: CampaignArgument = None,
    config: WorkerConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Validate the campaign file, the labeler, the ledger and the deployment.

    Says how to mend what is wrong, and which command starts what is missing.
    """
    findings = list(_examine(campaign, config, ledger))
    failed = sum(finding.ok is False for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": findings})
    else:
        print_findings(findings)
    if failed:
        raise typer.Exit(ExitCode.USER_ERROR)


def _examine(campaign: str | None, config: Path | None, ledger: str | None) -> Iterator[Finding]:
    from alflow.config import load_campaign

    target = find_target(campaign, ledger)
    if target.file is None:
        yield from _examine_ledger(target.url)
        return
    loaded = load_campaign(target.file)
    yield Finding(what="campaign", ok=True, text=f"{target.file}: {_campaign_text(loaded)}")
    yield from _examine_labeler(loaded, config)
    yield _examine_potential(loaded)
    for doubt in loaded.config.targets.doubts():
        yield Finding(what="targets", ok=None, text=doubt)
    yield from _examine_ledger(target.url)
    yield from _examine_changes(loaded, target.url)
    yield from _examine_deployment(loaded.config.name)


def _campaign_text(loaded: LoadedCampaign) -> str:
    settings = loaded.config
    limits = [
        f"{limit:g} {unit}"
        for limit, unit in (
            (settings.budget.labels, "labels"),
            (settings.budget.rounds, "rounds"),
            (settings.budget.wall_hours, "hours"),
            (settings.budget.core_hours, "core-hours"),
        )
        if limit is not None
    ]
    budget = f"at most {', '.join(limits)}" if limits else "without a budget"
    return f"{settings.name}, {'-'.join(settings.elements)}, {plural(len(settings.sources), 'source')}, {budget}"


def _examine_labeler(loaded: LoadedCampaign, config: Path | None) -> Iterator[Finding]:
    from alflow.labelers import get_labeler, load_worker_config

    theory = loaded.config.theory
    try:
        worker = load_worker_config(config, directory=loaded.directory)
        labeler = get_labeler(theory.labeler, dict(theory.settings), worker=worker, directory=loaded.directory)
        spec = labeler.theory()
    except AlflowError as error:
        yield Finding(what="labeler", ok=False, text=str(error))
        return
    yield Finding(what="labeler", ok=True, text=f"{theory.labeler}, {spec.code}, theory {spec.fingerprint[:12]}")
    try:
        loaded.require_labeler(labeler)
    except ConfigError as error:
        yield Finding(what="elements", ok=False, text=str(error))


def _examine_potential(loaded: LoadedCampaign) -> Finding:
    from alflow.potentials import potential_kind

    try:
        usable, text = potential_kind(loaded.config.committee.kind).state(loaded.config.committee)
    except AlflowError as error:
        return Finding(what="potential", ok=False, text=str(error))
    return Finding(what="potential", ok=usable, text=text)


def _examine_ledger(url: str) -> Iterator[Finding]:
    from alflow.config import mask_url
    from alflow.ledger import check_ledger, why_unwritable

    missing = missing_sqlite_file(url)
    if missing is not None:
        if not missing.parent.is_dir():
            yield Finding(what="ledger", ok=False, text=f"the folder {missing.parent} does not exist: create it")
        elif (obstacle := why_unwritable(missing)) is not None:
            yield Finding(what="ledger", ok=False, text=obstacle)
        else:
            yield Finding(what="ledger", ok=None, text=f"{missing} does not exist yet: `alflow run` makes it")
        return
    try:
        problems = check_ledger(url)
    except NotFoundError:  # an empty database of PostgreSQL
        yield Finding(what="ledger", ok=None, text=f"{mask_url(url)} is empty: `alflow run` makes a ledger of it")
        return
    except AlflowError as error:
        problems = [str(error)]
    for problem in problems:
        yield Finding(what="ledger", ok=False, text=problem)
    if not problems:
        yield Finding(what="ledger", ok=True, text=mask_url(url))


def _examine_changes(loaded: LoadedCampaign, url: str) -> Iterator[Finding]:
    """How the file differs from the campaign of that name in the ledger."""
    from alflow.ledger import open_ledger
    from alflow.loop import campaign_changes, require_elements

    if missing_sqlite_file(url) is not None:
        return
    try:
        with contextlib.closing(open_ledger(url, create=False)) as ledger:
            row = ledger.campaigns.get(loaded.config.name)
        require_elements(row, loaded.config.elements)
    except ConfigError as error:
        yield Finding(what="campaign", ok=False, text=str(error))
    except AlflowError:  # not there yet, or told above
        return
    else:
        changes = campaign_changes(row.config, loaded.config)
        if changes:
            text = f"the file was changed since the last run: {'; '.join(changes)}"
            yield Finding(what="campaign", ok=None, text=text)


def _examine_deployment(campaign: str) -> Iterator[Finding]:
    from alflow.flows.server import examine_prefect

    for found in examine_prefect(campaign):
        yield Finding(what=found.what, ok=found.ok, text=found.text)


def print_findings(findings: list[Finding]) -> None:
    """Print one line per finding, marked as well, wrong or not looked at."""
    from rich.text import Text

    from alflow.cli._console import stdout

    marks = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("·", "dim")}
    console = stdout()
    for finding in findings:
        mark, style = marks[finding.ok]
        line = Text(f"{mark} ", style=style)
        line.append(f"{finding.what:<10} ", style="not bold default")
        line.append(finding.text, style="not bold default")
        console.print(line, soft_wrap=True)
