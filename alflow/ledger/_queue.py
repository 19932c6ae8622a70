"""The queue as the loop and people see it: who asks for which label, and what a person may change."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select, update

from alflow.errors import FailureKind, NotFoundError, TransitionError
from alflow.ledger import _tables as t
from alflow.ledger._claims import Claims
from alflow.ledger._engine import insert_or_ignore, now, table_columns
from alflow.ledger._events import record
from alflow.ledger._jobs import (
    attempt_row,
    change_job,
    close_attempt,
    job_row,
    lock_jobs,
    release_job,
    requesting,
    select_jobs,
)
from alflow.ledger._labels import find_accepted
from alflow.ledger._rows import AttemptRow, JobRow
from alflow.ledger._standing import (
    FailureCount,
    JobStanding,
    QueueStanding,
    count_failures,
    job_standing,
    queue_standing,
)
from alflow.ledger._states import (
    HELD_JOBS,
    JOB_TRANSITIONS,
    OPEN_JOBS,
    AttemptState,
    CandidateState,
    JobState,
    check_transition,
)
from alflow.ledger._theories import select_theory
from alflow.ledger._transitions import move
from alflow.ledger._types import AnyRow

_FRESH = {
    "infrastructure_failures": 0,
    "failures": 0,
    "deaths": 0,
    "error_kind": None,
    "message": "",
    "not_before": None,
}


class Queue(Claims):
    """The jobs of a ledger: one per structure and theory, whoever asks for it."""

    def enqueue(self, structure_id: int, theory_id: int, candidate_id: int, *, priority: float = 0.0) -> JobRow:
        """Ask for a label on behalf of a selected candidate, which becomes queued; repeating it changes nothing.

        Where the label exists already the candidate becomes labelled at once; where another campaign's job for it
        failed, the candidate shares that verdict until a person retries the job.

        Raises
        ------
        TransitionError
            if the candidate is neither selected nor queued, or is of another structure
        """
        with self._database.write() as connection:
            self._check_structure(connection, candidate_id, structure_id)
            theory = select_theory(connection, theory_id)
            new = {
                "structure_id": structure_id,
                "theory_id": theory_id,
                "state": str(JobState.QUEUED),
                "precedence": -priority,
            }
            connection.execute(insert_or_ignore(connection, t.Job), new)
            query = select(t.Job.id).where(t.Job.structure_id == structure_id, t.Job.theory_id == theory_id)
            job = lock_jobs(connection, [connection.execute(query).scalar_one()])[0]
            connection.execute(
                insert_or_ignore(connection, t.JobRequest), {"job_id": job.id, "candidate_id": candidate_id}
            )
            connection.execute(
                update(t.JobRequest)
                .where(t.JobRequest.job_id == job.id, t.JobRequest.candidate_id == candidate_id)
                .values(cancelled=None)
            )
            label = find_accepted(connection, structure_id, theory_id)
            name = theory.name or theory.fingerprint[:12]
            if label is not None:
                if job.state not in HELD_JOBS:
                    change_job(connection, job.id, state=JobState.DONE)
                to, reason = CandidateState.LABELLED, f"the ledger held label {label.id} of theory {name} already"
            elif job.state in {JobState.FAILED, JobState.QUARANTINED}:
                to = CandidateState(job.state)
                reason = f"job {job.id} for the same structure is {job.state}: {job.error_kind}: {job.message}"
            else:
                if job.state in {JobState.CANCELLED, JobState.DONE}:
                    change_job(connection, job.id, state=JobState.QUEUED, **_FRESH)
                if -priority < job.precedence:
                    change_job(connection, job.id, precedence=-priority)
                to, reason = CandidateState.QUEUED, f"queued for a label of theory {name} as job {job.id}"
            move(connection, [candidate_id], to, [reason], actor="loop", job_id=job.id)
            return job_row(lock_jobs(connection, [job.id])[0])

    # -- by a person -----------------------------------------------------------------------------------------------

    def retry(self, ids: Sequence[int], actor: str = "user") -> builtins.list[JobRow]:
        """Queue failed, quarantined, waiting or cancelled jobs again with fresh counts, and their candidates too.

        Raises
        ------
        TransitionError
            if one of them is done or still held by a worker
        """
        with self._database.write() as connection:
            for job in lock_jobs(connection, ids):
                if job.state in HELD_JOBS:
                    raise TransitionError(
                        f"job {job.id} is {job.state} with {job.worker}; release it first to repeat it"
                    )
                check_transition(JOB_TRANSITIONS, f"job {job.id}", JobState(job.state), JobState.QUEUED)
                if job.state == JobState.CANCELLED:
                    connection.execute(update(t.JobRequest).where(t.JobRequest.job_id == job.id).values(cancelled=None))
                change_job(connection, job.id, state=JobState.QUEUED, **_FRESH)
                waiting = [CandidateState.FAILED, CandidateState.QUARANTINED, CandidateState.REJECTED]
                asking = requesting(connection, job.id, waiting)
                reason = f"job {job.id} is tried again by {actor}"
                move(connection, asking, CandidateState.QUEUED, [reason] * len(asking), actor=actor, job_id=job.id)
                record(
                    connection, "retried", f"{actor} retries job {job.id} ({job.formula})", job_id=job.id, actor=actor
                )
            return [job_row(row) for row in lock_jobs(connection, ids)]

    def release(self, ids: Sequence[int], actor: str = "user") -> builtins.list[JobRow]:
        """Take jobs from their workers, which cannot write any more, and queue them again; end waiting times.

        Raises
        ------
        TransitionError
            if one of them is neither held nor waiting
        """
        with self._database.write() as connection:
            for job in lock_jobs(connection, ids):
                if job.state not in {*HELD_JOBS, JobState.RETRY_WAIT, JobState.QUEUED}:
                    raise TransitionError(
                        f"job {job.id} is {job.state}: no worker holds it; use retry to queue it again"
                    )
                if job.state == JobState.QUEUED:
                    continue
                release_job(connection, job, f"taken from {job.worker} by {actor}", actor=actor)
            return [job_row(row) for row in lock_jobs(connection, ids)]

    def cancel(self, ids: Sequence[int], campaign_id: int | None = None, actor: str = "user") -> builtins.list[JobRow]:
        """Withdraw the requests of one campaign, or of all; a job that nobody wants any more is cancelled.

        Raises
        ------
        TransitionError
            if one of them is no longer open
        """
        with self._database.write() as connection:
            for job in lock_jobs(connection, ids):
                if job.state not in OPEN_JOBS:
                    raise TransitionError(f"job {job.id} is {job.state}: there is nothing left to cancel")
                asking = requesting(connection, job.id, list(CandidateState))
                if campaign_id is not None:
                    query = select(t.Candidate.id).where(
                        t.Candidate.campaign_id == campaign_id, t.Candidate.id.in_(asking)
                    )
                    leaving = list(connection.scalars(query))
                    if not leaving:
                        raise NotFoundError(f"campaign {campaign_id} does not ask for job {job.id}")
                else:
                    leaving = asking
                connection.execute(
                    update(t.JobRequest)
                    .where(t.JobRequest.job_id == job.id, t.JobRequest.candidate_id.in_(leaving))
                    .values(cancelled=now(connection))
                )
                reasons = [f"labelling was cancelled by {actor}"] * len(leaving)
                move(connection, leaving, CandidateState.REJECTED, reasons, actor=actor, job_id=job.id)
                record(
                    connection,
                    "cancelled",
                    f"{actor} withdrew {len(leaving)} of {len(asking)} requests for job {job.id} ({job.formula})",
                    campaign_id=campaign_id,
                    job_id=job.id,
                    actor=actor,
                )
                if len(leaving) == len(asking):
                    self._cancel_job(connection, job, actor)
            return [job_row(row) for row in lock_jobs(connection, ids)]

    @staticmethod
    def _cancel_job(connection: Connection, job: AnyRow, actor: str) -> None:
        message = f"cancelled by {actor}"
        close_attempt(connection, job.id, job.fence, AttemptState.RELEASED, kind=FailureKind.CANCELLED, message=message)
        change_job(
            connection,
            job.id,
            state=JobState.CANCELLED,
            fence=job.fence + 1,
            worker=None,
            lease_until=None,
            not_before=None,
            error_kind=FailureKind.CANCELLED,
            message=message,
        )

    # -- looking ---------------------------------------------------------------------------------------------------

    def get(self, job_id: int) -> JobRow:
        """One job; raises NotFoundError."""
        with self._database.read() as connection:
            row = connection.execute(select_jobs().where(t.Job.id == job_id)).first()
        if row is None:
            raise NotFoundError(f"no job with id {job_id} in the ledger; `alflow queue ls` lists them")
        return job_row(row)

    def list(
        self,
        campaign: int | None = None,
        states: Collection[JobState] | None = None,
        *,
        limit: int | None = None,
    ) -> builtins.list[JobRow]:
        """Jobs in order of their ids; those a campaign asks for, or all; in the given states, or any."""
        query = select_jobs().order_by(t.Job.id).limit(limit)
        if states is not None:
            query = query.where(t.Job.state.in_([str(s) for s in states]))
        if campaign is not None:
            query = query.where(t.Job.id.in_(_asked_for(campaign)))
        with self._database.read() as connection:
            return [job_row(row) for row in connection.execute(query)]

    def counts(self, campaign_id: int | None = None) -> dict[JobState, int]:
        """Number of jobs in every state, also where it is 0."""
        query = select(t.Job.state, func.count()).group_by(t.Job.state)
        if campaign_id is not None:
            query = query.where(t.Job.id.in_(_asked_for(campaign_id)))
        with self._database.read() as connection:
            found: dict[str, int] = dict(connection.execute(query).tuples().all())
        return {state: found.get(str(state), 0) for state in JobState}

    def failures(self, campaign_id: int | None = None) -> builtins.list[FailureCount]:
        """Jobs that failed or were quarantined, by their typed cause, most frequent first."""
        with self._database.read() as connection:
            return count_failures(connection, None if campaign_id is None else _asked_for(campaign_id))

    def standing(self, job_id: int) -> JobStanding:
        """A job with all that decides what becomes of it; raises NotFoundError."""
        with self._database.read() as connection:
            return job_standing(connection, job_id)

    def overview(self, campaign_id: int | None = None) -> QueueStanding:
        """The queue as a whole, or the jobs that one campaign asks for."""
        with self._database.read() as connection:
            return queue_standing(connection, None if campaign_id is None else _asked_for(campaign_id))

    def jobs_of(self, candidate_id: int) -> builtins.list[int]:
        """The jobs that a candidate asks for or asked for, oldest first; raises NotFoundError for an unknown one."""
        with self._database.read() as connection:
            if connection.scalar(select(t.Candidate.id).where(t.Candidate.id == candidate_id)) is None:
                raise NotFoundError(f"no candidate with id {candidate_id} in the ledger; `alflow ls` lists them")
            query = select(t.JobRequest.job_id).where(t.JobRequest.candidate_id == candidate_id)
            return list(connection.scalars(query.order_by(t.JobRequest.job_id)))

    def open_jobs(self, campaign_id: int | None = None) -> int:
        """Number of jobs that still have to become a label or a failure."""
        counts = self.counts(campaign_id)
        return sum(counts[state] for state in OPEN_JOBS)

    def attempts(self, job_id: int) -> builtins.list[AttemptRow]:
        """All executions of a job, oldest first."""
        query = select(*table_columns(t.Attempt)).where(t.Attempt.job_id == job_id).order_by(t.Attempt.id)
        with self._database.read() as connection:
            return [attempt_row(row) for row in connection.execute(query)]

    def attempts_of(self, campaign_id: int, *, limit: int | None = None) -> builtins.list[AttemptRow]:
        """Finished executions of the jobs that a campaign asked for, oldest first; with ``limit`` the newest ones."""
        query = (
            select(*table_columns(t.Attempt))
            .where(
                t.Attempt.job_id.in_(_asked_for(campaign_id)),
                t.Attempt.state.in_([AttemptState.DONE, AttemptState.FAILED, AttemptState.LOST]),
            )
            .order_by(t.Attempt.finished.desc(), t.Attempt.id.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return [attempt_row(row) for row in connection.execute(query)][::-1]

    def held_attempts(self) -> builtins.list[AttemptRow]:
        """The executions under way: of jobs that a worker holds."""
        query = (
            select(*table_columns(t.Attempt))
            .join(t.Job, (t.Job.id == t.Attempt.job_id) & (t.Job.fence == t.Attempt.fence))
            .where(t.Job.state.in_([str(s) for s in HELD_JOBS]))
            .order_by(t.Attempt.id)
        )
        with self._database.read() as connection:
            return [attempt_row(row) for row in connection.execute(query)]

    def abandoned_attempts(self, host: str, boot_id: str | None) -> builtins.list[AttemptRow]:
        """Executions on a machine, since its boot, that ended without a label and had a directory."""
        query = (
            select(*table_columns(t.Attempt))
            .where(
                t.Attempt.host == host,
                t.Attempt.boot_id == boot_id,
                t.Attempt.directory.is_not(None),
                t.Attempt.finished.is_not(None),
                t.Attempt.state != AttemptState.DONE,
            )
            .order_by(t.Attempt.id)
        )
        with self._database.read() as connection:
            return [attempt_row(row) for row in connection.execute(query)]

    def output_directories(self, before: str) -> builtins.list[tuple[int, str]]:
        """(job id, directory) of executions that gave a label before a time in ISO 8601."""
        query = (
            select(t.Attempt.job_id, t.Attempt.directory)
            .where(
                t.Attempt.state == AttemptState.DONE,
                t.Attempt.directory.is_not(None),
                t.Attempt.finished < datetime.fromisoformat(before).timestamp(),
            )
            .order_by(t.Attempt.id)
        )
        with self._database.read() as connection:
            return [(job_id, place) for job_id, place in connection.execute(query) if place]

    def candidates_of(self, job_id: int) -> builtins.list[int]:
        """The candidates that still want a job's label."""
        with self._database.read() as connection:
            return requesting(connection, job_id, list(CandidateState))

    @staticmethod
    def _check_structure(connection: Connection, candidate_id: int, structure_id: int) -> None:
        found = connection.scalar(select(t.Candidate.structure_id).where(t.Candidate.id == candidate_id))
        if found is None:
            raise NotFoundError(f"no candidate with id {candidate_id} in the ledger")
        if found != structure_id:
            raise TransitionError(
                f"candidate {candidate_id} is structure {found}, not {structure_id}: nothing was queued"
            )


def _asked_for(campaign_id: int) -> Any:
    return (
        select(t.JobRequest.job_id)
        .join(t.Candidate, t.Candidate.id == t.JobRequest.candidate_id)
        .where(t.Candidate.campaign_id == campaign_id, t.JobRequest.cancelled.is_(None))
    )
