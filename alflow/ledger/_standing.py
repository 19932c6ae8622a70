"""Where a job stands, and the queue as a whole: what is needed to say why something waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, func, or_, select

from alflow.errors import FailureKind, NotFoundError
from alflow.ledger import _tables as t
from alflow.ledger._engine import now, table_columns
from alflow.ledger._jobs import attempt_row, job_row, select_jobs
from alflow.ledger._rows import AttemptRow, JobRow, iso, maybe_iso
from alflow.ledger._states import HELD_JOBS, AttemptState, CampaignState, CandidateState, JobState
from alflow.ledger._types import AnyRow

HOUR = 3600.0
_HELD = [str(state) for state in HELD_JOBS]
_GIVEN_UP = [str(JobState.FAILED), str(JobState.QUARANTINED)]
_CLOSED = [str(JobState.DONE), *_GIVEN_UP]
_UNKNOWN = "See `alflow queue ls --state failed`, then `alflow queue retry`."


@dataclass(frozen=True, kw_only=True)
class RequestRow:
    """A candidate that asks for a job, and how its campaign stands; ``withdrawn`` where it asks no more."""

    candidate_id: int
    candidate_state: CandidateState
    campaign_id: int
    campaign: str
    campaign_state: CampaignState
    campaign_reason: str
    driven_by: str | None
    withdrawn: str | None


@dataclass(frozen=True, kw_only=True)
class SeenWorker:
    """A worker that took a job, and when it last did something for one: workers that find nothing leave no trace."""

    worker: str
    host: str
    seen: str


@dataclass(frozen=True, kw_only=True)
class JobStanding:
    """A job with all that decides what becomes of it.

    Parameters
    ----------
    job, attempts, requests
        the job, its executions from the first to the last, who asked for it
    theory_name, labeler
        the theory
    now
        the database's time
    ahead
        how many jobs of the same theory are claimed before it; 0 unless it is queued
    under_way
        how many jobs of the same labeler workers hold
    workers
        who holds jobs of the same theory
    last_seen
        the last worker that took a job of the same theory; None where none ever did
    """

    job: JobRow
    attempts: tuple[AttemptRow, ...]
    requests: tuple[RequestRow, ...]
    theory_name: str | None
    labeler: str
    now: str
    ahead: int
    under_way: int
    workers: tuple[str, ...]
    last_seen: SeenWorker | None


@dataclass(frozen=True, kw_only=True)
class FailureCount:
    """Jobs that were given up for one typed cause, with the message of the newest and what to do about them."""

    kind: str
    count: int
    example: str
    suggestion: str = field(init=False)

    def __post_init__(self) -> None:
        known = self.kind in list(FailureKind)  # a newer alflow may have written causes that this one does not know
        text = FailureKind(self.kind).suggestion if known else _UNKNOWN
        object.__setattr__(self, "suggestion", text)


@dataclass(frozen=True, kw_only=True)
class QueueStanding:
    """The queue as a whole.

    Parameters
    ----------
    counts
        jobs in every state
    now
        the database's time
    oldest
        since when the oldest queued job exists; None without one
    next_retry
        when the first of the jobs that wait for their repetition may be claimed again; None without one
    waiting
        queued jobs by theory: id, name, labeler, number
    workers
        who holds how many jobs
    closed_last_hour
        how many jobs became a label or were given up in the last hour
    per_hour
        their rate since the first of them was begun, or in the last hour if that is longer ago; None without one
    failures
        jobs that were given up, by cause, most frequent first
    """

    counts: Mapping[JobState, int]
    now: str
    oldest: str | None
    next_retry: str | None
    waiting: tuple[tuple[int, str | None, str, int], ...]
    workers: Mapping[str, int]
    closed_last_hour: int
    per_hour: float | None
    failures: tuple[FailureCount, ...]


def job_standing(connection: Connection, job_id: int) -> JobStanding:
    """Look at one job; raises NotFoundError."""
    row = connection.execute(select_jobs().where(t.Job.id == job_id)).first()
    if row is None:
        raise NotFoundError(f"no job with id {job_id} in the ledger; `alflow queue ls` lists them")
    job = job_row(row)
    theory = connection.execute(select(t.Theory.name, t.Theory.labeler).where(t.Theory.id == job.theory_id)).one()
    attempts = select(*table_columns(t.Attempt)).where(t.Attempt.job_id == job_id).order_by(t.Attempt.id)
    workers = select(t.Job.worker).where(t.Job.theory_id == job.theory_id, t.Job.state.in_(_HELD)).distinct()
    return JobStanding(
        job=job,
        attempts=tuple(attempt_row(a) for a in connection.execute(attempts)),
        requests=tuple(_requests(connection, job_id)),
        theory_name=theory.name,
        labeler=theory.labeler,
        now=iso(now(connection)),
        ahead=_ahead(connection, row) if job.state == JobState.QUEUED else 0,
        under_way=under_way(connection, [theory.labeler]).get(theory.labeler, 0),
        workers=tuple(sorted(worker for worker in connection.scalars(workers) if worker is not None)),
        last_seen=_last_seen(connection, job.theory_id),
    )


def under_way(connection: Connection, labelers: Sequence[str]) -> dict[str, int]:
    """How many jobs of each labeler are with workers; labelers without one are left out."""
    query = (
        select(t.Theory.labeler, func.count())
        .join(t.Job, t.Job.theory_id == t.Theory.id)
        .where(t.Job.state.in_(_HELD), t.Theory.labeler.in_(list(labelers)))
        .group_by(t.Theory.labeler)
    )
    return {labeler: int(n) for labeler, n in connection.execute(query)}


def queue_standing(connection: Connection, asked: Select[Any] | None) -> QueueStanding:
    """Look at all jobs, or at those whose ids a query selects."""
    mine = () if asked is None else (t.Job.id.in_(asked),)
    time = now(connection)
    found = dict(
        connection.execute(select(t.Job.state, func.count()).where(*mine).group_by(t.Job.state)).tuples().all()
    )
    waiting = (
        select(t.Theory.id, t.Theory.name, t.Theory.labeler, func.count())
        .join(t.Job, t.Job.theory_id == t.Theory.id)
        .where(t.Job.state == JobState.QUEUED, *mine)
        .group_by(t.Theory.id, t.Theory.name, t.Theory.labeler)
        .order_by(t.Theory.id)
    )
    workers = (
        select(t.Job.worker, func.count())
        .where(t.Job.state.in_(_HELD), *mine)
        .group_by(t.Job.worker)
        .order_by(t.Job.worker)
    )
    closed, rate = _rate(connection, time, mine)
    oldest = select(func.min(t.Job.created)).where(t.Job.state == JobState.QUEUED, *mine)
    retry = select(func.min(t.Job.not_before)).where(t.Job.state == JobState.RETRY_WAIT, *mine)
    return QueueStanding(
        counts={state: int(found.get(str(state), 0)) for state in JobState},
        now=iso(time),
        oldest=maybe_iso(connection.scalar(oldest)),
        next_retry=maybe_iso(connection.scalar(retry)),
        waiting=tuple((int(i), name, labeler, int(n)) for i, name, labeler, n in connection.execute(waiting)),
        workers={str(worker): int(n) for worker, n in connection.execute(workers)},
        closed_last_hour=closed,
        per_hour=rate,
        failures=tuple(count_failures(connection, asked)),
    )


def count_failures(connection: Connection, asked: Select[Any] | None) -> list[FailureCount]:
    """Jobs that were given up, by cause, most frequent first."""
    mine = () if asked is None else (t.Job.id.in_(asked),)
    cause = func.coalesce(t.Job.error_kind, "unknown")
    query = (
        select(cause, func.count(), func.max(t.Job.id))
        .where(t.Job.state.in_(_GIVEN_UP), *mine)
        .group_by(cause)
        .order_by(func.count().desc(), cause)
    )
    rows = connection.execute(query).all()
    said = select(t.Job.id, t.Job.message).where(t.Job.id.in_([newest for _, _, newest in rows]))
    messages = dict(connection.execute(said).tuples().all())
    return [FailureCount(kind=str(kind), count=int(n), example=messages[newest]) for kind, n, newest in rows]


def _requests(connection: Connection, job_id: int) -> list[RequestRow]:
    query = (
        select(
            t.Candidate.id,
            t.Candidate.state,
            t.Candidate.campaign_id,
            t.Campaign.name,
            t.Campaign.state.label("campaign_state"),
            t.Campaign.reason,
            t.Campaign.lease_owner,
            t.Campaign.lease_until,
            t.JobRequest.cancelled,
        )
        .join(t.JobRequest, t.JobRequest.candidate_id == t.Candidate.id)
        .join(t.Campaign, t.Campaign.id == t.Candidate.campaign_id)
        .where(t.JobRequest.job_id == job_id)
        .order_by(t.Candidate.id)
    )
    time = now(connection)
    return [
        RequestRow(
            candidate_id=row.id,
            candidate_state=CandidateState(row.state),
            campaign_id=row.campaign_id,
            campaign=row.name,
            campaign_state=CampaignState(row.campaign_state),
            campaign_reason=row.reason,
            driven_by=row.lease_owner if row.lease_until is not None and row.lease_until > time else None,
            withdrawn=maybe_iso(row.cancelled),
        )
        for row in connection.execute(query)
    ]


def _ahead(connection: Connection, job: AnyRow) -> int:
    """In the order of claims: by precedence, then by id."""
    query = select(func.count()).where(
        t.Job.state == JobState.QUEUED,
        t.Job.theory_id == job.theory_id,
        or_(t.Job.precedence < job.precedence, (t.Job.precedence == job.precedence) & (t.Job.id < job.id)),
    )
    return int(connection.scalar(query) or 0)


def _last_seen(connection: Connection, theory_id: int) -> SeenWorker | None:
    query = (
        select(t.Attempt.worker, t.Attempt.host, t.Attempt.state, t.Attempt.started, t.Attempt.finished)
        .join(t.Job, t.Job.id == t.Attempt.job_id)
        .where(t.Job.theory_id == theory_id)
        .order_by(t.Attempt.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    if row is None:
        return None
    # the end of a lost attempt was written by somebody else
    ended = None if row.state == AttemptState.LOST else row.finished
    return SeenWorker(worker=row.worker, host=row.host, seen=iso(max(row.started, ended or row.started)))


def _rate(connection: Connection, time: float, mine: Sequence[Any]) -> tuple[int, float | None]:
    query = (
        select(func.count(func.distinct(t.Job.id)), func.min(t.Attempt.started))
        .join(t.Attempt, (t.Attempt.job_id == t.Job.id) & (t.Attempt.fence == t.Job.fence))
        .where(t.Job.state.in_(_CLOSED), t.Attempt.finished > time - HOUR, *mine)
    )
    closed, begun = connection.execute(query).one()
    if not closed:
        return 0, None
    return int(closed), HOUR * closed / max(min(time - begun, HOUR), 1.0)
