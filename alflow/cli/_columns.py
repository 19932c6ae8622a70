"""The columns of ``ls``: which there are, which are shown, and their values of one candidate."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alflow.cli._output import Column
from alflow.errors import SelectionError
from alflow.ledger import CandidateColumn

if TYPE_CHECKING:
    from alflow.ledger import CandidateRow, Ledger

DEFAULT = ("id", "formula", "n_atoms", "state", "u", "energy_per_atom", "e_hull", "source", "reason")
ALWAYS = frozenset({"id", "formula", "n_atoms", "state", "reason"})

LABEL_COLUMNS: Mapping[str, Column] = {
    "label_energy": Column(key="label_energy", label="Label energy", unit="eV", digits=6),
    "label_energy_per_atom": Column(
        key="label_energy_per_atom", label="Label energy per atom", unit="eV/atom", digits=4
    ),
}
"""Read from the labels of the rows that are shown: they cannot be selected or sorted by."""

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
} | dict(LABEL_COLUMNS)


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


def check_sort(name: str) -> None:
    """Raise SelectionError unless candidates can be sorted by a column."""
    if check_column(name) in LABEL_COLUMNS:
        raise SelectionError(f"{name} can be shown, not sorted by; --csv and --json hand its numbers to other programs")


def drop_empty(columns: list[Column], rows: list[dict[str, Any]]) -> list[Column]:
    """Leave out usual columns that no row has a value for (energies before the first committee)."""
    return [c for c in columns if c.key in ALWAYS or any(row[c.key] is not None for row in rows)]


def label_energies(ledger: Ledger, candidates: Sequence[CandidateRow], columns: Sequence[Column]) -> dict[int, float]:
    """Energies of the candidates' labels in eV, by candidate id; nothing is read where no column needs them.

    A label is that of the theory of the candidate's own campaign, or of one that counts for it.
    """
    found: dict[int, float] = {}
    if not any(column.key in LABEL_COLUMNS for column in columns):
        return found
    for campaign_id in {candidate.campaign_id for candidate in candidates}:
        theory = ledger.campaigns.get(campaign_id).config.get("theory")
        if isinstance(theory, str):
            own = [candidate for candidate in candidates if candidate.campaign_id == campaign_id]
            energies = ledger.labels.energies(ledger.theories.get(theory).id, [c.structure_id for c in own])
            found |= {c.id: energies[c.structure_id] for c in own if c.structure_id in energies}
    return found


def values(candidate: CandidateRow, columns: list[Column], label_energy: float | None = None) -> dict[str, Any]:
    """Values of one candidate by column name; ``label_energy`` in eV is that of its label."""
    labels = {
        "label_energy": label_energy,
        "label_energy_per_atom": None if label_energy is None else label_energy / candidate.n_atoms,
    }
    return {
        column.key: labels[column.key]
        if column.key in labels
        else getattr(candidate, CandidateColumn(column.key).attribute)
        for column in columns
    }
