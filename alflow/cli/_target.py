"""What a command is about: which campaign file, which ledger, which campaign in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alflow.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from alflow.ledger import CampaignRow, Ledger
    from alflow.loop import CampaignContext, Reporter

_SUFFIXES = {".yaml", ".yml"}


def ledger_url(text: str) -> str:
    """Turn the path of an SQLite file into a database URL; fill environment variables into URLs, as in campaign files.

    Raises
    ------
    ConfigError
        if a variable is not set
    """
    if "://" not in text:
        return f"sqlite:///{Path(text).expanduser().resolve()}"
    if "${" not in text:
        return text
    from alflow.config import resolve_url

    return resolve_url(text, Path())


def is_campaign_file(text: str) -> bool:
    """True where a campaign file, or a folder that holds one, was given and not a ledger."""
    return Path(text).suffix in _SUFFIXES or Path(text).is_dir()


def is_file_name(campaign: str) -> bool:
    """True where a campaign was given as a file and not by its name in a ledger."""
    return Path(campaign).suffix in _SUFFIXES or "/" in campaign or Path(campaign).is_file()


@dataclass(frozen=True, kw_only=True)
class Target:
    """A ledger and the campaign meant in it.

    Parameters
    ----------
    url
        database URL
    name
        name of the campaign; None: whichever the ledger holds
    file
        the campaign file; None where the ledger was named directly
    """

    url: str
    name: str | None
    file: Path | None

    @property
    def argument(self) -> Path | str | None:
        """The campaign as :func:`alflow.loop.open_campaign` takes it: a file, else a name."""
        return self.file or self.name


def find_target(campaign: str | None, ledger: str | None) -> Target:
    """Work out which ledger and campaign a command means.

    ``--ledger`` overrides what the campaign file names, and needs no file; a campaign is a file, a folder that holds
    one or, with a ledger, a name.

    Raises
    ------
    UserError
        if neither is given and the working directory holds no campaign file, or a name is given without a ledger
    """
    if ledger is not None and (campaign is None or not is_file_name(campaign)):
        return Target(url=ledger_url(ledger), name=campaign, file=None)
    from alflow.config import find_campaign_file, load_campaign

    if campaign is None:
        path = find_campaign_file(Path())
    elif Path(campaign).is_dir():
        path = find_campaign_file(Path(campaign))
    elif is_file_name(campaign):
        path = Path(campaign)
    else:
        raise UserError(
            f"{campaign!r} is no file: give the path of a campaign file, or --ledger URL to use a campaign by its name"
        )
    loaded = load_campaign(path)
    url = ledger_url(ledger) if ledger is not None else loaded.ledger_url
    return Target(url=url, name=loaded.config.name, file=path)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open ledger and the campaign meant in it, if one is."""

    ledger: Ledger
    campaign: CampaignRow | None

    def require_campaign(self) -> CampaignRow:
        """Return the campaign.

        Raises
        ------
        NotFoundError
            if the ledger holds none, or several and none was named
        """
        if self.campaign is not None:
            return self.campaign
        names = [row.name for row in self.ledger.campaigns.list()]
        if not names:
            raise NotFoundError(f"{self.ledger.url} holds no campaign yet: start one with `alflow run`")
        raise NotFoundError(
            f"{self.ledger.url} holds several campaigns ({', '.join(names)}): choose one with --campaign NAME"
        )


@contextmanager
def opened(campaign: str | None, ledger: str | None) -> Iterator[Opened]:
    """Open the ledger that a command means, never creating it, and close it again.

    Raises
    ------
    NotFoundError
        if the ledger does not exist yet or does not hold the campaign
    """
    target = find_target(campaign, ledger)
    require_ledger(target.url)
    from alflow.ledger import open_ledger

    store = open_ledger(target.url, create=False)
    try:
        rows = store.campaigns.list()
        if target.file is not None:
            row = next((r for r in rows if r.name == target.name), None)
            if row is None:
                raise NotFoundError(
                    f"campaign {target.name!r} of {target.file} is not in {store.url} yet: `alflow run` starts it"
                )
        elif target.name is not None:
            row = store.campaigns.get(target.name)
        else:
            row = rows[0] if len(rows) == 1 else None
        yield Opened(ledger=store, campaign=row)
    finally:
        store.close()


def require_ledger(url: str) -> None:
    """Raise NotFoundError where an SQLite ledger does not exist yet, so that no reader makes an empty one."""
    missing = missing_sqlite_file(url)
    if missing is not None:
        raise NotFoundError(f"there is no ledger at {missing} yet: `alflow run` or `alflow add` starts it")


def missing_sqlite_file(url: str) -> Path | None:
    """Return the file that an SQLite URL names where it does not exist; None for other databases."""
    scheme, _, rest = url.partition(":///")
    if not scheme.startswith("sqlite") or rest in {"", ":memory:"}:
        return None
    path = Path(rest.partition("?")[0])
    return None if path.exists() else path


def actor() -> str:
    """Name the person at the terminal in the ledger's events."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in some containers
        return "person"


@contextmanager
def opened_campaign(
    campaign: str | None,
    ledger: str | None,
    *,
    worker: Path | None = None,
    report: Reporter | None = None,
    create: bool = True,
) -> Iterator[CampaignContext]:
    """Open the campaign that a campaign file describes, ready to be driven, and close its ledger again.

    Raises
    ------
    UserError
        if only a ledger is named: what a campaign does next is decided by its file
    """
    target = find_target(campaign, ledger)
    if target.file is None:
        raise UserError("this needs the campaign file, not only the ledger: give its path (or --campaign FILE)")
    if not create:
        require_ledger(target.url)
    from alflow.cli._reporter import ConsoleReporter
    from alflow.labelers import load_worker_config
    from alflow.loop import open_campaign

    context = open_campaign(
        target.file,
        ledger_url=target.url,
        worker=None if worker is None else load_worker_config(worker),
        report=report or ConsoleReporter(quiet=True),
        create=create,
    )
    try:
        yield context
    finally:
        context.ledger.close()


def split_campaign(arguments: Sequence[str], campaign: str | None) -> tuple[str | None, list[str]]:
    """Take a campaign file out of arguments where it stands first: ``alflow approve campaign.yaml 12``."""
    if arguments and Path(arguments[0]).suffix in _SUFFIXES:
        return arguments[0], list(arguments[1:])
    return campaign, list(arguments)


def candidate_ids(arguments: Sequence[str], *, required: bool = True) -> list[int]:
    """Read candidate ids; a usage error where one is no number, or none is given though one is ``required``."""
    import typer

    if not arguments and required:
        raise typer.BadParameter("name a candidate by its id; ids are the numbers that `alflow ls` shows")
    for argument in arguments:
        if not argument.isdecimal():
            raise typer.BadParameter(f"{argument!r} is no candidate id; ids are the numbers that `alflow ls` shows")
    return [int(argument) for argument in arguments]
