"""Connections and transactions: one writer at a time on SQLite, readers that never wait, nested blocks that join."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Connection, create_engine, event, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.sql.expression import any_

from alflow.errors import LedgerError, LedgerUnavailableError, UserError
from alflow.ledger._interrupts import Interrupts, interrupts_put_off
from alflow.ledger._types import clock, to_json

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import InstrumentedAttribute

    from alflow.ledger._base import Base

BUSY_SECONDS = 30.0
#: a server that vanished without a word (its machine is off, the network is cut) is noticed after about a minute;
#: the system's own defaults are two hours. Whatever the URL says comes first.
CONNECTION_SETTINGS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
#: what PostgreSQL says while it shuts down, crashes or starts
_AWAY = frozenset({"57P01", "57P02", "57P03"})
#: what PostgreSQL and SQLite say when a disk is full
_FULL = frozenset({"53100", "SQLITE_FULL"})
#: content hashes are scattered over their whole index: a cache of 64 MiB (in KiB, negative) holds most of it, and a
#: write-ahead log of that size, in pages, is written back once for many writes to the same page
SQLITE_SETTINGS = {"cache_size": -65536, "wal_autocheckpoint": 16384}
#: bulk writes are cut into transactions of about this length, so that heartbeats pass between them
CHUNK_SECONDS = 0.1


class Database:
    """The engines behind a ledger, and the transaction each thread is in.

    Parameters
    ----------
    url
        ``sqlite:///path`` or ``postgresql+psycopg://user@host/name``

    Raises
    ------
    UserError
        for a URL of another kind
    LedgerError
        if nobody here may read the file, or only where SQLite could write beside it
    """

    def __init__(self, url: str | URL) -> None:
        self.url = parse_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._local = threading.local()
        self._pid = os.getpid()
        #: False only while a migration rebuilds tables (SQLite)
        self.enforce_foreign_keys = True
        self._writer = self._engine(self.url, write=True)
        #: what a file that is read as one that never changes looked like; None where SQLite sees to it itself
        self._sealed: tuple[int, int] | None = None
        self._reader = self._engine(self._reading_url(), write=False) if self.is_sqlite else self._writer

    @property
    def shown_url(self) -> str:
        """The URL without its password, for messages."""
        query = {k: "***" if k.lower().endswith("password") else v for k, v in self.url.query.items()}
        return self.url.set(query=query).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")

    def connect_arguments(self) -> dict[str, Any]:
        """What the URL says to PostgreSQL's client library, the password among it."""
        _, arguments = self._writer.dialect.create_connect_args(self.url)
        return {name: value for name, value in arguments.items() if isinstance(value, str | int)}

    @property
    def path(self) -> Path | None:
        """File of a SQLite database."""
        return Path(str(self.url.database)).absolute() if self.is_sqlite else None

    def _reading_url(self) -> URL:
        """Where to read a SQLite file: as it is, or as one that never changes where it may not be written.

        Readers write, too: the log (-wal) and its index (-shm) beside the file, which they make where there is none. A
        folder that may not be written has no place for them; where it has, they would belong to the reader and lock the
        file's owner out. What is there already can be read; without it the file alone is the ledger.
        """
        path = self.path
        assert path is not None
        if not path.exists() or why_unwritable(path) is None:
            return self.url
        if not os.access(path, os.R_OK):
            raise LedgerError(f"the ledger {path} cannot be read: ask its owner for permission")
        log, index = (path.with_name(f"{path.name}-{end}") for end in ("wal", "shm"))
        if log.exists() and index.exists():
            return self.url
        if log.exists() and log.stat().st_size:
            raise LedgerError(
                f"{log.name} holds what the last writer of {path} had no time to store, and only who may write there "
                f"can read it: copy {path.name}, {log.name} and {path.name}.files to a folder of your own"
            )
        self._sealed = _state_of(path)
        return self.url.set(database=path.as_uri(), query={"uri": "true", "mode": "ro", "immutable": "1"})

    def _refuse_changed(self) -> None:
        if self.path is not None and self._sealed not in {None, _state_of(self.path)}:
            raise LedgerError(f"the ledger {self.path} was written to while it was read: repeat the command")

    def _engine(self, url: URL, *, write: bool) -> Engine:
        if not self.is_sqlite:
            settings = {name: value for name, value in CONNECTION_SETTINGS.items() if name not in url.query}
            return create_engine(url, json_serializer=to_json, pool_pre_ping=True, connect_args=settings)
        engine = create_engine(url, json_serializer=to_json, connect_args={"timeout": BUSY_SECONDS})

        @event.listens_for(engine, "do_connect")
        def _refuse(*_: Any) -> None:
            obstacle = why_unwritable(Path(str(url.database)).absolute()) if write else None
            if obstacle is not None:
                raise LedgerError(obstacle)

        @event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # we say BEGIN ourselves: the driver would begin too late and too weakly
            connection.execute(f"PRAGMA query_only = {'OFF' if write else 'ON'}")
            for setting, value in SQLITE_SETTINGS.items():
                connection.execute(f"PRAGMA {setting} = {value}")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            # a read that upgrades to a write fails at once, whatever the timeout: writers take the lock first
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

        @event.listens_for(engine, "invalidate")
        def _roll_back(connection: Any, _record: Any, _error: Any) -> None:
            # a closed connection whose statements are not finished keeps its lock until they are collected
            with suppress(sqlite3.Error):
                connection.rollback()

        return engine

    def use_write_ahead_log(self) -> None:
        """Let readers pass writers (SQLite); the mode is a property of the file, set once when it is created.

        Raises
        ------
        LedgerError
            if the file cannot be written
        """
        if self.is_sqlite:
            try:
                with closing(self._writer.raw_connection()) as raw:
                    raw.cursor().execute("PRAGMA journal_mode = WAL")
            except sqlite3.Error as error:
                raise LedgerError(f"the ledger {self.shown_url} refused: {error}") from error

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """One writing transaction; a block inside another block of the same thread joins it as a savepoint.

        Parameters
        ----------
        durable
            False where losing the last commits in a power cut is harmless because the step repeats them
            (proposals, scores, heartbeats); the outermost block decides

        Raises
        ------
        LedgerError
            if the database refuses, stays locked or may not be written
        LedgerUnavailableError
            if it cannot be reached, the connection is lost, or its disk is full; a commit that was under way may have
            taken effect
        """
        current: Connection | None = getattr(self._local, "write", None)
        if current is not None:
            with interrupts_put_off() as interrupts, current.begin_nested(), _body(interrupts):
                yield current
            return
        if getattr(self._local, "read", None) is not None:
            raise LedgerError("a write inside a read block of the same thread would see stale rows: write first")
        self._leave_parent_connections()
        try:
            with interrupts_put_off() as interrupts, self._writer.connect() as connection:
                if self.is_sqlite:
                    raw = connection.connection.driver_connection
                    assert raw is not None
                    # both are settings of the connection and cannot be changed inside a transaction
                    raw.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    raw.execute(f"PRAGMA foreign_keys = {'ON' if self.enforce_foreign_keys else 'OFF'}")
                with connection.begin():
                    self._local.write = connection
                    try:
                        with _body(interrupts, connection):
                            yield connection
                    finally:
                        self._local.write = None
        except DBAPIError as error:
            raise self._explain(error) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One view (SQLite: a snapshot); inside a write block of this thread it sees that block's changes.

        Raises
        ------
        LedgerError
            if the database refuses, or a file that was taken for one that never changes did change
        LedgerUnavailableError
            if the database cannot be reached or the connection is lost
        """
        current: Connection | None = getattr(self._local, "write", None) or getattr(self._local, "read", None)
        if current is not None:
            yield current
            return
        self._leave_parent_connections()
        try:
            with interrupts_put_off() as interrupts, self._reader.connect() as connection, connection.begin():
                self._local.read = connection
                try:
                    with _body(interrupts, connection):
                        yield connection
                finally:
                    self._local.read = None
        except DBAPIError as error:
            self._refuse_changed()
            raise self._explain(error) from error
        self._refuse_changed()

    @property
    def in_write(self) -> bool:
        """Whether this thread is inside a write block."""
        return getattr(self._local, "write", None) is not None

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._writer.dispose()
        self._reader.dispose()

    def _leave_parent_connections(self) -> None:
        # a forked child must not speak on its parent's connections, nor close them
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._local = threading.local()
            self._writer.dispose(close=False)
            self._reader.dispose(close=False)

    def _explain(self, error: DBAPIError) -> LedgerError:
        if _is_full(error):
            return LedgerUnavailableError(f"the ledger {self.shown_url} cannot be written: its disk is full")
        if not self.is_sqlite and _is_away(error):
            reason = str(error.orig).partition("\n")[0]
            return LedgerUnavailableError(f"the ledger {self.shown_url} cannot be reached: {reason}")
        return LedgerError(f"the ledger {self.shown_url} refused: {error.orig}")


@contextmanager
def _body(interrupts: Interrupts, connection: Connection | None = None) -> Iterator[None]:
    """What a transaction is for: here a signal may interrupt; the connection it may have hit at work is given up."""
    try:
        interrupts.let_through()
        yield
    except BaseException as error:
        interrupts.put_off()
        if connection is not None and not connection.closed and not isinstance(error, Exception):
            connection.invalidate()
        raise
    finally:
        interrupts.put_off()


def _is_full(error: DBAPIError) -> bool:
    """True where the database's disk has no room, so that the same may succeed when somebody makes some."""
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None)
    return state in _FULL


def _is_away(error: DBAPIError) -> bool:
    """True where the server or the connection is gone, so that the same may succeed later.

    An error without a state of the server's own comes from the connection: it was lost, or could not be made.
    """
    state = getattr(error.orig, "sqlstate", None)
    lost = state is None and isinstance(error, OperationalError | InterfaceError)
    return error.connection_invalidated or lost or state in _AWAY or (state or "").startswith("08")


def why_unwritable(path: Path) -> str | None:
    """Why a SQLite ledger may not be written, or made, by whoever asks, and what to do; None where it may.

    The folder counts as much as the file: the write-ahead log lies there.
    """
    if not path.exists():
        if not path.parent.exists() or os.access(path.parent, os.W_OK | os.X_OK):
            return None
        return (
            f"the folder {path.parent} cannot be written, so no ledger {path.name} can be made there: ask its owner "
            "for permission, or name another place (`ledger:` in the campaign file, or --ledger)"
        )
    for place in (path.parent, path):
        if not os.access(place, os.W_OK):
            return (
                f"{place} cannot be written, so the ledger {path} can only be read: ask its owner for permission, or "
                f"go on with a copy of your own (`alflow db backup --ledger {path} --output FILE`)"
            )
    return None


def _state_of(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def parse_url(url: str | URL) -> URL:
    """Check and complete a database URL; messages never hold its password.

    Raises
    ------
    UserError
        for anything but a SQLite file or a PostgreSQL database
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        # not chained: an unescaped password is taken for a port, and the cause would show it
        raise UserError(
            "the ledger's URL cannot be read; write sqlite:///campaign.db or postgresql+psycopg://user@host/name "
            "(in a password write %2F for /, %40 for @, %3A for :)"
        ) from None
    if backend == "sqlite":
        if parsed.database in {None, "", ":memory:"}:
            raise UserError("the ledger needs a file, for several processes work on it: write sqlite:///campaign.db")
        return parsed.set(drivername="sqlite")
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise UserError(f"a ledger lives in SQLite or PostgreSQL, not in {backend}: write sqlite:///campaign.db")


def now(connection: Connection) -> float:
    """The database's time, seconds since the epoch."""
    return float(connection.scalar(select(clock())) or 0.0)


def among(
    connection: Connection, column: ColumnElement[Any] | InstrumentedAttribute[Any], ids: Iterable[int]
) -> ColumnElement[bool]:
    """Condition that an integer column is one of ``ids``, as a single parameter however many they are."""
    values = [int(i) for i in ids]
    if connection.dialect.name == "sqlite":
        return column.in_(select(func.json_each(json.dumps(values)).table_valued("value").c.value))
    return column == any_(literal(values, type_=ARRAY(BigInteger)))


def insert_or_ignore(connection: Connection, table: type[Base]) -> Any:
    """INSERT that leaves an existing row as it is."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


def table_columns(table: type[Base]) -> list[Any]:
    """The columns of a table in their order, for plain rows instead of tracked objects."""
    return list(table.__table__.columns)
