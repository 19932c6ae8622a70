"""What is wrong with a ledger: contradictions between its rows, and between rows and files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, func, select, text

from alflow.ledger import _tables as t
from alflow.ledger._engine import Database
from alflow.ledger._states import HELD_JOBS, OPEN_JOBS, CandidateState, JobState, LabelQuality

_SHOWN = 5


def find_problems(database: Database, folder: Path) -> list[str]:
    """One sentence with its remedy per problem; empty for a sound ledger whose artifacts lie in ``folder``."""
    with database.read() as connection:
        return [
            *(_file_problems(connection) if database.is_sqlite else ()),
            *_state_problems(connection),
            *_artifact_problems(connection, folder),
        ]


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
