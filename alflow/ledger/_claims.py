"""The workers' side of the queue: claims under a lease with a fence, heartbeats, results, failures, reclaims.

A fence rises at every claim. Storing a label and closing its job is one transaction that checks the fence, so a worker
that lost its lease cannot write, whatever it still believes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, String, func, insert, literal, or_, select, update

from alflow.errors import FailureKind, LeaseLostError
from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, among, now
from alflow.ledger._events import as_ranges, record
from alflow.ledger._jobs import change_job, close_attempt, lock_jobs, move_requesting, release_job, select_jobs
from alflow.ledger._labels import find_accepted, insert_label, label_row
from alflow.ledger._rows import ClaimedJob, LabelRow
from alflow.ledger._standing import under_way
from alflow.ledger._states import HELD_JOBS, AttemptState, CandidateState, JobState, LabelKind
from alflow.ledger._structures import load_geometries
from alflow.ledger._types import AnyRow, plain
from alflow.ledger._worker import WorkerIdentity
from alflow.structures import Properties, Structure

MAX_DEATHS = 3
"""A job that so many workers did not survive is quarantined."""
MAX_WAIT_SECONDS = 3600.0
"""The pause before a repetition doubles no further."""
_CLAIMING = 0x636C61696D  # "claim": one at a time counts the slots that are taken, on PostgreSQL
#: verdicts about the structure itself, which no repetition changes
_FINAL = frozenset({FailureKind.REFUSED, FailureKind.INCONSISTENT, FailureKind.IMPLAUSIBLE})
_HELD = [str(state) for state in HELD_JOBS]


class Claims:
    """What a label worker does with the queue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self,
        worker: WorkerIdentity,
        *,
        limit: int = 1,
        theories: Sequence[int] | None = None,
        lease_seconds: float = 60.0,
        max_deaths: int = MAX_DEATHS,
        slots: Mapping[str, int] | None = None,
    ) -> list[ClaimedJob]:
        """Take up to ``limit`` jobs, highest priority first, each with an attempt and a new fence.

        Jobs whose worker died (its lease ran out) and jobs whose waiting time is over are taken as well.

        Parameters
        ----------
        theories
            only jobs of these theories: those the worker can compute; None: all
        lease_seconds
            how long the jobs stay with this worker without a heartbeat, by the database's clock
        max_deaths
            a job that so many workers did not survive is quarantined instead
        slots
            by labeler, how many of its jobs may be under way at once with all workers together; claims that give some
            wait for each other on PostgreSQL, others do not
        """
        with self._database.write(durable=False) as connection:
            if slots and not self._database.is_sqlite:
                connection.execute(select(func.pg_advisory_xact_lock(_CLAIMING)))
            time = now(connection)
            self._reclaim(connection, time, max_deaths)
            self._wake(connection, time)
            jobs = _next_jobs(connection, limit, theories, slots)
            if not jobs:
                return []
            ids = [job.id for job in jobs]
            connection.execute(
                update(t.Job)
                .where(among(connection, t.Job.id, ids))
                .values(
                    state=JobState.LEASED,
                    worker=worker.name,
                    fence=t.Job.fence + 1,
                    attempts=t.Job.attempts + 1,
                    lease_until=time + lease_seconds,
                    updated=time,
                )
            )
            attempts = _open_attempts(connection, ids, worker, time)
            record(
                connection,
                "claimed",
                f"{worker.name} claimed {len(jobs)} job{'s' if len(jobs) > 1 else ''}",
                job_id=ids[0] if len(ids) == 1 else None,
                payload={"jobs": as_ranges(ids)},
                actor="worker",
            )
            blobs = load_geometries(connection, [job.structure_id for job in jobs])
        return [
            ClaimedJob(
                job_id=job.id,
                fence=job.fence + 1,
                attempt_id=attempts[job.id],
                attempt_number=job.attempts + 1,
                structure_id=job.structure_id,
                structure=Structure.from_bytes(blob),
                theory_id=job.theory_id,
            )
            for job, blob in zip(jobs, blobs, strict=True)
        ]

    def start(
        self,
        job_id: int,
        fence: int,
        *,
        submitted: bool = False,
        scheduler_id: str | None = None,
        directory: str | None = None,
        process_group: int | None = None,
        numerics: Mapping[str, Any] | None = None,
    ) -> None:
        """Note that a claimed job runs, or was submitted to a scheduler, and where.

        A labeler that starts programs starts them in a process group of their own, inside ``directory``, and names it:
        these are what a reaper ends when the worker has died.

        Raises
        ------
        LeaseLostError
            if the lease was taken over
        """
        info: dict[str, Any] = {
            "scheduler_id": scheduler_id,
            "directory": directory,
            "process_group": process_group,
            "numerics": None if numerics is None else plain(numerics),
        }
        given = {name: value for name, value in info.items() if value is not None}
        state = JobState.SUBMITTED if submitted else JobState.RUNNING
        with self._database.write() as connection:
            job = self._held(connection, job_id, fence)
            if submitted and job.state == JobState.RUNNING:
                state = JobState.RUNNING
            change_job(connection, job_id, state=state)
            connection.execute(
                update(t.Attempt)
                .where(t.Attempt.job_id == job_id, t.Attempt.fence == fence)
                .values(state=AttemptState(str(state)), **given)
            )

    def heartbeat(self, held: Sequence[tuple[int, int]], seconds: float) -> list[int]:
        """Prolong the leases of (job id, fence) pairs; return the ids of jobs that are lost.

        Call it from a thread of its own: it then has its own connection, and never waits for the calculation.
        """
        lost = []
        with self._database.write(durable=False) as connection:
            until = now(connection) + seconds
            for job_id, fence in sorted(held):
                kept = connection.execute(
                    update(t.Job)
                    .where(t.Job.id == job_id, t.Job.fence == fence, t.Job.state.in_(_HELD))
                    .values(lease_until=until)
                )
                if kept.rowcount != 1:
                    lost.append(job_id)
        return lost

    def complete(
        self,
        job_id: int,
        fence: int,
        properties: Properties,
        evidence: Mapping[str, Any],
        timings: Mapping[str, Any] | None = None,
        *,
        message: str = "",
    ) -> LabelRow:
        """Store the label and close the job; every candidate that asked for it becomes labelled.

        Repeating it after a commit whose answer was lost returns the stored label.

        Raises
        ------
        LeaseLostError
            if the lease was taken over; nothing was written
        """
        with self._database.write() as connection:
            done = self._already_done(connection, job_id, fence)
            if done is not None:
                return done
            job = self._held(connection, job_id, fence)
            attempt_id = close_attempt(connection, job_id, fence, AttemptState.DONE, message=message, timings=timings)
            label, added = insert_label(
                connection,
                job.structure_id,
                job.theory_id,
                properties,
                kind=LabelKind.COMPUTED,
                evidence=evidence,
                attempt_id=attempt_id,
            )
            change_job(connection, job_id, state=JobState.DONE, lease_until=None, error_kind=None, message="")
            how = f"labelled by {job.worker} in job {job_id}, attempt {job.attempts}"
            if not added:
                how = f"labelled by the earlier label {label.id} of the same structure"
            move_requesting(connection, job_id, CandidateState.LABELLED, how, actor="worker")
            return label

    def fail(
        self,
        job_id: int,
        fence: int,
        kind: FailureKind,
        message: str,
        *,
        max_infrastructure_retries: int = 3,
        max_retries: int = 1,
        retry_delay: float = 30.0,
        timings: Mapping[str, Any] | None = None,
        log_id: int | None = None,
    ) -> JobState:
        """Close an attempt without a label; return what becomes of the job.

        A verdict about the structure (refused, inconsistent, implausible) fails the job at once. Failures of the
        machine and failures of the calculation are counted apart; while a count is within its limit the job waits
        and is repeated, afterwards it is quarantined for a person to look at. A cancelled attempt does not count.

        Parameters
        ----------
        retry_delay
            s before the first repetition after a failure of the machine, doubled for each further one, an hour at most;
            a failed calculation is repeated at once. There is no jitter: a pause that is over only lets the job be
            claimed, so that no more of them run at once than there are workers

        Raises
        ------
        LeaseLostError
            if the lease was taken over; nothing was written
        """
        with self._database.write() as connection:
            job = self._held(connection, job_id, fence)
            close_attempt(
                connection,
                job_id,
                fence,
                AttemptState.RELEASED if kind == FailureKind.CANCELLED else AttemptState.FAILED,
                kind=kind,
                message=message,
                timings=timings,
                log_id=log_id,
            )
            values: dict[str, Any] = {"worker": None, "lease_until": None, "error_kind": kind, "message": message}
            wait = 0.0
            if kind == FailureKind.CANCELLED:
                state, values["error_kind"] = JobState.QUEUED, None
            elif kind in _FINAL:
                state = JobState.FAILED
                values["failures"] = job.failures + 1
            elif kind == FailureKind.MISSING_FILE:
                # no repetition finds the file; a person must provide it
                state = JobState.QUARANTINED
                values["failures"] = job.failures + 1
            elif kind.infrastructure:
                count = values["infrastructure_failures"] = job.infrastructure_failures + 1
                state = JobState.RETRY_WAIT if count <= max_infrastructure_retries else JobState.QUARANTINED
                wait = min(retry_delay * 2.0 ** min(count - 1, 60), MAX_WAIT_SECONDS)
            else:
                count = values["failures"] = job.failures + 1
                state = JobState.RETRY_WAIT if count <= max_retries else JobState.QUARANTINED
            if state == JobState.RETRY_WAIT:
                values["not_before"] = now(connection) + wait
            change_job(connection, job_id, state=state, **values)
            self._give_up(connection, job, state, f"{kind}: {message}")
            return state

    def give_back(self, held: Sequence[tuple[int, int]]) -> list[int]:
        """Queue (job id, fence) pairs again that this worker will not compute; return the ids of those it still held.

        A job that is done, or that another worker has meanwhile, stays as it is.
        """
        with self._database.write() as connection:
            fences = dict(held)
            rows = [j for j in lock_jobs(connection, list(fences)) if j.fence == fences[j.id] and j.state in _HELD]
            for job in rows:
                release_job(connection, job, f"given back by {job.worker}", actor="worker")
            return [job.id for job in rows]

    def reclaim_expired(self, *, max_deaths: int = MAX_DEATHS, dead: Sequence[tuple[int, int]] = ()) -> list[int]:
        """Take jobs from workers whose lease ran out, and ``dead`` (job id, fence) pairs; return their ids.

        They are queued again; a job that outlived ``max_deaths`` workers is suspected of killing them and quarantined.
        """
        with self._database.write() as connection:
            return self._reclaim(connection, now(connection), max_deaths, dict(dead))

    # -- inside a transaction --------------------------------------------------------------------------------------

    @staticmethod
    def _reclaim(
        connection: Connection, time: float, max_deaths: int = MAX_DEATHS, dead: Mapping[int, int] | None = None
    ) -> list[int]:
        fences = dead or {}
        gone = t.Job.lease_until < time
        query = (
            select_jobs()
            .where(or_(gone, among(connection, t.Job.id, fences)) if fences else gone, t.Job.state.in_(_HELD))
            .order_by(t.Job.id)
            .with_for_update(of=t.Job, skip_locked=True)
        )
        # a job that another worker has claimed meanwhile shows another fence
        expired = [job for job in connection.execute(query) if fences.get(job.id, job.fence) == job.fence]
        for job in expired:
            # a job that its worker had claimed but not begun, or only handed on, cannot have killed it, and is no
            # calculation that failed
            begun = JobState(job.state) is JobState.RUNNING
            deaths = job.deaths + begun
            state = JobState.QUARANTINED if deaths >= max_deaths else JobState.QUEUED
            message = (
                f"the process of {job.worker} is gone"
                if job.id in fences
                else f"the lease of {job.worker} ran out: it died or lost the database"
            )
            ended = AttemptState.LOST if begun else AttemptState.RELEASED
            close_attempt(connection, job.id, job.fence, ended, kind=FailureKind.WORKER_DIED, message=message)
            change_job(
                connection,
                job.id,
                state=state,
                worker=None,
                lease_until=None,
                deaths=deaths,
                error_kind=FailureKind.WORKER_DIED,
                message=message,
            )
            record(connection, "reclaimed", f"job {job.id}: {message}", job_id=job.id, actor="reaper")
            reason = f"{FailureKind.WORKER_DIED}: {deaths} workers died while they computed it"
            Claims._give_up(connection, job, state, reason)
        return [job.id for job in expired]

    @staticmethod
    def _wake(connection: Connection, time: float) -> None:
        query = (
            select(t.Job.id)
            .where(t.Job.state == JobState.RETRY_WAIT, t.Job.not_before <= time)
            .order_by(t.Job.id)
            .with_for_update(skip_locked=True)
        )
        due = list(connection.scalars(query))
        if due:
            connection.execute(
                update(t.Job).where(among(connection, t.Job.id, due)).values(state=JobState.QUEUED, not_before=None)
            )

    @staticmethod
    def _give_up(connection: Connection, job: AnyRow, state: JobState, reason: str) -> None:
        if state in {JobState.FAILED, JobState.QUARANTINED}:
            move_requesting(connection, job.id, CandidateState(str(state)), reason, actor="worker")
            record(
                connection, "job", f"job {job.id} ({job.formula}) is {state}: {reason}", job_id=job.id, actor="worker"
            )

    @staticmethod
    def _held(connection: Connection, job_id: int, fence: int) -> AnyRow:
        job = lock_jobs(connection, [job_id])[0]
        if job.fence != fence or job.state not in _HELD:
            holder = (
                f"it is {job.state} with {job.worker}" if job.worker and job.state in _HELD else f"it is {job.state}"
            )
            raise LeaseLostError(f"the lease on job {job_id} (fence {fence}) is lost: {holder}; nothing was written")
        return job

    @staticmethod
    def _already_done(connection: Connection, job_id: int, fence: int) -> LabelRow | None:
        job = lock_jobs(connection, [job_id])[0]
        if job.state != JobState.DONE or job.fence != fence:
            return None
        label = find_accepted(connection, job.structure_id, job.theory_id)
        return None if label is None else label_row(label)


def _next_jobs(
    connection: Connection, limit: int, theories: Sequence[int] | None, slots: Mapping[str, int] | None
) -> Sequence[AnyRow]:
    """The jobs to be claimed, in their order; of labelers with slots no more than are free."""
    columns = (t.Job.id, t.Job.fence, t.Job.attempts, t.Job.structure_id, t.Job.theory_id, t.Job.precedence)
    queued = select(*columns).where(t.Job.state == JobState.QUEUED).order_by(t.Job.precedence, t.Job.id)
    queued = queued.with_for_update(skip_locked=True)
    if theories is not None:
        queued = queued.where(t.Job.theory_id.in_(list(theories)))
    if not slots:
        return connection.execute(queued.limit(limit)).all()
    limited: dict[str, list[int]] = {labeler: [] for labeler in slots}
    for number, labeler in connection.execute(
        select(t.Theory.id, t.Theory.labeler).where(t.Theory.labeler.in_(list(slots)))
    ):
        limited[labeler].append(number)
    counted = [number for numbers in limited.values() for number in numbers]
    found = list(connection.execute(queued.where(t.Job.theory_id.not_in(counted)).limit(limit)))
    taken = under_way(connection, list(slots))
    for labeler, numbers in limited.items():
        free = slots[labeler] - taken.get(labeler, 0)
        if free > 0 and numbers:
            found += connection.execute(queued.where(t.Job.theory_id.in_(numbers)).limit(min(free, limit)))
    return sorted(found, key=lambda job: (job.precedence, job.id))[:limit]


def _open_attempts(connection: Connection, jobs: Sequence[int], worker: WorkerIdentity, time: float) -> dict[int, int]:
    """Add an attempt for each claimed job, in one statement whatever their number; return the attempts' ids by job."""
    values: dict[Any, Any] = {
        t.Attempt.job_id: t.Job.id,
        t.Attempt.fence: t.Job.fence,
        t.Attempt.worker: literal(worker.name),
        t.Attempt.host: literal(worker.host),
        t.Attempt.boot_id: literal(worker.boot_id, String),
        t.Attempt.pid: literal(worker.pid),
        t.Attempt.pid_started: literal(worker.pid_started, BigInteger),
        t.Attempt.numerics: literal({}, t.Attempt.numerics.type),
        t.Attempt.state: literal(str(AttemptState.LEASED)),
        t.Attempt.message: literal(""),
        t.Attempt.timings: literal({}, t.Attempt.timings.type),
        t.Attempt.started: literal(time),
    }
    claimed = select(*values.values()).where(among(connection, t.Job.id, jobs))
    added = insert(t.Attempt).from_select(list(values), claimed).returning(t.Attempt.job_id, t.Attempt.id)
    return dict(connection.execute(added).tuples().all())
