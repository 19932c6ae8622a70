"""Upkeep: what is wrong with a ledger, and a copy of it while others work."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, func, select, text

from alflow.errors import LedgerError, LedgerVersionError, NotFoundError, UserError
from alflow.ledger import _tables as t
from alflow.ledger._engine import Database
from alflow.ledger._ledger import files_directory
from alflow.ledger._migrate import check_version, exists
from alflow.ledger._states import HELD_JOBS, OPEN_JOBS, CandidateState, JobState, LabelQuality

_SHOWN = 5


def check_ledger(url: str, *, directory: Path | str | None = None) -> list[str]:
    """What is wrong with a ledger, one sentence with its remedy per problem; empty for a sound one.

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
        with database.read() as connection:
            return [
                *(_file_problems(connection) if database.is_sqlite else ()),
                *_state_problems(connection),
                *_artifact_problems(connection, folder),
            ]
    finally:
        database.close()


def _file_problems(connection: Connection) -> Iterator[str]:
    for (found,) in connection.execute(text("PRAGMA integrity_check(5)")):
        if found != "ok":
            yield f"the database file is damaged: {found}; restore a backup"
    broken = connection.execute(text("PRAGMA foreign_key_check")).first()
    if broken is not None:
        yield f"a row of {broken[0]} refers to a missing row of {broken[2]}; restore a backup"


def _state_problems(connection: Connection) -> Iterator[str]:
    asked = (
        select(t.JobRequest.candidate_id)
        .join(t.Job, t.Job.id == t.JobRequest.job_id)
        .where(t.JobRequest.cancelled.is_(None), t.Job.state.in_([str(s) for s in OPEN_JOBS]))
    )
    accepted = select(t.Label.structure_id).where(t.Label.quality == LabelQuality.ACCEPTED)
    checks = [
        (
            select(t.Candidate.id).where(t.Candidate.state == CandidateState.QUEUED, t.Candidate.id.not_in(asked)),
            "candidates are queued without an open job: {ids}; `alflow queue retry` brings their jobs back",
        ),
        (
            select(t.Candidate.id).where(
                t.Candidate.state == CandidateState.LABELLED, t.Candidate.structure_id.not_in(accepted)
            ),
            "candidates are labelled without an accepted label: {ids}; restore a backup",
        ),
        (
            select(t.Job.id).where(
                t.Job.state == JobState.DONE,
                ~select(t.Label.id)
                .where(
                    t.Label.structure_id == t.Job.structure_id,
                    t.Label.theory_id == t.Job.theory_id,
                    t.Label.quality == LabelQuality.ACCEPTED,
                )
                .exists(),
            ),
            "jobs are done without an accepted label: {ids}; restore a backup",
        ),
        (
            select(t.Job.id).where(t.Job.state.in_([str(s) for s in HELD_JOBS]), t.Job.lease_until.is_(None)),
            "jobs are held without a lease: {ids}; `alflow queue release` frees them",
        ),
    ]
    for query, problem in checks:
        count = connection.scalar(select(func.count()).select_from(query.subquery())) or 0
        if count:
            ids = [str(i) for i in connection.scalars(query.limit(_SHOWN))]
            yield f"{count} " + problem.format(ids=", ".join(ids) + ("…" if count > _SHOWN else ""))


def _artifact_problems(connection: Connection, folder: Path) -> Iterator[str]:
    rows = connection.execute(select(t.Artifact.id, t.Artifact.location, t.Artifact.size))
    missing = [
        i for i, place, size in rows if not (folder / place).is_file() or (folder / place).stat().st_size != size
    ]
    if missing:
        ids = ", ".join(map(str, missing[:_SHOWN]))
        yield f"{len(missing)} artifacts are missing or cut off in {folder}: {ids}; restore the folder from a backup"


def backup_ledger(url: str, path: Path | str) -> Path:
    """Copy a ledger, with its files, while others work on it; the copy appears complete or not at all.

    SQLite: a database file, with ``<path>.files`` beside it, which opens as a ledger itself. PostgreSQL: a dump of
    ``pg_dump --format=custom``; its files are copied beside it as well.

    Raises
    ------
    UserError
        if the target exists
    LedgerError
        if ``pg_dump`` is missing or fails
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
                _copy_sqlite(Path(str(database.path)), partial)
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


def _copy_sqlite(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new, pages=4096, sleep=0.01)
        new.execute("PRAGMA journal_mode = WAL")


def _dump_postgresql(database: Database, target: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise LedgerError("pg_dump is not installed; it comes with PostgreSQL's client programs")
    url = database.url
    command = [program, "--format=custom", f"--file={target}", f"--dbname={url.database}"]
    for option, value in (("host", url.host), ("port", url.port), ("username", url.username)):
        if value is not None:
            command.append(f"--{option}={value}")
    # the password goes by the environment: arguments can be read by everybody on the machine
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise LedgerError(f"pg_dump of {database.shown_url} failed: {done.stderr.strip()[-500:]}")
