"""Copying a whole ledger into another database: to PostgreSQL when more machines join, or back into one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
from sqlalchemy import JSON, Connection, Table, Text, cast, func, select, text
from sqlalchemy.exc import DBAPIError

from alflow.errors import CampaignBusyError, LedgerError, NotFoundError, UserError
from alflow.ledger import _tables as t
from alflow.ledger._base import Base
from alflow.ledger._campaigns import driver_text
from alflow.ledger._copy_files import CopyProgress, Counter, copy_files, some
from alflow.ledger._engine import Database, now
from alflow.ledger._ledger import _FILES_VARIABLE, files_directory
from alflow.ledger._migrate import check_version, create_or_upgrade, exists
from alflow.ledger._rows import clock
from alflow.ledger._states import HELD_JOBS

_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class CopyReport:
    """What was copied, all of it compared with its source.

    Attributes
    ----------
    source, target
        URLs without passwords
    directory
        where the files of the copy lie
    rows, digests
        per table: the number of rows, and a digest of their content that does not depend on the database
    files, file_bytes
        files that the rows name
    """

    source: str
    target: str
    directory: Path
    rows: Mapping[str, int]
    digests: Mapping[str, str]
    files: int
    file_bytes: int


def copy_ledger(
    source_url: str,
    target_url: str,
    *,
    directory: Path | str | None = None,
    progress: CopyProgress | None = None,
) -> CopyReport:
    """Copy a ledger with its files into an empty database, and leave the source as it is.

    The source is read as one snapshot, and everything is written in one transaction, which is committed only when both
    sides hold the same rows, bit for bit: whatever interrupts it, the target stays empty and the same call works again.
    Leases and fences are copied as they are, so a worker that was given up for dead cannot write to the copy either.

    Parameters
    ----------
    source_url, target_url
        of SQLite files or PostgreSQL databases, in any combination
    directory
        where the files of the copy go; None: beside an SQLite file, else where ``ALFLOW_LEDGER_FILES`` says
    progress
        told how far the copy is, after every file and every thousand rows

    Raises
    ------
    NotFoundError
        if there is no source
    LedgerVersionError
        if the source is of another version (``alflow db upgrade`` helps), or one of the databases is not alflow's
    CampaignBusyError
        if a campaign of the source is being driven
    UserError
        if the target holds something, workers hold jobs of the source, or the folder of the files is not known
    LedgerError
        if a database refuses, a file is missing, the source changed meanwhile, or both sides differ in the end
    """
    tell = progress or _say_nothing
    source, target = Database(source_url), Database(target_url)
    with _closed_afterwards(source, target):
        _require_ledger(source)
        folder = _target_folder(target, directory)
        _refuse_used(target)
        with _snapshot(source) as connection:
            state = _state(connection)
            _refuse_busy(connection, source.shown_url)
            files, size = copy_files(connection, files_directory(source), folder, tell)
            digests = _copy_rows(source, connection, target, state, tell)
    return CopyReport(
        source=source.shown_url,
        target=target.shown_url,
        directory=folder,
        rows=state.rows,
        digests=digests,
        files=files,
        file_bytes=size,
    )


def _say_nothing(_what: str, _done: int, _total: int) -> None:
    pass


@contextmanager
def _closed_afterwards(source: Database, target: Database) -> Iterator[None]:
    """Close both, and remove the SQLite file that a failed copy has made."""
    fresh = target.path is not None and not target.path.exists()
    try:
        yield
    except BaseException:
        target.close()
        if fresh and target.path is not None:
            for suffix in ("", "-wal", "-shm"):
                target.path.with_name(f"{target.path.name}{suffix}").unlink(missing_ok=True)
        raise
    finally:
        source.close()
        target.close()


# -- the source ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _State:
    """What tells that somebody has written: every change adds a row, leaves an event or raises a fence."""

    rows: Mapping[str, int]
    marks: tuple[int, ...]


def _state(connection: Connection) -> _State:
    rows = {table.name: _count(connection, table) for table in Base.metadata.sorted_tables}
    queries = (select(func.max(t.Event.id)), select(func.sum(t.Campaign.fence)), select(func.sum(t.Job.fence)))
    return _State(rows=rows, marks=tuple(int(connection.scalar(query) or 0) for query in queries))


def _count(connection: Connection, table: Table) -> int:
    return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def _require_ledger(database: Database) -> None:
    if not exists(database):
        raise NotFoundError(f"there is no ledger at {database.shown_url}")
    check_version(database)


@contextmanager
def _snapshot(database: Database) -> Iterator[Connection]:
    with database.read() as connection:
        if not database.is_sqlite:  # there a read is a snapshot anyway
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        yield connection


def _refuse_busy(connection: Connection, shown: str) -> None:
    time = now(connection)
    driven = connection.execute(
        select(t.Campaign.name, t.Campaign.lease_owner, t.Campaign.lease_until).where(t.Campaign.lease_until > time)
    ).first()
    if driven is not None:
        raise CampaignBusyError(
            f"campaign {driven.name} of {shown} is driven by {driver_text(driven.lease_owner)}: stop that run and "
            f"copy again; if it was killed, its lease ends at {clock(driven.lease_until)} "
            f"(in {driven.lease_until - time:.0f} s)"
        )
    held = select(t.Job.worker, t.Job.lease_until).where(
        t.Job.state.in_([str(state) for state in HELD_JOBS]), t.Job.lease_until > time
    )
    jobs = connection.execute(held.order_by(t.Job.worker)).all()
    if jobs:
        workers = list(dict.fromkeys(str(job.worker) for job in jobs))
        until = max(job.lease_until for job in jobs)
        raise UserError(
            f"{len(jobs)} job{'s' if len(jobs) > 1 else ''} of {shown} {'are' if len(jobs) > 1 else 'is'} held by "
            f"{some(workers)}: stop the workers, which give their jobs back, and copy again; if they were killed, "
            f"their leases end at {clock(until)} (in {until - time:.0f} s)"
        )


def _refuse_changed(source: Database, before: _State) -> None:
    # a connection of its own: the other one still looks at the snapshot
    database = Database(source.url)
    try:
        with database.read() as connection:
            _refuse_busy(connection, database.shown_url)
            if _state(connection) != before:
                raise LedgerError(
                    f"{database.shown_url} was changed while it was copied: let nobody work on it and copy again; "
                    "the target is empty as before"
                )
    finally:
        database.close()


# -- the target ----------------------------------------------------------------------------------------------------


def _target_folder(target: Database, directory: Path | str | None) -> Path:
    if directory is not None:
        return Path(directory).absolute()
    if target.path is None and not os.environ.get(_FILES_VARIABLE):
        raise UserError(
            f"a ledger in PostgreSQL needs a folder for its files that all machines share: name it with --files, "
            f"or set {_FILES_VARIABLE}"
        )
    return files_directory(target)


def _refuse_used(target: Database) -> None:
    try:
        found = exists(target)
    except LedgerError as error:
        if target.is_sqlite or "does not exist" not in str(error):
            raise
        url = target.url
        given = (("host", url.host), ("port", url.port), ("username", url.username))
        options = "".join(f"--{name}={value} " for name, value in given if value is not None)
        raise NotFoundError(f"{error}; make an empty one first: createdb {options}{url.database}") from error
    if found:
        check_version(target)
        with target.read() as connection:
            _refuse_rows(connection, target.shown_url)
    elif target.path is not None and not target.path.parent.is_dir():
        raise NotFoundError(f"there is no folder {target.path.parent} for {target.path.name}: create it first")


def _refuse_rows(connection: Connection, shown: str) -> None:
    used = [table.name for table in Base.metadata.sorted_tables if _count(connection, table)]
    if used:
        raise UserError(f"{shown} is not empty, it has rows of {some(used)}: name an empty database for the copy")


@contextmanager
def _one_transaction(target: Database) -> Iterator[Connection]:
    """Write into new tables that nobody else sees before all of it is there."""
    target.use_write_ahead_log()
    # rows may refer to later ones of their own table: PostgreSQL checks at the end of its COPY, SQLite is asked below
    target.enforce_foreign_keys = False
    with target.write() as connection:
        create_or_upgrade(target)
        if not target.is_sqlite:
            names = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
            connection.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))
        _refuse_rows(connection, target.shown_url)
        yield connection


def _settle(connection: Connection) -> None:
    """Make a ledger of the rows: their references hold, and new rows are numbered after them."""
    if connection.dialect.name == "sqlite":  # numbers rows by itself
        broken = connection.execute(text("PRAGMA foreign_key_check")).first()
        if broken is not None:
            raise LedgerError(f"a row of {broken[0]} refers to a missing row of {broken[2]}; nothing was copied")
        return
    statement = text("SELECT setval(pg_get_serial_sequence(:name, :key), :top)")
    for table in Base.metadata.sorted_tables:
        key = table.autoincrement_column
        top = None if key is None else connection.scalar(select(func.max(key)))
        if key is not None and top is not None:
            connection.execute(statement, {"name": f'"{table.name}"', "key": key.name, "top": top})
    connection.execute(text("ANALYZE"))


# -- rows ------------------------------------------------------------------------------------------------------------


def _copy_rows(
    source: Database, snapshot: Connection, target: Database, state: _State, tell: CopyProgress
) -> dict[str, str]:
    tables, total = Base.metadata.sorted_tables, sum(state.rows.values())
    with _one_transaction(target) as into:
        sent = {}
        done = Counter("rows", total, tell)
        for table in tables:
            digest = sent[table.name] = _Digest()
            batches = done.count(digest.add(_explained(source, _batches(snapshot, table))))
            _insert(into, table, batches, target.shown_url)
        done = Counter("comparison", total, tell)
        for table in tables:
            found = _Digest()
            for _ in done.count(found.add(_batches(into, table))):
                pass
            if found != sent[table.name] or found.rows != state.rows[table.name]:
                raise LedgerError(
                    f"table {table.name} came out differently in {target.shown_url} ({found.rows} rows of "
                    f"{state.rows[table.name]}); nothing was kept: please report this"
                )
        _settle(into)
        _refuse_changed(source, state)
    return {name: str(digest) for name, digest in sent.items()}


def _batches(connection: Connection, table: Table) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Rows of a table as plain values that both databases take; JSON as the very text that is stored."""
    columns = [cast(c, Text) if isinstance(c.type, JSON) else c for c in table.columns]
    query = select(*columns).order_by(*table.primary_key.columns).execution_options(yield_per=_BATCH)
    for batch in connection.execute(query).partitions():
        yield [tuple(row) for row in batch]


def _explained(source: Database, batches: Iterable[Sequence[tuple[Any, ...]]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    # inside the transaction of the target its errors would be taken for the target's
    try:
        yield from batches
    except DBAPIError as error:
        raise LedgerError(f"the ledger {source.shown_url} cannot be read: {error.orig}") from error


def _insert(into: Connection, table: Table, batches: Iterable[Sequence[tuple[Any, ...]]], shown: str) -> None:
    # speaks to the drivers: ten times faster than SQLAlchemy, and the values are plain already
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    if into.dialect.name == "sqlite":
        marks = ", ".join("?" * len(table.columns))
        statement = f'INSERT INTO "{table.name}" ({names}) VALUES ({marks})'  # noqa: S608  our own names
        for batch in batches:
            into.exec_driver_sql(statement, list(batch))
        return
    cursor: Any = into.connection.cursor()
    try:
        with cursor.copy(f'COPY "{table.name}" ({names}) FROM STDIN') as copy:
            for batch in batches:
                for row in batch:
                    copy.write_row(row)
    except into.dialect.loaded_dbapi.Error as error:
        raise LedgerError(f"{shown} refused rows of table {table.name}: {error}") from error
    finally:
        cursor.close()


class _Digest:
    """The content of a table: the sum of its rows' SHA-256, which no order of rows changes.

    The databases may sort text differently, so their orders cannot be compared; and SQLite has no negative zero.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, batches: Iterable[Sequence[tuple[Any, ...]]]) -> Iterator[Sequence[tuple[Any, ...]]]:
        """Take account of batches as they pass."""
        pack, digest = msgpack.packb, hashlib.sha256
        for batch in batches:
            self.rows += len(batch)
            for row in batch:
                same = [value + 0.0 if isinstance(value, float) else value for value in row]  # -0.0 becomes 0.0
                self._sum += int.from_bytes(digest(pack(same)).digest(), "big")
            yield batch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Digest) and str(self) == str(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __str__(self) -> str:
        return f"{self._sum % (1 << 256):064x}"
