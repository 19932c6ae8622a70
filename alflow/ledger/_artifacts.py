"""Artifacts: checkpoints and raw outputs as files addressed by their content, beside the database."""

from __future__ import annotations

import builtins
import hashlib
import os
import time
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from sqlalchemy import delete, select

from alflow.errors import LedgerError, NotFoundError
from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, insert_or_ignore, table_columns
from alflow.ledger._events import record
from alflow.ledger._rows import ArtifactRow, iso
from alflow.ledger._types import AnyRow

_BLOCK = 1 << 20
_STALE_SECONDS = 3600.0
_PARTIAL = ".partial"


class Artifacts:
    """The files of a ledger: ``<directory>/<first two digits>/<sha256>``."""

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._directory = directory

    def put(self, data: bytes | Path, *, kind: str, name: str) -> ArtifactRow:
        """Store bytes or a copy of a file; the same content is stored once.

        The file is complete on disk before its row is committed, so a row never points at nothing.

        Parameters
        ----------
        kind
            one word, e.g. ``checkpoint``, ``log``, ``output``
        name
            what people would call the file
        """
        digest, size = self._write(data)
        new = {"sha256": digest, "kind": kind, "name": name, "size": size, "location": f"{digest[:2]}/{digest}"}
        with self._database.write() as connection:
            connection.execute(insert_or_ignore(connection, t.Artifact), new)
            query = select(*table_columns(t.Artifact)).where(
                t.Artifact.sha256 == digest, t.Artifact.kind == kind, t.Artifact.name == name
            )
            row = self._row(connection.execute(query).one())
            if not row.path.is_file():  # pruned between the two: its row was the last one of this content
                self._write(data)
            return row

    def get(self, artifact_id: int) -> ArtifactRow:
        """One artifact; raises NotFoundError."""
        with self._database.read() as connection:
            row = connection.execute(select(*table_columns(t.Artifact)).where(t.Artifact.id == artifact_id)).first()
        if row is None:
            raise NotFoundError(f"no artifact with id {artifact_id} in the ledger")
        return self._row(row)

    def path(self, artifact_id: int) -> Path:
        """Where the file of an artifact lies.

        Raises
        ------
        NotFoundError
            for an unknown id
        LedgerError
            if the file is gone
        """
        row = self.get(artifact_id)
        if not row.path.is_file():
            raise LedgerError(
                f"the file of artifact {artifact_id} ({row.kind} {row.name}) is missing: {row.path}; "
                "restore the ledger's directory beside the database from the backup"
            )
        return row.path

    def read(self, artifact_id: int) -> bytes:
        """The content, checked against its hash; raises LedgerError if it was altered."""
        row = self.get(artifact_id)
        data = self.path(artifact_id).read_bytes()
        if hashlib.sha256(data).hexdigest() != row.sha256:
            raise LedgerError(f"artifact {artifact_id} ({row.kind} {row.name}) was altered on disk: {row.path}")
        return data

    def list(self, kind: str | None = None) -> builtins.list[ArtifactRow]:
        """All artifacts, of one kind or of all, oldest first."""
        query = select(*table_columns(t.Artifact)).order_by(t.Artifact.id)
        if kind is not None:
            query = query.where(t.Artifact.kind == kind)
        with self._database.read() as connection:
            return [self._row(row) for row in connection.execute(query)]

    def prune(self, *, keep: Collection[int] = (), kinds: Collection[str] | None = None, dry_run: bool = False) -> int:
        """Remove artifacts that no committee and no attempt refers to, and files without a row; return the bytes freed.

        Parameters
        ----------
        keep
            artifact ids to spare
        kinds
            only artifacts of these kinds
        dry_run
            count only
        """
        referenced = (
            select(t.Committee.artifact_id)
            .where(t.Committee.artifact_id.is_not(None))
            .union(select(t.Attempt.log_id).where(t.Attempt.log_id.is_not(None)))
        )
        query = select(*table_columns(t.Artifact)).where(t.Artifact.id.not_in(referenced))
        if kinds is not None:
            query = query.where(t.Artifact.kind.in_(sorted(kinds)))
        with self._database.write() as connection:
            spared = set(keep)
            idle = [row for row in connection.execute(query) if row.id not in spared]
            if idle and not dry_run:
                connection.execute(delete(t.Artifact).where(t.Artifact.id.in_([row.id for row in idle])))
                record(
                    connection, "pruned", f"{len(idle)} artifacts were removed", payload={"ids": [r.id for r in idle]}
                )
            gone = {row.id for row in idle}
            rows = connection.execute(select(t.Artifact.id, t.Artifact.location))
            wanted = {location for i, location in rows if i not in gone}
            # still inside the transaction: nobody can add a row for a file that is being removed
            return self._remove_files(wanted, {row.location for row in idle} - wanted, dry_run=dry_run)

    def _remove_files(self, wanted: Collection[str], idle: Collection[str], *, dry_run: bool) -> int:
        freed = 0
        for path in [*self._directory.glob("??/*"), *self._directory.glob(f"*{_PARTIAL}")]:
            location = path.relative_to(self._directory).as_posix()
            # a young file without a row may belong to a writer that has not committed yet
            stale = time.time() - path.stat().st_mtime > _STALE_SECONDS
            if location in idle or (stale and location not in wanted):
                freed += path.stat().st_size
                if not dry_run:
                    path.unlink(missing_ok=True)
        return freed

    def _write(self, data: bytes | Path) -> tuple[str, int]:
        self._directory.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        size = 0
        partial = self._directory / f"{uuid.uuid4().hex}{_PARTIAL}"
        try:
            with partial.open("xb") as handle:
                for block in _blocks(data):
                    digest.update(block)
                    size += len(block)
                    handle.write(block)
                handle.flush()
                os.fsync(handle.fileno())
            target = self._directory / digest.hexdigest()[:2] / digest.hexdigest()
            target.parent.mkdir(exist_ok=True)
            partial.replace(target)
            _sync_directory(target.parent)
        finally:
            partial.unlink(missing_ok=True)
        return digest.hexdigest(), size

    def _row(self, row: AnyRow) -> ArtifactRow:
        return ArtifactRow(
            id=row.id,
            sha256=row.sha256,
            kind=row.kind,
            name=row.name,
            size=row.size,
            path=self._directory / row.location,
            created=iso(row.created),
        )


def _blocks(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    with data.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block


def _sync_directory(path: Path) -> None:
    # without this a power cut may keep the row and lose the name of the file
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
