"""Where a campaign file is, when its folder is all that is said."""

from __future__ import annotations

import re
from pathlib import Path

from alflow.errors import UserError

DEFAULT_FILE = "campaign.yaml"
SUFFIXES = frozenset({".yaml", ".yml"})
_MAX_BYTES = 1_000_000


def looks_like_campaign(path: Path) -> bool:
    """True where the top level of a YAML file has the keys that every campaign file has."""
    if path.stat().st_size > _MAX_BYTES:
        return False
    text = path.read_text(encoding="utf-8", errors="replace")
    return all(re.search(rf"^{key}\s*:", text, flags=re.MULTILINE) for key in ("elements", "theory"))


def find_campaign_file(directory: Path) -> Path:
    """Return ``campaign.yaml`` of a directory, else its only campaign file.

    Raises
    ------
    UserError
        if there is none, or more than one
    """
    default = directory / DEFAULT_FILE
    if default.is_file():
        return default
    yamls = (p for p in sorted(directory.iterdir()) if p.suffix in SUFFIXES and p.is_file())
    found = [path for path in yamls if looks_like_campaign(path)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            f"no campaign file in {directory.resolve()}: name one, or write one with `alflow init`; "
            "to look into a ledger without a campaign file use --ledger"
        )
    names = ", ".join(path.name for path in found)
    raise UserError(f"{len(found)} campaign files in {directory.resolve()} ({names}): name the one you mean")
