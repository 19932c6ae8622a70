"""What the queue's two sides share: rows of jobs and attempts, who asked for a job, closing an attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, select, update

from alflow.errors import FailureKind, NotFoundError
from alflow.ledger import _tables as t
from alflow.ledger._engine import among, now, table_columns
from alflow.ledger._events import record
from alflow.ledger._rows import AttemptRow, JobRow, iso, maybe_iso
from alflow.ledger._states import AttemptState, CandidateState, JobState
from alflow.ledger._transitions import move
from alflow.ledger._types import AnyRow, plain


def select_jobs() -> Select[Any]:
    """Jobs with the formulas of their structures."""
    columns = [*table_columns(t.Job), t.Structure.formula]
    return select(*columns).join(t.Structure, t.Structure.id == t.Job.structure_id)


def job_row(row: AnyRow) -> JobRow:
    """Make the public row."""
    return JobRow(
        id=row.id,
        structure_id=row.structure_id,
        theory_id=row.theory_id,
        formula=row.formula,
        state=JobState(row.state),
        priority=-row.precedence + 0.0,
        fence=row.fence,
        worker=row.worker,
        lease_until=maybe_iso(row.lease_until),
        not_before=maybe_iso(row.not_before),
        attempts=row.attempts,
        infrastructure_failures=row.infrastructure_failures,
        failures=row.failures,
        deaths=row.deaths,
        error_kind=None if row.error_kind is None else FailureKind(row.error_kind),
        message=row.message,
        created=iso(row.created),
        updated=iso(row.updated),
    )


def attempt_row(row: AnyRow) -> AttemptRow:
    """Make the public row."""
    return AttemptRow(
        id=row.id,
        job_id=row.job_id,
        fence=row.fence,
        worker=row.worker,
        host=row.host,
        boot_id=row.boot_id,
        pid=row.pid,
        pid_started=row.pid_started,
        process_group=row.process_group,
        scheduler_id=row.scheduler_id,
        directory=row.directory,
        numerics=row.numerics,
        state=AttemptState(row.state),
        error_kind=None if row.error_kind is None else FailureKind(row.error_kind),
        message=row.message,
        timings=row.timings,
        started=iso(row.started),
        finished=maybe_iso(row.finished),
    )


def lock_jobs(connection: Connection, ids: Sequence[int]) -> list[AnyRow]:
    """Jobs in the order of their ids, held until the transaction ends; raises NotFoundError."""
    query = select_jobs().where(among(connection, t.Job.id, ids)).order_by(t.Job.id).with_for_update(of=t.Job)
    rows = list(connection.execute(query))
    missing = set(ids) - {row.id for row in rows}
    if missing:
        raise NotFoundError(f"no job with id {min(missing)} in the ledger; `alflow queue ls` lists them")
    return rows


def change_job(connection: Connection, job_id: int, **values: Any) -> None:
    """Set columns of a job."""
    connection.execute(update(t.Job).where(t.Job.id == job_id).values(updated=now(connection), **values))


def close_attempt(
    connection: Connection,
    job_id: int,
    fence: int,
    state: AttemptState,
    *,
    kind: FailureKind | None = None,
    message: str = "",
    timings: Mapping[str, Any] | None = None,
    log_id: int | None = None,
) -> int | None:
    """End the attempt of a fence unless it has ended; return its id."""
    where = (t.Attempt.job_id == job_id, t.Attempt.fence == fence)
    attempt_id = connection.scalar(select(t.Attempt.id).where(*where))
    connection.execute(
        update(t.Attempt)
        .where(*where, t.Attempt.finished.is_(None))
        .values(
            state=state,
            error_kind=kind,
            message=message,
            timings=plain(timings or {}),
            log_id=log_id,
            finished=now(connection),
        )
    )
    return None if attempt_id is None else int(attempt_id)


def release_job(connection: Connection, job: AnyRow, how: str, *, actor: str) -> None:
    """Take a job from its worker, which cannot write any more, and queue it again."""
    close_attempt(connection, job.id, job.fence, AttemptState.RELEASED, message=how)
    change_job(
        connection,
        job.id,
        state=JobState.QUEUED,
        fence=job.fence + 1,
        worker=None,
        lease_until=None,
        not_before=None,
    )
    record(connection, "released", f"job {job.id} ({job.formula}) was {how}", job_id=job.id, actor=actor)


def requesting(connection: Connection, job_id: int, states: Sequence[CandidateState]) -> list[int]:
    """Candidates in one of the states, of any campaign, that still want a job's label."""
    query = (
        select(t.Candidate.id)
        .join(t.JobRequest, t.JobRequest.candidate_id == t.Candidate.id)
        .where(
            t.JobRequest.job_id == job_id,
            t.JobRequest.cancelled.is_(None),
            t.Candidate.state.in_([str(s) for s in states]),
        )
        .order_by(t.Candidate.id)
    )
    return list(connection.scalars(query))


def move_requesting(connection: Connection, job_id: int, to: CandidateState, reason: str, *, actor: str) -> list[int]:
    """Bring the queued candidates that want a job's label into a state."""
    ids = requesting(connection, job_id, [CandidateState.QUEUED])
    return move(connection, ids, to, [reason] * len(ids), actor=actor, job_id=job_id)
