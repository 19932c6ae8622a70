"""Upkeep: what is wrong with a ledger, and a copy of it while others work."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from alflow.errors import LedgerError, LedgerVersionError, NotFoundError, UserError
from alflow.ledger._check import find_problems
from alflow.ledger._engine import Database, why_unwritable
from alflow.ledger._ledger import files_directory
from alflow.ledger._migrate import check_version, exists


def check_ledger(url: str, *, directory: Path | str | None = None) -> list[str]:
    """What is wrong with a ledger, one sentence with its remedy per problem; empty for a sound one that may be written.

    Raises
    ------
    NotFoundError
        if there is no ledger
    """
    database = Database(url)
    try:
        if not exists(database):
            raise NotFoundError(f"there is no ledger at {database.shown_url}")
        try:
            check_version(database)
        except LedgerVersionError as error:
            return [str(error)]
        folder = Path(directory) if directory is not None else files_directory(database)
        unwritable = None if database.path is None else why_unwritable(database.path)
        return [*find_problems(database, folder), *([] if unwritable is None else [unwritable])]
    finally:
        database.close()


def backup_ledger(url: str, path: Path | str) -> Path:
    """Copy a ledger, with its files, while others work on it; the copy appears complete or not at all.

    SQLite: a database file, with ``<path>.files`` beside it, which opens as a ledger itself. PostgreSQL: a dump of
    ``pg_dump --format=custom``; its files are copied beside it as well.

    Raises
    ------
    UserError
        if the target exists
    LedgerError
        if the target cannot be written, or ``pg_dump`` is missing or fails
    """
    target = Path(path).absolute()
    files = target.with_name(f"{target.name}.files")
    for taken in (target, files):
        if taken.exists():
            raise UserError(f"{taken} exists; name another file for the backup")
    database = Database(url)
    try:
        if not exists(database):
            raise NotFoundError(f"there is no ledger at {database.shown_url}")
        source = files_directory(database)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        try:
            # the database first: files are only ever added, so the copy of the folder holds all that the rows name
            if database.is_sqlite:
                _copy_sqlite(database, partial)
            else:
                _dump_postgresql(database, partial)
            if source.is_dir():
                shutil.copytree(source, files, ignore=shutil.ignore_patterns("*.partial"))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    finally:
        database.close()
    return target


def _copy_sqlite(source: Database, target: Path) -> None:
    try:
        with source.read() as connection, closing(sqlite3.connect(target)) as new:
            old = connection.connection.driver_connection
            assert old is not None
            old.backup(new, pages=4096, sleep=0.01)
            new.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as error:
        raise LedgerError(f"{target} cannot be written ({error}): name another place for the backup") from error


def _dump_postgresql(database: Database, target: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise LedgerError("pg_dump is not installed; it comes with PostgreSQL's client programs")
    from psycopg.conninfo import make_conninfo

    arguments = database.connect_arguments()  # all of the URL: a socket's folder or sslmode stand in its query
    # the password goes by the environment: arguments can be read by everybody on the machine
    password = arguments.pop("password", None)
    environment = {**os.environ, **({"PGPASSWORD": str(password)} if password is not None else {})}
    command = [program, "--format=custom", f"--file={target}", f"--dbname={make_conninfo(**arguments)}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise LedgerError(f"pg_dump of {database.shown_url} failed: {done.stderr.strip()[-500:]}")
