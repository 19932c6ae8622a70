"""The work file of ``alflow dedup``: what was read and what was decided, so that an interrupted run goes on.

It is a cache beside the output, in SQLite: a row for every structure as soon as its fingerprint is known, a row for
every decision as soon as it is taken. Both are committed every few seconds. Whatever kills the command loses only what
came after the last commit; the next one goes on behind it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from alflow.cli._dedup_results import Results
from alflow.errors import UserError
from alflow.structures import Fingerprint, Structure

if TYPE_CHECKING:
    from alflow.structures import DuplicatePolicy

COMMIT_SECONDS = 2.0
_MADE_FOR = json.dumps([1, Fingerprint.__dataclass_fields__["version"].default])  # of this file, of fingerprints

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS file (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, name TEXT NOT NULL, position INTEGER NOT NULL,
    size INTEGER NOT NULL, mtime INTEGER NOT NULL, complete INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS frame (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES file (id) ON DELETE CASCADE, number INTEGER NOT NULL,
    bucket TEXT NOT NULL, formula TEXT NOT NULL, n_atoms INTEGER NOT NULL, hash BLOB NOT NULL, energy REAL,
    fingerprint BLOB NOT NULL, structure BLOB NOT NULL, UNIQUE (file, number)
);
CREATE TABLE IF NOT EXISTS unreadable (
    file INTEGER NOT NULL REFERENCES file (id) ON DELETE CASCADE, number INTEGER NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (file, number)
);
CREATE TABLE IF NOT EXISTS decision (
    frame INTEGER PRIMARY KEY, leader INTEGER NOT NULL, displacement REAL, rms REAL, strain REAL, mirrored INTEGER,
    copies REAL
);
"""
# Labelled structures lead, so that no label is dropped for a structure without one; then small cells; the content hash
# breaks ties without regard to the order of the input, which only decides between structures that are equal in all.
_CANONICAL = "f.energy IS NULL, f.n_atoms, f.hash, file.position, f.number"


@dataclass(frozen=True, kw_only=True)
class Source:
    """An input file: its row in the work file, its path, and size (bytes) and time of change (ns) when it was met."""

    id: int
    path: Path
    size: int
    mtime: int

    def has_changed(self) -> bool:
        """True where the file is no longer what it was."""
        return _state(self.path) != (self.size, self.mtime)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadFrame:
    """A structure that was read; ``energy`` is that of its label, eV/atom, or None."""

    number: int
    structure: Structure
    fingerprint: Fingerprint
    energy: float | None


@dataclass(frozen=True, kw_only=True)
class BadFrame:
    """A frame that cannot be read, and why."""

    number: int
    message: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Which structure leads the group of another, and how far the two are apart; a leader leads itself.

    ``displacement`` and ``rms`` in Å, ``copies``: atoms for every atom of the leader. All None for a leader.
    """

    frame: int
    leader: int
    displacement: float | None = None
    rms: float | None = None
    strain: float | None = None
    mirrored: bool | None = None
    copies: float | None = None


@dataclass(frozen=True, kw_only=True)
class Member:
    """A structure of a bucket on its way through the grouping; ``leader`` is None while nothing is decided."""

    id: int
    hash: bytes
    leader: int | None


class WorkFile:
    """The work file, open and locked; use as a context manager, which commits however the work ends.

    Raises
    ------
    UserError
        if another process works with it, if it is no such file, or cannot be written
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = path.exists()  # True where there was one: an earlier run did not come to its end
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, timeout=1.0)
        except sqlite3.Error as error:
            raise self._described(error) from error
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.executescript(_TABLES)
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (_MADE_FOR,))
            connection.execute("UPDATE meta SET value = value")  # takes the lock, which is held to the end
            connection.commit()
            made_for = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()[0]
        except sqlite3.Error as error:
            connection.close()
            raise self._described(error) from error
        if made_for != _MADE_FOR:
            connection.close()
            raise UserError(f"{self.path} was left by another version of alflow; remove it and start anew")
        self._committed = time.monotonic()
        return connection

    def __enter__(self) -> WorkFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not isinstance(error, sqlite3.Error):
                self._connection.commit()  # every row stands for itself: what is there may stay
        except sqlite3.Error as failure:
            error = error or failure
        finally:
            self._connection.close()
        if isinstance(error, sqlite3.Error):
            raise self._described(error) from error

    def _described(self, error: sqlite3.Error) -> UserError:
        if "locked" in str(error):
            return UserError(f"{self.path} is in use: another alflow writes the same output; wait for it")
        if "not a database" in str(error) or "malformed" in str(error):
            return UserError(f"{self.path} is no work file of alflow, or damaged; remove it and start anew")
        return UserError(f"{self.path}: {error}; mend that, then the same command continues")

    def commit(self) -> None:
        """Keep what was done."""
        self._connection.commit()
        self._committed = time.monotonic()

    def commit_sometimes(self) -> None:
        """Keep what was done if the last commit is some seconds old."""
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    # -- input files -------------------------------------------------------------------------------------------------

    def set_sources(self, paths: Iterable[Path]) -> tuple[list[Source], list[str]]:
        """Take these files as the input, in this order; what was read of others and of changed ones is forgotten.

        Returns the sources, and a sentence on each file that was forgotten.
        """
        known = {row[1]: row for row in self._connection.execute("SELECT id, path, size, mtime, name FROM file")}
        notes = []
        wanted = {str(path.resolve()): path for path in paths}
        for key, row in known.items():
            if key not in wanted:
                self._connection.execute("DELETE FROM file WHERE id = ?", (row[0],))
                notes.append(f"{row[4]} is not among the files any more: forgotten")
            elif _state(wanted[key]) != (row[2], row[3]):
                self._connection.execute("DELETE FROM file WHERE id = ?", (row[0],))
                notes.append(f"{wanted[key]} has changed since it was read: read again")
        for position, (key, path) in enumerate(wanted.items()):
            self._connection.execute(
                "INSERT INTO file (path, name, position, size, mtime) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (path) DO UPDATE SET name = excluded.name, position = excluded.position",
                (key, str(path), position, *_state(path)),
            )
        rows = self._connection.execute("SELECT id, name, size, mtime FROM file ORDER BY position").fetchall()
        self.commit()
        return [Source(id=i, path=Path(name), size=size, mtime=mtime) for i, name, size, mtime in rows], notes

    def is_complete(self, source: Source) -> bool:
        """True where the whole file was read."""
        return bool(self._one("SELECT complete FROM file WHERE id = ?", source.id))

    def next_number(self, source: Source) -> int:
        """The frame with which reading has to go on."""
        read = self._one("SELECT max(number) FROM frame WHERE file = ?", source.id)
        bad = self._one("SELECT max(number) FROM unreadable WHERE file = ?", source.id)
        return 1 + max(-1 if read is None else read, -1 if bad is None else bad)

    def first_bad(self) -> tuple[str, BadFrame] | None:
        """The first frame that an earlier run left out, with the name of its file."""
        query = (
            "SELECT file.name, u.number, u.message FROM unreadable u JOIN file ON file.id = u.file "
            "ORDER BY file.position, u.number LIMIT 1"
        )
        row = self._connection.execute(query).fetchone()
        return None if row is None else (row[0], BadFrame(number=row[1], message=row[2]))

    def add(self, source: Source, frames: Iterable[ReadFrame | BadFrame]) -> None:
        """Store frames in the order of the file, so that whatever interrupts this, the last one says where to go on."""
        for frame in frames:
            if isinstance(frame, BadFrame):
                self._connection.execute(
                    "INSERT INTO unreadable VALUES (?, ?, ?)", (source.id, frame.number, frame.message)
                )
                continue
            self._connection.execute(
                "INSERT INTO frame (file, number, bucket, formula, n_atoms, hash, energy, fingerprint, structure) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    source.id,
                    frame.number,
                    frame.fingerprint.bucket,
                    frame.structure.formula,
                    frame.structure.n_atoms,
                    bytes.fromhex(frame.structure.content_hash),
                    frame.energy,
                    frame.fingerprint.to_bytes(),
                    frame.structure.to_bytes(),
                ),
            )
        self.commit_sometimes()

    def complete(self, source: Source) -> None:
        """Remember that a whole file was read."""
        self._connection.execute("UPDATE file SET complete = 1 WHERE id = ?", (source.id,))
        self.commit_sometimes()

    # -- grouping ----------------------------------------------------------------------------------------------------

    def begin_grouping(self, policy: DuplicatePolicy) -> bool:
        """Prepare decisions under a policy; True where an earlier run has taken some that still hold."""
        self._connection.execute("CREATE INDEX IF NOT EXISTS frame_bucket ON frame (bucket)")
        inputs = self._connection.execute("SELECT path, size, mtime FROM file ORDER BY position").fetchall()
        basis = json.dumps([policy.model_dump(mode="json"), inputs])
        same = self._one("SELECT value FROM meta WHERE key = 'grouping'") == basis
        if not same:
            self._connection.execute("DELETE FROM decision")
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('grouping', ?)", (basis,))
        lonely = "SELECT min(id) AS id FROM frame GROUP BY bucket HAVING count(*) = 1"
        self._connection.execute(f"INSERT OR IGNORE INTO decision (frame, leader) SELECT id, id FROM ({lonely})")  # noqa: S608  a constant
        self.commit()
        return same and self.n_decided > 0

    @property
    def n_read(self) -> int:
        """Structures that were read."""
        return int(self._one("SELECT count(*) FROM frame"))

    @property
    def n_decided(self) -> int:
        """Structures whose group is known."""
        return int(self._one("SELECT count(*) FROM decision"))

    def open_buckets(self) -> list[str]:
        """Buckets in which something is left to decide."""
        query = (
            "SELECT f.bucket FROM frame f LEFT JOIN decision d ON d.frame = f.id "
            "GROUP BY f.bucket HAVING count(*) > count(d.frame) ORDER BY f.bucket"
        )
        return [row[0] for row in self._connection.execute(query)]

    def members(self, bucket: str) -> list[Member]:
        """Structures of one bucket in canonical order, with what is decided already."""
        query = (
            "SELECT f.id, f.hash, d.leader FROM frame f JOIN file ON file.id = f.file "  # noqa: S608  constants
            f"LEFT JOIN decision d ON d.frame = f.id WHERE f.bucket = ? ORDER BY {_CANONICAL}"
        )
        return [Member(id=i, hash=h, leader=leader) for i, h, leader in self._connection.execute(query, (bucket,))]

    def structure(self, frame: int) -> Structure:
        """One structure."""
        return Structure.from_bytes(self._one("SELECT structure FROM frame WHERE id = ?", frame))

    def fingerprint(self, frame: int) -> Fingerprint:
        """The fingerprint of one structure."""
        return Fingerprint.from_bytes(self._one("SELECT fingerprint FROM frame WHERE id = ?", frame))

    def decision(self, frame: int) -> Decision:
        """What was decided on one structure."""
        row = self._connection.execute("SELECT * FROM decision WHERE frame = ?", (frame,)).fetchone()
        return Decision(**dict(zip(Decision.__dataclass_fields__, row, strict=True)))

    def decide(self, decision: Decision) -> None:
        """Store a decision."""
        d = decision
        self._connection.execute(
            "INSERT INTO decision VALUES (?, ?, ?, ?, ?, ?, ?)",
            (d.frame, d.leader, d.displacement, d.rms, d.strain, d.mirrored, d.copies),
        )
        self.commit_sometimes()

    def origin(self, frame: int) -> str:
        """File and number of a structure, as in the table."""
        query = "SELECT file.name || '#' || f.number FROM frame f JOIN file ON file.id = f.file WHERE f.id = ?"
        return str(self._one(query, frame))

    @cached_property
    def results(self) -> Results:
        """What the decisions amount to; to be asked for when every structure is decided on."""
        return Results(self._connection)

    # -- the end -----------------------------------------------------------------------------------------------------

    @property
    def publishing(self) -> bool:
        """True where an earlier run was about to put its outputs in place, so that they may be there already."""
        return self._one("SELECT value FROM meta WHERE key = 'publishing'") is not None

    def set_publishing(self, now: bool) -> None:
        """Remember that the outputs are about to be put in place, or are."""
        self._connection.execute("DELETE FROM meta WHERE key = 'publishing'")
        if now:
            self._connection.execute("INSERT INTO meta VALUES ('publishing', 'now')")
        self.commit()

    def _one(self, query: str, *values: Any) -> Any:
        row = self._connection.execute(query, values).fetchone()
        return None if row is None else row[0]


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
