"""How a candidate is read: the joined columns, and the row made of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select

from alflow.ledger import _tables as t
from alflow.ledger._rows import CandidateRow, iso
from alflow.ledger._states import CandidateState, Stream
from alflow.ledger._types import AnyRow

_SHARED = ("state", "reason", "source", "parameters", "parent_id", "inclusion_probability", "rank", "duplicate_of")
_SCORES = ("committee_id", "u", "energy", "energy_error", "force_error", "stress_error", "e_hull", "e_hull_error")
_GEOMETRY = (
    "content_hash",
    "formula",
    "reduced_formula",
    "anonymous_formula",
    "chemical_system",
    "n_atoms",
    "n_elements",
    "volume",
    "charge",
    "space_group",
)
_OWN = (
    "id",
    "campaign_id",
    "structure_id",
    "stream",
    "relation",
    "pinned",
    "deliberate",
    "created",
    *_SHARED,
    *_SCORES,
)

CANDIDATE_COLUMNS: list[Any] = [
    *(getattr(t.Candidate, name) for name in _OWN),
    *(getattr(t.Structure, name) for name in _GEOMETRY),
    t.Campaign.name.label("campaign"),
    t.Round.index.label("round_index"),
]


def from_candidates(query: Select[Any]) -> Select[Any]:
    """Join what a candidate's row is made of."""
    return (
        query.select_from(t.Candidate)
        .join(t.Structure, t.Structure.id == t.Candidate.structure_id)
        .join(t.Campaign, t.Campaign.id == t.Candidate.campaign_id)
        .outerjoin(t.Round, t.Round.id == t.Candidate.round_id)
    )


def candidate_row(row: AnyRow) -> CandidateRow:
    """Make the public row of the selected columns."""
    values = dict(row._mapping)
    values["state"] = CandidateState(values["state"])
    values["stream"] = Stream(values["stream"])
    values["created"] = iso(values["created"])
    return CandidateRow(**values)
