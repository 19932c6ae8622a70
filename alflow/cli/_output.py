"""Data on stdout: tables, JSON and CSV, each from the same rows."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

HEADING_WIDTH = 10
ELASTIC_WIDTH = 20
_BETWEEN = 2  # blanks that the table puts after every column


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    key
        name in JSON and CSV
    label
        heading for people; the key where empty
    unit
        shown under the heading; ``eV``, ``Å³``, …
    digits
        decimals of floating-point values in the table (JSON and CSV carry them in full)
    elastic
        True for the column that gives way on a narrow terminal: it wraps
    cut
        True for an elastic column that is cut instead, where one line per row matters more than the whole text
    """

    key: str
    label: str = ""
    unit: str = ""
    digits: int = 3
    elastic: bool = False
    cut: bool = False


def jsonable(value: Any) -> Any:
    """Turn rows, settings, arrays, times and paths into JSON values; numbers that are not finite become null."""
    if value is None or (isinstance(value, (bool, int, str)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if hasattr(value, "model_dump"):
        return jsonable(value.model_dump(mode="json"))
    if hasattr(value, "content_hash") and hasattr(value, "positions"):
        return _structure(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, Iterable):
        return [jsonable(item) for item in value]
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _structure(structure: Any) -> dict[str, Any]:
    """JSON form of a structure: geometry, electronic state and identity."""
    moments = structure.moments
    return {
        "content_hash": structure.content_hash,
        "formula": structure.formula,
        "cell": structure.cell.tolist(),
        "pbc": structure.pbc.tolist(),
        "numbers": structure.numbers.tolist(),
        "positions": structure.positions.tolist(),
        "charge": structure.charge,
        "moments": None if moments is None else moments.tolist(),
    }


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_csv(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows with a heading line; numbers in full, None as an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in rows:
        cells = [jsonable(row.get(column.key)) for column in columns]
        writer.writerow([json.dumps(c, ensure_ascii=False) if isinstance(c, (dict, list)) else c for c in cells])
    sys.stdout.write(stream.getvalue())


def print_rows(
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool = False,
    as_csv: bool = False,
    title: str | None = None,
) -> None:
    """Write rows as a table, or as JSON or CSV where asked for."""
    if as_json:
        print_json([{column.key: row.get(column.key) for column in columns} for row in rows])
    elif as_csv:
        print_csv(columns, rows)
    else:
        print_table(columns, rows, title=title)


def print_table(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], *, title: str | None = None) -> None:
    """Write a table to stdout; whole and without trailing blanks where that is no terminal."""
    from alflow.cli._console import stdout

    console = stdout()
    table = make_table(columns, rows, width=console.width, title=title)
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    sys.stdout.write("\n".join(line.rstrip() for line in captured.get().split("\n")))


def make_table(
    columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], *, width: int, title: str | None = None
) -> Any:
    """Return a rich table: quiet lines, numbers to the right, units in the heading.

    Elastic columns share what the others leave of ``width``; the others are never cut.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    numeric = [_is_numeric([row.get(column.key) for row in rows]) for column in columns]
    headings = [_heading(column, narrow=is_number) for column, is_number in zip(columns, numeric, strict=True)]
    cells = [[cell_text(row.get(column.key), column.digits) for row in rows] for column in columns]
    widths = _column_widths(columns, headings, cells, width)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        title=title,
        title_justify="left",
        title_style="bold",
    )
    for i, column in enumerate(columns):
        table.add_column(
            headings[i],
            justify="right" if numeric[i] else "left",
            no_wrap=not column.elastic or column.cut,
            overflow="fold" if column.elastic and not column.cut else "ellipsis",
            width=widths[i],
        )
    for number, row in enumerate(rows):
        table.add_row(*(Text(cells[i][number], style=cell_style(c.key, row)) for i, c in enumerate(columns)))
    return table


def _heading(column: Column, *, narrow: bool) -> Text:
    """Heading with the unit under it; broken between words over a column of numbers, which is narrow."""
    from rich.text import Text

    label = column.label or column.key
    heading = Text("\n".join(textwrap.wrap(label, HEADING_WIDTH)) if narrow else label, style="bold")
    if column.unit:
        heading.append(f"\n{column.unit}", style="not bold dim")
    return heading


def _column_widths(
    columns: Sequence[Column], headings: Sequence[Text], cells: Sequence[Sequence[str]], width: int
) -> list[int]:
    from rich.cells import cell_len

    texts = [[*heading.plain.split("\n"), *column] for heading, column in zip(headings, cells, strict=True)]
    widths = [max(cell_len(line) for text in column for line in text.split("\n")) for column in texts]
    elastic = [i for i, column in enumerate(columns) if column.elastic]
    if elastic:
        left = width - sum(w for i, w in enumerate(widths) if i not in elastic) - _BETWEEN * len(columns)
        share = max(left // len(elastic), ELASTIC_WIDTH)
        for i in elastic:
            widths[i] = min(widths[i], share)
    return widths


def _is_numeric(values: Sequence[Any]) -> bool:
    return any(_is_number(v) for v in values) and all(v is None or _is_number(v) for v in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def cell_text(value: Any, digits: int = 3) -> str:
    """Write one value for people."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–"
        small = value != 0.0 and abs(value) < 0.5 * 10.0**-digits
        return f"{value:.1e}" if small or abs(value) >= 1e7 else f"{value:.{digits}f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={cell_text(item, digits)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(cell_text(item, digits) for item in value)
    return str(value.value) if isinstance(value, Enum) else str(value)


_STATE_STYLES = {
    "labelled": "green",
    "done": "green",
    "queued": "cyan",
    "selected": "cyan",
    "running": "cyan",
    "leased": "cyan",
    "submitted": "cyan",
    "active": "green",
    "waiting": "yellow",
    "retry_wait": "yellow",
    "duplicate": "dim",
    "rejected": "dim",
    "cancelled": "dim",
    "failed": "red",
    "quarantined": "red",
}


def cell_style(key: str, row: Mapping[str, Any]) -> str:
    """Colour of a cell: only states carry one."""
    return _STATE_STYLES.get(str(row.get("state")), "") if key == "state" else ""


def clock(time: str) -> str:
    """Write a time of the ledger (UTC, ISO 8601) to the second, without the zone."""
    return time[:19].replace("T", " ")


def duration(seconds: float) -> str:
    """Write a duration in at most two units: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(n_bytes: float) -> str:
    """Write a number of bytes: ``812 B``, ``1.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError("unreachable")


def plural(n: int, noun: str, many: str | None = None) -> str:
    """Write a count with its noun: ``1 label``, ``3 labels``."""
    return f"{n} {noun}" if n == 1 else f"{n} {many or noun + 's'}"
