"""The schema's version: creating a ledger, upgrading it, and refusing one that this alflow does not speak."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from alflow.errors import LedgerError, LedgerVersionError, NotFoundError
from alflow.ledger._engine import Database

if TYPE_CHECKING:
    from alembic.config import Config

#: the newest revision in alembic/versions; a test compares the two, for alembic is imported only to migrate
HEAD = "0005"
_LOCK = 0x616C666C6F77  # "alflow": one migration at a time on PostgreSQL


def alembic_config(connection: Connection) -> Config:
    """Configuration that finds the migrations in the installed package as well as in a checkout."""
    from alembic.config import Config

    config = Config(stdout=sys.stdout)  # its own default is what stdout was when alembic was first imported
    config.set_main_option("script_location", "alflow:migrations")
    config.attributes["connection"] = connection
    return config


def schema_version(connection: Connection) -> str | None:
    """Revision of the schema; None for a database without one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if version is None else str(version)


def check_version(database: Database) -> None:
    """Refuse a database whose schema is not this alflow's.

    Raises
    ------
    LedgerVersionError
        naming the command that helps
    """
    with database.read() as connection:
        version = schema_version(connection)
        tables = inspect(connection).get_table_names() if version is None else []
    if version == HEAD:
        return
    shown = database.shown_url
    if version is None and tables:
        raise LedgerVersionError(
            f"{shown} holds other tables ({', '.join(sorted(tables)[:3])}) and is no ledger of alflow"
        )
    if version is None:
        raise LedgerVersionError(f"{shown} is empty; `alflow db upgrade --ledger {shown}` makes a ledger of it")
    if version < HEAD:
        raise LedgerVersionError(
            f"{shown} has schema {version}, this alflow needs {HEAD}: `alflow db backup --ledger {shown}`, "
            f"then `alflow db upgrade --ledger {shown}`"
        )
    raise LedgerVersionError(f"{shown} has schema {version}, newer than {HEAD} of this alflow: upgrade alflow")


def exists(database: Database) -> bool:
    """Whether there is a database with a schema, ours or not; makes no file."""
    path = database.path
    if path is not None and (not path.exists() or path.stat().st_size == 0):
        return False
    with database.read() as connection:
        return bool(inspect(connection).get_table_names())


def create_or_upgrade(database: Database) -> tuple[str | None, str]:
    """Bring the schema to this alflow's version in one transaction; return the versions before and after.

    Processes that come at the same time wait for the first and find its work done.
    """
    path = database.path
    if path is not None and not path.parent.is_dir():
        raise NotFoundError(f"there is no folder {path.parent} for the ledger {path.name}: create it first")
    database.use_write_ahead_log()
    with _deferred_foreign_keys(database), database.write() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = schema_version(connection)
        if before is not None and before > HEAD:
            raise LedgerVersionError(
                f"{database.shown_url} has schema {before}, newer than {HEAD} of this alflow: upgrade alflow"
            )
        if before is None and (foreign := inspect(connection).get_table_names()):
            raise LedgerVersionError(
                f"{database.shown_url} holds other tables ({', '.join(sorted(foreign)[:3])}): choose another"
            )
        if before != HEAD:
            from alembic import command

            command.upgrade(alembic_config(connection), "head")
            if database.is_sqlite:
                broken = connection.execute(text("PRAGMA foreign_key_check")).first()
                if broken is not None:
                    raise LedgerError(f"the upgrade would break a reference of table {broken[0]}; nothing was changed")
        after = schema_version(connection)
    if after != HEAD:
        raise LedgerError(f"the migrations ended at {after} instead of {HEAD}: the installation of alflow is damaged")
    return before, after


@contextlib.contextmanager
def _deferred_foreign_keys(database: Database) -> Iterator[None]:
    # rebuilding a table on SQLite drops the old one: its children's references are checked once, at the end
    database.enforce_foreign_keys = False
    try:
        yield
    finally:
        database.enforce_foreign_keys = True
