"""``db``: the ledger's database itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alflow.cli._options import CampaignOption, JsonOption, LedgerOption
from alflow.cli._output import Column, plural, print_json, print_rows, size
from alflow.cli._target import find_target, is_campaign_file, ledger_url, opened, require_ledger
from alflow.errors import UserError

if TYPE_CHECKING:
    from alflow.ledger import CopyProgress

_PASSWORD = "ALFLOW_LEDGER_PASSWORD"  # noqa: S105  a variable's name
_PARTS = {"files": "copying files", "rows": "copying rows", "comparison": "comparing"}


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
            "--output", "-o", metavar="FILE", help="Where to write it.", show_default="beside the ledger file, dated"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the ledger, also while it is in use.

    The copy of an SQLite ledger opens like the ledger itself; of one in PostgreSQL a dump is made, for `pg_restore`.
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


def copy(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Ledger to copy: a database URL, an SQLite file or a campaign file.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A new SQLite file, or the URL of an empty PostgreSQL database.")
    ],
    files: Annotated[
        Path | None,
        typer.Option(
            "--files",
            metavar="FOLDER",
            help="Where the files of a ledger in PostgreSQL go; all machines must share it.",
            show_default="ALFLOW_LEDGER_FILES",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Move a campaign's ledger to another database: copy it whole, with its files, and compare.

    Nobody may work on it meanwhile. The source stays as it is; the target is complete, or empty as before. In URLs,
    ${NAME} stands for an environment variable: what is typed on a command line can be read by others.
    """
    from alflow.ledger import copy_ledger

    source_url = find_target(source, None).url if is_campaign_file(source) else ledger_url(source)
    target_url = ledger_url(target)
    require_ledger(source_url)
    if files is not None and target_url.startswith("sqlite"):
        raise UserError("the files of an SQLite ledger lie beside it: leave --files away")
    with _copying() as progress:
        report = copy_ledger(source_url, target_url, directory=files, progress=progress)
    ledger = _for_campaign_file(target, report.target)
    if as_json:
        print_json({"ledger": ledger, **vars(report)})
        return
    from alflow.cli._console import stderr

    rows, tables = plural(sum(report.rows.values()), "row"), plural(sum(map(bool, report.rows.values())), "table")
    files_text = f"{plural(report.files, 'file')} ({size(report.file_bytes)})"
    lines = [
        f"copied {rows} of {tables} and {files_text}; both sides were compared",
        "now change the campaign file:",
        f"  ledger: {ledger}",
    ]
    if not report.target.startswith("sqlite"):
        lines += ["and set on every machine that works on it:", f"  export ALFLOW_LEDGER_FILES={report.directory}"]
    if f"${{{_PASSWORD}}}" in ledger:
        lines.append(f"  export {_PASSWORD}=…")
    lines.append(f"{report.source} is as it was; use it no more: what is written there is not in the copy")
    for line in lines:
        stderr().print(line, soft_wrap=True, markup=False)


@contextmanager
def _copying() -> Iterator[CopyProgress | None]:
    """Show a bar on a terminal; logs get nothing."""
    from alflow.cli._console import stderr

    console = stderr()
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=_PARTS[what], completed=done, total=total)


def _for_campaign_file(typed: str, shown: str) -> str:
    """Write a target as a campaign file should name it: files from the root, servers without their password."""
    from alflow.config import mask_url

    if shown.startswith("sqlite"):
        return f"sqlite:///{Path(shown.partition(':///')[2].partition('?')[0]).resolve()}"
    variable = f"${{{_PASSWORD}}}"
    return mask_url(typed).replace(":***@", f":{variable}@").replace("=***", f"={variable}")


def _existing(campaign: str | None, ledger: str | None) -> str:
    url = find_target(campaign, ledger).url
    require_ledger(url)
    return url


def _dated(url: str) -> Path:
    from datetime import datetime

    name = url.partition("?")[0]
    if name.startswith("sqlite"):
        source = Path(name.partition(":///")[2])
    else:
        source = Path.cwd() / f"{name.rpartition('/')[2] or 'ledger'}.dump"
    stem, suffix = f"{source.stem}-{datetime.now():%Y%m%d-%H%M%S}", source.suffix or ".db"
    names = itertools.chain([stem], (f"{stem}-{k}" for k in itertools.count(2)))  # two within a second
    return next(path for name in names if not (path := source.with_name(f"{name}{suffix}")).exists())
