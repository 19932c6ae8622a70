"""Structures as rows: one per content hash, with its elements and its fingerprint, written in bulk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.expression import any_
from sqlalchemy.types import Text

from alflow.errors import NotFoundError
from alflow.ledger import _tables as t
from alflow.ledger._engine import allocate_ids, among, bulk_insert, now
from alflow.ledger._types import to_json
from alflow.structures import Fingerprint, Structure, atomic_number

_COLUMNS = (
    "id",
    "content_hash",
    "formula",
    "reduced_formula",
    "anonymous_formula",
    "chemical_system",
    "n_atoms",
    "n_elements",
    "n_periodic",
    "volume",
    "charge",
    "geometry",
    "created",
)
_FINGERPRINT_COLUMNS = (
    "structure_id",
    "version",
    "bucket",
    "leading_0",
    "leading_1",
    "leading_2",
    "leading_3",
    "vector",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Composition:
    """What depends on the species alone, which many structures of a campaign share."""

    names: tuple[str, str, str, str]
    elements: tuple[tuple[int, int, float], ...]
    n_atoms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedStructure:
    """A structure turned into values before the transaction begins, so that the lock is held for writing only."""

    content_hash: str
    composition: _Composition
    geometry: tuple[int, float, float, bytes]
    fingerprint: dict[str, Any] | None


@lru_cache(maxsize=4096)
def _composition(numbers: bytes) -> _Composition:
    structure = Structure(
        cell=np.zeros((3, 3)),
        pbc=np.zeros(3, dtype=bool),
        numbers=np.frombuffer(numbers, dtype=np.int64),
        positions=np.zeros((len(numbers) // 8, 3)),
    )
    return _Composition(
        names=(
            structure.formula,
            structure.reduced_formula,
            structure.anonymous_formula,
            structure.chemical_system,
        ),
        elements=tuple((atomic_number(e), n, n / structure.n_atoms) for e, n in structure.composition.items()),
        n_atoms=structure.n_atoms,
    )


def prepare(structure: Structure, fingerprint: Fingerprint | None = None) -> PreparedStructure:
    """Compute everything the tables hold about a structure."""
    return PreparedStructure(
        content_hash=structure.content_hash,
        composition=_composition(structure.numbers.tobytes()),
        geometry=(structure.n_periodic, structure.volume, structure.charge, structure.to_bytes()),
        fingerprint=None if fingerprint is None else fingerprint_row(fingerprint),
    )


def fingerprint_row(fingerprint: Fingerprint) -> dict[str, Any]:
    """What the fingerprint table holds, without the structure."""
    row: dict[str, Any] = {f"leading_{i}": float(x) for i, x in enumerate(fingerprint.leading)}
    row |= {"version": fingerprint.version, "bucket": fingerprint.bucket, "vector": fingerprint.to_bytes()}
    return row


def among_texts(connection: Connection, column: Any, values: Iterable[str]) -> ColumnElement[bool]:
    """Condition that a text column is one of ``values``, as a single parameter."""
    texts = list(values)
    if connection.dialect.name == "sqlite":
        condition: ColumnElement[bool] = column.in_(
            select(func.json_each(to_json(texts)).table_valued("value").c.value)
        )
        return condition
    matches: ColumnElement[bool] = column == any_(literal(texts, type_=ARRAY(Text)))
    return matches


def ensure_structures(connection: Connection, prepared: Sequence[PreparedStructure]) -> dict[str, int]:
    """Insert the structures that are new; return the id of each content hash."""
    by_hash = {p.content_hash: p for p in prepared}

    def stored() -> Select[str, int]:
        where = among_texts(connection, t.Structure.content_hash, by_hash)
        return select(t.Structure.content_hash, t.Structure.id).where(where)

    ids = {content_hash: int(i) for content_hash, i in connection.execute(stored())}
    new = [p for content_hash, p in by_hash.items() if content_hash not in ids]
    if new:
        numbers = dict(zip((p.content_hash for p in new), allocate_ids(connection, t.Structure, len(new)), strict=True))
        time = now(connection)
        rows = [_row(numbers[p.content_hash], p, time) for p in new]
        bulk_insert(connection, t.Structure, _COLUMNS, rows)
        if connection.dialect.name == "sqlite":
            ids |= numbers
        else:  # another writer may have been first
            ids = {content_hash: int(i) for content_hash, i in connection.execute(stored())}
            new = [p for p in new if ids[p.content_hash] == numbers[p.content_hash]]
        elements = [(z, ids[p.content_hash], n, fraction) for p in new for z, n, fraction in p.composition.elements]
        bulk_insert(connection, t.StructureElement, ("element", "structure_id", "count", "fraction"), elements)
    fingerprints = [{**p.fingerprint, "structure_id": ids[p.content_hash]} for p in by_hash.values() if p.fingerprint]
    insert_fingerprints(connection, fingerprints)
    return ids


def insert_fingerprints(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store fingerprints, leaving those of the same structure and version as they are."""
    values = [tuple(row[name] for name in _FINGERPRINT_COLUMNS) for row in rows]
    bulk_insert(connection, t.Fingerprint, _FINGERPRINT_COLUMNS, values)


def _row(structure_id: int, prepared: PreparedStructure, time: float) -> tuple[Any, ...]:
    known = prepared.composition
    n_periodic, volume, charge, geometry = prepared.geometry
    counts = (known.n_atoms, len(known.elements), n_periodic)
    return (structure_id, prepared.content_hash, *known.names, *counts, volume, charge, geometry, time)


def load_structures(connection: Connection, ids: Sequence[int]) -> list[Structure]:
    """Structures of the given structure ids, in their order; raises NotFoundError."""
    query = select(t.Structure.id, t.Structure.geometry).where(among(connection, t.Structure.id, ids))
    blobs = dict(connection.execute(query).all())
    missing = [i for i in ids if i not in blobs]
    if missing:
        raise NotFoundError(f"no structure with id {missing[0]} in the ledger")
    return [Structure.from_bytes(blobs[i]) for i in ids]
