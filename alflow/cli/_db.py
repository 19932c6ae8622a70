"""``db``: the ledger's database itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from alflow.cli._options import CampaignOption, JsonOption, LedgerOption
from alflow.cli._output import Column, print_json, print_rows, size
from alflow.cli._target import find_target, opened, require_ledger
from alflow.errors import UserError


def upgrade(
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the ledger to the schema of this alflow.

    Make a backup first: `alflow db backup`.
    """
    from alflow.cli._console import stderr
    from alflow.ledger import open_ledger, upgrade_ledger

    url = _existing(campaign, ledger)
    upgrade_ledger(url)
    store = open_ledger(url, create=False)
    try:
        if as_json:
            print_json({"ledger": store.url, "schema_version": store.schema_version})
        else:
            stderr().print(f"{store.url} has schema {store.schema_version}", soft_wrap=True)
    finally:
        store.close()


def stats(
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what the ledger holds."""
    with opened(campaign, ledger) as target:
        content = target.ledger.stats()
    if as_json:
        print_json(content)
        return
    rows = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            rows += [{"what": f"{key} of {name}", "value": str(number)} for name, number in value.items() if number]
        elif key.endswith("_bytes"):
            rows.append({"what": key.removesuffix("_bytes") + " size", "value": size(value)})
        else:
            rows.append({"what": key.replace("_", " "), "value": str(value)})
    print_rows([Column(key="what", label="ledger"), Column(key="value", label="")], rows)


def backup(
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write it.", show_default="beside the ledger, dated"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the ledger, also while it is in use.

    The copy opens like the ledger itself.
    """
    from alflow.cli._console import stderr, working
    from alflow.ledger import backup_ledger

    url = _existing(campaign, ledger)
    path = output or _dated(url)
    if path.exists():
        raise UserError(f"{path} exists already; give another name with --output, or remove it")
    with working("copying"):
        backup_ledger(url, path)
    if as_json:
        print_json({"backup": path.resolve(), "bytes": path.stat().st_size})
    else:
        stderr().print(f"wrote {path} ({size(path.stat().st_size)})", soft_wrap=True)


def _existing(campaign: str | None, ledger: str | None) -> str:
    url = find_target(campaign, ledger).url
    require_ledger(url)
    return url


def _dated(url: str) -> Path:
    from datetime import datetime

    source = Path(url.partition(":///")[2].partition("?")[0])
    return source.with_name(f"{source.stem}-{datetime.now():%Y%m%d-%H%M%S}{source.suffix or '.db'}")
