"""A campaign by its file, by the folder that holds it, or by its name in a ledger."""

from __future__ import annotations

import os
import re
from pathlib import Path

from alflow.config import find_campaign_file, load_campaign
from alflow.errors import AlflowError, NotFoundError, UserError
from alflow.ledger import open_ledger

LEDGER_VARIABLE = "ALFLOW_LEDGER"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def locate_campaign(campaign: str, *, ledger_url: str | None = None) -> Path:
    """Find the file of a campaign on this machine.

    Parameters
    ----------
    campaign
        a campaign file, a folder that holds one, or the name of a campaign that has run before; its file is then
        looked for where the ledger last saw it
    ledger_url
        where names are looked up; None: the environment variable ``ALFLOW_LEDGER`` of this machine

    Raises
    ------
    UserError
        if this is none of the three, or a name is given without a ledger
    NotFoundError
        if the ledger holds no such campaign, or its file is gone
    """
    text = campaign.strip()
    path = Path(text).expanduser()
    if path.is_dir():
        return find_campaign_file(path.resolve())
    if path.is_file():
        return path.resolve()
    if not _NAME.fullmatch(text) or path.suffix in {".yaml", ".yml"}:
        # what looks like a URL is not repeated: it may hold a password
        what = "a database URL" if "://" in text else f"{text!r}, which does not exist in {Path.cwd()},"
        raise UserError(f"{what} is no campaign: name a campaign file, its folder, or a campaign in {LEDGER_VARIABLE}")
    url = ledger_url or os.environ.get(LEDGER_VARIABLE)
    if not url:
        raise UserError(
            f"{text!r} is no file in {Path.cwd()}; to find a campaign by its name, set {LEDGER_VARIABLE} to its "
            "ledger's URL in the environment of this machine's worker"
        )
    with open_ledger(url, create=False) as ledger:
        directory = ledger.campaigns.get(text).config.get("directory")
    return _file_in(Path(str(directory)), text)


def _file_in(directory: Path, name: str) -> Path:
    files = sorted([*directory.glob("*.yaml"), *directory.glob("*.yml")]) if directory.is_dir() else []
    for path in files:
        try:
            if load_campaign(path).config.name == name:
                return path
        except AlflowError:  # another kind of file
            continue
    raise NotFoundError(
        f"the file of campaign {name!r} is no longer in {directory}: name the file itself; a run of it from where it "
        "lies now lets the ledger know"
    )
