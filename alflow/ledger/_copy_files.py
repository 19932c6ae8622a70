"""The files of a copied ledger, and the progress of its copy."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, func, select

from alflow.errors import LedgerError
from alflow.ledger import _tables as t
from alflow.ledger._artifacts import _sync_directory

_SHOWN = 5
_Batch = TypeVar("_Batch", bound=Sequence[Any])


class CopyProgress(Protocol):
    """Told how far a copy is."""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """``what`` is ``files`` (counted in bytes), then ``rows``, then ``comparison`` (in rows)."""


class Counter:
    """Tells the progress of one part of a copy."""

    def __init__(self, what: str, total: int, tell: CopyProgress) -> None:
        self._what, self._total, self._tell = what, total, tell
        self._done = 0
        self.advance(0)

    def advance(self, amount: int) -> None:
        """So much more is done."""
        self._done += amount
        self._tell(self._what, self._done, self._total)

    def count(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
        """Count batches once they have been dealt with."""
        for batch in batches:
            yield batch
            self.advance(len(batch))


def copy_files(connection: Connection, source: Path, target: Path, tell: CopyProgress) -> tuple[int, int]:
    """Bring the files that rows name into the target's folder; return their number and bytes.

    Files are named by their content, so those that an interrupted copy left behind are as good as new ones.

    Raises
    ------
    LedgerError
        naming the artifacts whose file is missing or altered
    """
    size = func.max(t.Artifact.size).label("size")
    key = func.min(t.Artifact.id).label("key")
    query = select(t.Artifact.sha256, t.Artifact.location, size, key)
    rows = connection.execute(query.group_by(t.Artifact.sha256, t.Artifact.location).order_by(key)).all()
    # a location decides where a file is written: one that alflow does not make is not followed
    strange = [str(row.key) for row in rows if row.location != f"{row.sha256[:2]}/{row.sha256}"]
    if strange:
        raise LedgerError(f"artifacts lie where alflow puts none: {some(strange)}; nothing was copied")
    total = sum(row.size for row in rows)
    done = Counter("files", total, tell)
    damaged = []
    for row in rows:
        if not _bring(source / row.location, target / row.location, row.sha256):
            damaged.append(str(row.key))
        done.advance(row.size)
    if damaged:
        raise LedgerError(
            f"{len(damaged)} artifacts are missing or altered in {source}: {some(damaged)}; "
            "restore the folder from a backup and copy again"
        )
    return len(rows), total


def _bring(source: Path, target: Path, digest: str) -> bool:
    """Have the content of a digest at the target; False where the source does not hold it."""
    if target.is_file() and _sha256(target) == digest:
        return True
    if not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    try:
        shutil.copyfile(source, partial)
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        if _sha256(partial) != digest:
            return False
        partial.replace(target)
        _sync_directory(target.parent)
    finally:
        partial.unlink(missing_ok=True)
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def some(names: Sequence[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:_SHOWN]) + ("…" if len(names) > _SHOWN else "")
