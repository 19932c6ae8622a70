"""The columns of ``ls``: which there are, which are shown, and their values of one candidate."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alflow.cli._output import Column
from alflow.errors import SelectionError
from alflow.ledger import CandidateColumn

if TYPE_CHECKING:
    from alflow.ledger import CandidateRow

DEFAULT = ("id", "formula", "n_atoms", "state", "u", "energy_per_atom", "e_hull", "source", "reason")
ALWAYS = frozenset({"id", "formula", "n_atoms", "state", "reason"})

COLUMNS: Mapping[str, Column] = {
    column.value: Column(
        key=column.value,
        label=column.label,
        unit=column.unit,
        digits=6 if column in {CandidateColumn.STRESS_ERROR, CandidateColumn.ENERGY} else 4 if column.unit else 2,
        elastic=column is CandidateColumn.REASON,
        cut=column is CandidateColumn.REASON,
    )
    for column in CandidateColumn
}


def choose_columns(text: str | None) -> list[Column]:
    """Choose columns as ASE does: ``id,u`` shows these, ``+volume,-reason`` adds to and takes from the usual ones.

    Raises
    ------
    SelectionError
        for a name that is no column, naming the nearest
    """
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    changes = bool(names) and all(name[0] in "+-" for name in names)
    chosen = list(DEFAULT) if changes or not names else []
    for name in names:
        key = check_column(name.lstrip("+-") if changes else name)
        if changes and name.startswith("-"):
            chosen = [other for other in chosen if other != key]
        elif key not in chosen:
            chosen.append(key)
    return [COLUMNS[key] for key in chosen]


def check_column(name: str) -> str:
    """Return the name of a column, or raise SelectionError naming the nearest ones."""
    if name in COLUMNS:
        return name
    near = difflib.get_close_matches(name, COLUMNS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the columns are {', '.join(COLUMNS)}"
    raise SelectionError(f"there is no column {name!r}; {hint}")


def drop_empty(columns: list[Column], rows: list[dict[str, Any]]) -> list[Column]:
    """Leave out usual columns that no row has a value for (energies before the first committee)."""
    return [c for c in columns if c.key in ALWAYS or any(row[c.key] is not None for row in rows)]


def values(candidate: CandidateRow, columns: list[Column]) -> dict[str, Any]:
    """Values of one candidate by column name."""
    return {column.key: getattr(candidate, CandidateColumn(column.key).attribute) for column in columns}
