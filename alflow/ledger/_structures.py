"""Structures as rows: one per content hash, with its elements and its fingerprint, written in bulk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, insert, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.expression import any_
from sqlalchemy.types import Text

from alflow.errors import NotFoundError
from alflow.ledger import _tables as t
from alflow.ledger._engine import allocate_ids, among, insert_or_ignore, now
from alflow.ledger._types import to_json
from alflow.structures import Fingerprint, Structure, atomic_number


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedStructure:
    """A structure turned into rows before the transaction begins, so that the lock is held for writing only."""

    content_hash: str
    row: dict[str, Any]
    elements: tuple[tuple[int, int, float], ...]
    fingerprint: dict[str, Any] | None


def prepare(structure: Structure, fingerprint: Fingerprint | None = None) -> PreparedStructure:
    """Compute everything the tables hold about a structure."""
    composition = structure.composition
    n_atoms = structure.n_atoms
    units = reduce(gcd, composition.values())
    return PreparedStructure(
        content_hash=structure.content_hash,
        row={
            "content_hash": structure.content_hash,
            "formula": _formula(composition, 1),
            "reduced_formula": _formula(composition, units),
            "anonymous_formula": structure.anonymous_formula,
            "chemical_system": "-".join(composition),
            "n_atoms": n_atoms,
            "n_elements": len(composition),
            "n_periodic": structure.n_periodic,
            "volume": structure.volume,
            "charge": structure.charge,
            "space_group": None,
            "geometry": structure.to_bytes(),
        },
        elements=tuple((atomic_number(e), n, n / n_atoms) for e, n in composition.items()),
        fingerprint=None if fingerprint is None else fingerprint_row(fingerprint),
    )


def _formula(composition: Mapping[str, int], units: int) -> str:
    return "".join(f"{e}{n // units if n > units else ''}" for e, n in composition.items())


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
        rows = [{**p.row, "id": numbers[p.content_hash], "created": time} for p in new]
        connection.execute(insert_or_ignore(connection, t.Structure), rows)
        if connection.dialect.name == "sqlite":
            ids |= numbers
        else:  # another writer may have been first
            ids = {content_hash: int(i) for content_hash, i in connection.execute(stored())}
            new = [p for p in new if ids[p.content_hash] == numbers[p.content_hash]]
        elements = [
            {"element": z, "structure_id": ids[p.content_hash], "count": n, "fraction": fraction}
            for p in new
            for z, n, fraction in p.elements
        ]
        if elements:
            connection.execute(insert(t.StructureElement), elements)
    fingerprints = [{**p.fingerprint, "structure_id": ids[p.content_hash]} for p in by_hash.values() if p.fingerprint]
    if fingerprints:
        connection.execute(insert_or_ignore(connection, t.Fingerprint), fingerprints)
    return ids


def load_structures(connection: Connection, ids: Sequence[int]) -> list[Structure]:
    """Structures of the given structure ids, in their order; raises NotFoundError."""
    query = select(t.Structure.id, t.Structure.geometry).where(among(connection, t.Structure.id, ids))
    blobs = dict(connection.execute(query).all())
    missing = [i for i in ids if i not in blobs]
    if missing:
        raise NotFoundError(f"no structure with id {missing[0]} in the ledger")
    return [Structure.from_bytes(blobs[i]) for i in ids]
