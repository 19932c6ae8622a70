"""Structures as rows: one per content hash, with its composition and its fingerprint, written in bulk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, exists, select

from alflow.errors import NotFoundError
from alflow.ledger import _tables as t
from alflow.ledger._bulk import allocate_ids, bulk_insert
from alflow.ledger._compositions import Composition, among_texts, composition_of, ensure_formulas
from alflow.ledger._engine import among, now
from alflow.structures import Fingerprint, Structure, fingerprint, probes

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
    "probe_0",
    "probe_1",
    "probe_2",
    "probe_3",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedStructure:
    """A structure turned into values before the transaction begins, so that the lock is held for writing only."""

    content_hash: str
    composition: Composition
    geometry: tuple[int, float, float, bytes]
    fingerprint: dict[str, Any] | None


def prepare(structure: Structure, mark: Fingerprint | None = None) -> PreparedStructure:
    """Compute everything the tables hold about a structure."""
    return PreparedStructure(
        content_hash=structure.content_hash,
        composition=composition_of(structure),
        geometry=(structure.n_periodic, structure.volume, structure.charge, structure.to_bytes()),
        fingerprint=None if mark is None else fingerprint_row(mark),
    )


def fingerprint_row(mark: Fingerprint) -> dict[str, Any]:
    """What the fingerprint table holds, without the structure."""
    row: dict[str, Any] = {f"leading_{i}": float(x) for i, x in enumerate(mark.leading)}
    row |= {f"probe_{i}": float(x) for i, x in enumerate(probes(mark))}
    row |= {"version": mark.version, "bucket": mark.bucket, "vector": mark.to_bytes()}
    return row


def ensure_structures(
    connection: Connection, prepared: Sequence[PreparedStructure]
) -> tuple[dict[str, int], Sequence[int]]:
    """Insert the structures that are new; return the id of each content hash, and the ids that were there before."""
    by_hash = {p.content_hash: p for p in prepared}

    def stored() -> Any:
        where = among_texts(connection, t.Structure.content_hash, by_hash)
        return select(t.Structure.content_hash, t.Structure.id).where(where)

    ids = {content_hash: int(i) for content_hash, i in connection.execute(stored())}
    old: Sequence[int] = list(ids.values())
    new = [p for content_hash, p in by_hash.items() if content_hash not in ids]
    if new:
        numbers = allocate_ids(connection, t.Structure, len(new))
        time = now(connection)
        rows = [_row(number, p, time) for number, p in zip(numbers, new, strict=True)]
        if bulk_insert(connection, t.Structure, _COLUMNS, rows) == len(new):
            ids |= {p.content_hash: number for number, p in zip(numbers, new, strict=True)}
        else:  # another writer was first
            ids = {content_hash: int(i) for content_hash, i in connection.execute(stored())}
            old = list(set(ids.values()) - set(numbers))
        ensure_formulas(connection, (p.composition for p in new))
    fingerprints = [{**p.fingerprint, "structure_id": ids[p.content_hash]} for p in by_hash.values() if p.fingerprint]
    insert_fingerprints(connection, fingerprints)
    return ids, old


def insert_fingerprints(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store fingerprints, leaving those of the same structure and version as they are."""
    values = [tuple(row[name] for name in _FINGERPRINT_COLUMNS) for row in rows]
    bulk_insert(connection, t.Fingerprint, _FINGERPRINT_COLUMNS, values)


def ensure_fingerprints(connection: Connection, candidate_ids: Sequence[int]) -> None:
    """Make the fingerprints that candidates' structures lack: only those that others are compared with have one."""
    has_one = (
        exists()
        .where(t.Fingerprint.structure_id == t.Structure.id, t.Fingerprint.version == Fingerprint.version)
        .correlate(t.Structure)
    )
    query = (
        select(t.Structure.id, t.Structure.geometry)
        .join(t.Candidate, t.Candidate.structure_id == t.Structure.id)
        .where(among(connection, t.Candidate.id, candidate_ids), ~has_one)
        .distinct()
    )
    rows = [
        {**fingerprint_row(fingerprint(Structure.from_bytes(blob))), "structure_id": int(i)}
        for i, blob in connection.execute(query)
    ]
    insert_fingerprints(connection, rows)


def _row(structure_id: int, prepared: PreparedStructure, time: float) -> tuple[Any, ...]:
    known = prepared.composition
    return (
        structure_id,
        prepared.content_hash,
        known.formula,
        known.reduced_formula,
        known.anonymous_formula,
        known.chemical_system,
        known.n_atoms,
        known.n_elements,
        *prepared.geometry,
        time,
    )


_GEOMETRY = select(t.Structure.geometry).where(t.Structure.id == bindparam("id"))


def load_structure(connection: Connection, structure_id: int) -> Structure:
    """The structure of that id, by a statement that is composed once; raises NotFoundError."""
    blob = connection.scalar(_GEOMETRY, {"id": structure_id})
    if blob is None:
        raise NotFoundError(f"no structure with id {structure_id} in the ledger")
    return Structure.from_bytes(blob)


def load_structures(connection: Connection, ids: Sequence[int]) -> list[Structure]:
    """Structures of the given structure ids, in their order; raises NotFoundError."""
    return [Structure.from_bytes(blob) for blob in load_geometries(connection, ids)]


def load_geometries(connection: Connection, ids: Sequence[int]) -> list[bytes]:
    """The same as they are stored, to be decoded when the transaction is over."""
    query = select(t.Structure.id, t.Structure.geometry).where(among(connection, t.Structure.id, ids))
    blobs: dict[int, bytes] = dict(connection.execute(query).tuples().all())
    missing = [i for i in ids if i not in blobs]
    if missing:
        raise NotFoundError(f"no structure with id {missing[0]} in the ledger")
    return [blobs[i] for i in ids]
