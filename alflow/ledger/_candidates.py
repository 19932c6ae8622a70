"""How a candidate is read: the joined columns, and the row made of them.

Written with plain tables: asking mapped classes costs more than a database that answers in a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, select

from alflow.errors import NotFoundError
from alflow.ledger import _tables as t
from alflow.ledger._engine import among
from alflow.ledger._rows import CandidateRow, iso
from alflow.ledger._states import CandidateState, Stream

#: the tables behind a row
CANDIDATE, STRUCTURE = t.Candidate.__table__.c, t.Structure.__table__.c
CAMPAIGN, ROUND = t.Campaign.__table__.c, t.Round.__table__.c

_SHARED = ("reason", "source", "parameters", "parent_id", "inclusion_probability", "rank", "duplicate_of")
_SCORES = (
    *("committee_id", "u", "energy", "energy_error", "force_error", "stress_error"),
    *("distance", "e_hull", "e_hull_error"),
)
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
)
_OWN = ("id", "campaign_id", "structure_id", "relation", "pinned", "deliberate", *_SHARED, *_SCORES)
#: the rest of a row is taken as it is stored
_CONVERTED = ("state", "stream", "created")
_STATES, _STREAMS = {str(s): s for s in CandidateState}, {str(s): s for s in Stream}
_PLAIN = (*_OWN, *_GEOMETRY, "campaign", "round_index")

CANDIDATE_COLUMNS: tuple[Any, ...] = (
    *(CANDIDATE[name] for name in (*_CONVERTED, *_OWN)),
    *(STRUCTURE[name] for name in _GEOMETRY),
    CAMPAIGN.name.label("campaign"),
    ROUND.index.label("round_index"),
)
_JOINED = (
    t.Candidate.__table__.join(t.Structure.__table__, STRUCTURE.id == CANDIDATE.structure_id)
    .join(t.Campaign.__table__, CAMPAIGN.id == CANDIDATE.campaign_id)
    .outerjoin(t.Round.__table__, ROUND.id == CANDIDATE.round_id)
)


def from_candidates(query: Select[Any]) -> Select[Any]:
    """Join what a candidate's row is made of."""
    return query.select_from(_JOINED)


#: all candidates, to be narrowed, sorted and handed to :func:`candidate_rows`
CANDIDATES = from_candidates(select(*CANDIDATE_COLUMNS))


def candidate_rows(rows: Iterable[Sequence[Any]]) -> list[CandidateRow]:
    """Make the public rows of :data:`CANDIDATE_COLUMNS`."""
    made = []
    for state, stream, created, *rest in rows:
        row = object.__new__(CandidateRow)
        # filled at once: the constructor of a frozen class sets its forty fields one by one, half the time of a query
        row.__dict__.update(zip(_PLAIN, rest, strict=True))
        row.__dict__.update(state=_STATES[state], stream=_STREAMS[stream], created=iso(created))
        made.append(row)
    return made


def rows_of(connection: Connection, ids: Sequence[int]) -> list[CandidateRow]:
    """Candidates in the order of ``ids``; raises NotFoundError."""
    if not ids:
        return []
    rows = candidate_rows(connection.execute(CANDIDATES.where(among(connection, CANDIDATE.id, ids))))
    found = {row.id: row for row in rows}
    missing = [i for i in ids if i not in found]
    if missing:
        raise NotFoundError(f"no candidate with id {missing[0]} in the ledger; `alflow ls` lists them")
    return [found[i] for i in ids]
