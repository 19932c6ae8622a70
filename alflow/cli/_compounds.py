"""The answer on a terminal: the compounds that are stable, and what may still change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alflow.cli._output import Column, print_table

if TYPE_CHECKING:
    from alflow.report import OpenPhase

_NAMED = 6


def print_compounds(stable: Sequence[Mapping[str, Any]], open_: Sequence[OpenPhase]) -> None:
    """Print what may be called stable, and in one line what lies on or below the hull without proof."""
    from alflow.cli._console import stdout

    if stable:
        columns = [
            Column(key="formula", label="Compound"),
            Column(key="space_group", label="Space group"),
            Column(key="formation_energy", label="Formation energy", unit="eV/atom", digits=4),
            Column(key="e_hull", label="Above hull", unit="eV/atom", digits=4),
            Column(key="force", label="Residual force", unit="eV/Å"),
            Column(key="stress", label="Residual stress", unit="eV/Å³", digits=4),
            Column(key="id", label="ID"),
        ]
        print_table(columns, stable, title="stable, each with a label at its relaxed geometry")
    if open_:
        stdout().print(open_text(open_), markup=False, highlight=False, soft_wrap=True)


def open_text(open_: Sequence[OpenPhase]) -> str:
    """Name open phases in one line: those with a label on the hull, and predictions below it."""
    labelled = [phase for phase in open_ if phase.label_id is not None]
    predicted = [phase for phase in open_ if phase.label_id is None]
    parts = []
    if labelled:
        parts.append(f"on the hull, not yet confirmed: {_names(labelled)}")
    if predicted:
        parts.append(f"predicted below the hull: {_names(predicted)}")
    return "; ".join([*parts, "see `alflow report`"])


def _names(phases: Sequence[OpenPhase]) -> str:
    names = [
        f"{p.formula} ({f'label {p.label_id}' if p.candidate_id is None else f'candidate {p.candidate_id}'})"
        for p in phases
    ]
    left = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {left} more" if left > 0 else "")
