"""Options and arguments that several commands share, so that they are spelled and explained the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alflow.errors import UserError


def complete_campaign(incomplete: str) -> list[str]:
    """Offer campaign files and folders of the directory that is being typed."""
    return [name for name in complete_path(incomplete) if name.endswith(("/", ".yaml", ".yml"))]


def complete_path(incomplete: str) -> list[str]:
    """Offer files and folders of the directory that is being typed."""
    typed = Path(incomplete)
    directory = typed if incomplete.endswith("/") else typed.parent
    if not directory.is_dir():
        return []
    visible = (p for p in sorted(directory.iterdir()) if not p.name.startswith("."))
    names = (f"{p}/" if p.is_dir() else str(p) for p in visible)
    return [name for name in names if name.startswith(incomplete)]


def require_folder(path: Path) -> None:
    """Refuse a file to be written whose folder does not exist, before the work begins."""
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist; create it first")


def require_new_file(path: Path, *, force: bool) -> None:
    """Refuse a file to be written that cannot be, or would replace another one, before the work begins."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file to write")
    if path.exists() and not force:
        raise UserError(f"{path} exists already; --force writes over it")
    require_folder(path)


def complete_columns(incomplete: str) -> list[str]:
    """Offer the columns of ``ls`` for the part after the last comma."""
    from alflow.cli._columns import COLUMNS

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{key}" for key in COLUMNS if key.startswith(last)]


def complete_sort(incomplete: str) -> list[str]:
    """Offer the columns of ``ls``, and with a leading dash the same from largest to smallest."""
    from alflow.cli._columns import COLUMNS, LABEL_COLUMNS

    dash = "-" if incomplete.startswith("-") else ""
    names = [key for key in COLUMNS if key not in LABEL_COLUMNS]
    return [f"{dash}{key}" for key in names if key.startswith(incomplete[len(dash) :])]


_CAMPAIGN_HELP = (
    "Campaign file, or with --ledger the name of a campaign. Default: ./campaign.yaml, or the only campaign file here."
)

CampaignArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="CAMPAIGN",
        envvar="ALFLOW_CAMPAIGN",
        help=_CAMPAIGN_HELP,
        show_default=False,
        autocompletion=complete_campaign,
    ),
]
CampaignOption = Annotated[
    str | None,
    typer.Option(
        "--campaign",
        "-C",
        metavar="CAMPAIGN",
        envvar="ALFLOW_CAMPAIGN",
        help=_CAMPAIGN_HELP,
        show_default=False,
        autocompletion=complete_campaign,
    ),
]
LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        "-L",
        metavar="URL",
        envvar="ALFLOW_LEDGER",
        help="Ledger: a database URL or the path of an SQLite file. Default: the one that the campaign file names.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Write over an existing file.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only notes and the result.")]
ReasonOption = Annotated[
    str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; kept in the ledger and told by `alflow why`.")
]
WorkerConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="What this machine may run (default: ./alflow-worker.yaml, or the built-in labelers).",
        show_default=False,
        dir_okay=False,
    ),
]
CandidateIds = Annotated[
    list[str],
    typer.Argument(metavar="[CAMPAIGN] ID...", help="Candidate ids, as `alflow ls` shows them.", show_default=False),
]
JobIds = Annotated[list[int], typer.Argument(metavar="JOB...", help="Job ids, as `alflow queue ls` shows them.")]
