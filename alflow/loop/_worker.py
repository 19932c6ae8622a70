"""The label worker: claims jobs, keeps its leases alive from a thread, and brings back labels or typed failures.

What it can compute comes from its local configuration and the campaigns' theories; a job whose theory this machine
would compute with other settings or another code is left to others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from alflow.errors import (
    ConfigError,
    FailureKind,
    LabelFailure,
    LeaseLostError,
    LedgerError,
    LedgerUnavailableError,
    TheoryError,
)
from alflow.folder.layout import NO_ROOM
from alflow.labelers import Labeler, LabelResult, WorkerConfig, labeler_for_theory
from alflow.ledger import ClaimedJob, JobState, Ledger, WorkerIdentity
from alflow.loop._outage import through_outage
from alflow.loop._outputs import settle_outputs
from alflow.loop._reaper import take_back_jobs
from alflow.loop._reporter import Reporter, SilentReporter

T = TypeVar("T")


class WorkUntil(StrEnum):
    """When a worker ends by itself."""

    EMPTY = "empty"
    IDLE = "idle"
    FOREVER = "forever"


@dataclass(frozen=True, kw_only=True)
class WorkSummary:
    """What a worker did.

    ``lost`` counts results that were not stored because the lease had gone to another worker.
    """

    labelled: int = 0
    retried: int = 0
    failed: int = 0
    lost: int = 0
    seconds: float = 0.0


IDLE_SECONDS = 60.0
"""A worker told to work until idle ends after so long without a job."""

QUICK_SECONDS = 1.0
"""A worker that executed its jobs in less claims twice as many next time, else one."""

_AWAY_SECONDS = 1.0
"""Between two heartbeats while the ledger is away: leases that ran out meanwhile go to whoever comes first."""


class LabelWorker:
    """Executes jobs of one ledger one after the other; several workers share a queue.

    A ledger that cannot be reached is waited for: a result that was computed meanwhile is stored when it is back.

    Parameters
    ----------
    ledger
        the ledger whose queue it serves
    config
        this machine's configuration
    report
        whom to tell
    labelers
        labelers by theory id; None: made from the theories of the ledger, as far as this machine has them
    """

    def __init__(
        self,
        ledger: Ledger,
        config: WorkerConfig,
        *,
        report: Reporter | None = None,
        labelers: dict[int, Labeler] | None = None,
    ) -> None:
        self._ledger = ledger
        self._config = config
        self._report = report or SilentReporter()
        self._given = labelers
        self._labelers: dict[int, Labeler] = {}
        self._not_here: set[int] = set()
        self._held: dict[int, int] = {}
        self._lock = threading.Lock()
        self._identity = WorkerIdentity.current()
        self._at_once = 1
        self._done = {"labelled": 0, "retried": 0, "failed": 0, "lost": 0}

    def run(
        self,
        until: WorkUntil = WorkUntil.EMPTY,
        *,
        max_jobs: int | None = None,
        room: Callable[[], int | None] | None = None,
    ) -> WorkSummary:
        """Work until the queue is empty, was idle for a minute, or forever.

        Parameters
        ----------
        until
            when to end
        max_jobs
            end after so many jobs
        room
            asked before every claim and every job: how many more may be computed; 0 ends the work, None is no limit

        Raises
        ------
        KeyboardInterrupt, LedgerError
            passed on; claimed jobs without a result are given back first
        """
        started = idle_since = time.monotonic()
        n_jobs = 0
        with self._heartbeat():
            while max_jobs is None or n_jobs < max_jobs:
                allowed = None if room is None else self._patiently(room)
                if allowed == 0:
                    break
                self._patiently(self._reclaim)
                limits = (self._batch(), None if max_jobs is None else max_jobs - n_jobs, allowed)
                limit = min(limit for limit in limits if limit is not None)
                jobs = self._patiently(partial(self._claim, limit))
                if jobs:
                    begun = time.monotonic()
                    executed = self._execute(jobs, room)
                    idle_since = time.monotonic()
                    self._at_once = 2 * executed if idle_since - begun < QUICK_SECONDS else 1
                    n_jobs += executed
                elif until is WorkUntil.EMPTY or (
                    until is WorkUntil.IDLE and time.monotonic() - idle_since > IDLE_SECONDS
                ):
                    break
                else:
                    time.sleep(self._config.poll_seconds)
        return WorkSummary(**self._done, seconds=time.monotonic() - started)

    def theories(self) -> dict[int, Labeler]:
        """Return the labelers of this machine by the id of the theory that they compute."""
        if self._given is not None:
            return self._given
        for theory in self._ledger.theories.list():
            if theory.id in self._labelers or theory.id in self._not_here:
                continue
            try:
                self._labelers[theory.id] = labeler_for_theory(
                    theory.labeler, theory.settings, theory.fingerprint, worker=self._config
                )
            except (ConfigError, TheoryError) as error:
                self._not_here.add(theory.id)
                self._report.note(f"jobs of theory {theory.name or theory.id} are left to other workers: {error}")
        return self._labelers

    def _batch(self) -> int:
        """How many jobs are claimed at once: those that wait behind a slow one, or hold a slot meanwhile, are idle."""
        slots = self._config.slots
        if slots and any(labeler.name in slots for labeler in self.theories().values()):
            return 1
        return max(1, min(self._at_once, self._config.batch))

    def _claim(self, limit: int) -> Sequence[ClaimedJob]:
        theories = self.theories()
        if not theories:
            return []
        jobs = self._ledger.queue.claim(
            self._identity,
            limit=limit,
            theories=sorted(theories),
            lease_seconds=self._config.lease_seconds,
            max_deaths=self._config.retries.deaths,
            slots=self._config.slots,
        )
        with self._lock:
            self._held.update({job.job_id: job.fence for job in jobs})
        return jobs

    def _execute(self, jobs: Sequence[ClaimedJob], room: Callable[[], int | None] | None) -> int:
        """Execute claimed jobs while there is room; the others are given back. Return how many were executed."""
        for n, job in enumerate(jobs):
            try:
                if n and room is not None and self._patiently(room) == 0:
                    self._give_back(jobs[n:])
                    return n
                self._one(job)
            except BaseException:
                with suppress(LedgerUnavailableError):  # their leases run out by themselves
                    self._give_back(jobs[n:])
                raise
            finally:
                with self._lock:
                    self._held.pop(job.job_id, None)
        return len(jobs)

    def _give_back(self, jobs: Sequence[ClaimedJob]) -> None:
        with self._lock:
            for job in jobs:
                self._held.pop(job.job_id, None)
        self._ledger.queue.give_back([(job.job_id, job.fence) for job in jobs])

    def _one(self, job: ClaimedJob) -> None:
        labeler = self.theories()[job.theory_id]
        directory = self._directory(job)
        with self._lock:
            if job.job_id not in self._held:  # the heartbeat found that another worker has it
                self._done["lost"] += 1
                return
        started = time.monotonic()
        try:
            self._patiently(lambda: self._ledger.queue.start(job.job_id, job.fence, directory=str(directory)))
            result = self._label(labeler, job, directory)
            timings = {"seconds": result.seconds, "wall_seconds": time.monotonic() - started}
            self._patiently(
                lambda: self._ledger.queue.complete(
                    job.job_id, job.fence, result.properties, self._evidence(result), timings
                )
            )
        except LabelFailure as failure:
            if self._fail(job, failure, time.monotonic() - started):
                self._settle(directory, labelled=False)
        except LeaseLostError:
            self._done["lost"] += 1
            self._report.note(f"job {job.job_id}: the lease was lost, its result is not stored")
        else:
            self._done["labelled"] += 1
            self._settle(directory, labelled=True)

    def _label(self, labeler: Labeler, job: ClaimedJob, directory: Path) -> LabelResult:
        with typed_failures():
            return labeler.label(job.structure, directory)

    def _settle(self, directory: Path, *, labelled: bool) -> None:
        settle_outputs(directory, self._config.outputs, self._report, labelled=labelled)

    def _fail(self, job: ClaimedJob, failure: LabelFailure, seconds: float) -> bool:
        """Store a failure; False where the lease was lost."""
        timings = {"seconds": seconds, "wall_seconds": seconds}
        retries = self._config.retries
        try:
            state = self._patiently(
                lambda: self._ledger.queue.fail(
                    job.job_id,
                    job.fence,
                    failure.kind,
                    failure.message,
                    max_infrastructure_retries=retries.machine,
                    max_retries=retries.calculation,
                    retry_delay=retries.delay_seconds,
                    timings=timings,
                )
            )
        except LeaseLostError:
            self._done["lost"] += 1
            return False
        self._done["retried" if state is JobState.RETRY_WAIT else "failed"] += 1
        self._report.note(f"job {job.job_id} ({job.structure.formula}): {failure} → {state}")
        return True

    def _patiently(self, call: Callable[[], T]) -> T:
        return through_outage(call, self._report)

    def _directory(self, job: ClaimedJob) -> Path:
        root = self._config.scratch or self._ledger.directory / "jobs"
        return Path(root) / f"job-{job.job_id}" / f"attempt-{job.attempt_number}"

    @staticmethod
    def _evidence(result: LabelResult) -> dict[str, Any]:
        return {**result.evidence, "warnings": list(result.warnings), "files": list(result.files)}

    def _reclaim(self) -> None:
        jobs = take_back_jobs(self._ledger, max_deaths=self._config.retries.deaths)
        if jobs:
            self._report.note(f"{len(jobs)} jobs of silent workers taken back: {', '.join(map(str, jobs[:10]))}")

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        stop = threading.Event()

        def beat() -> None:
            usual, away = self._config.lease_seconds / 4, False
            while not stop.wait(min(usual, _AWAY_SECONDS) if away else usual):
                with self._lock:
                    held = dict(self._held)
                if not held:
                    continue
                try:
                    lost = self._ledger.queue.heartbeat(list(held.items()), self._config.lease_seconds)
                except LedgerError as error:
                    if not away:
                        self._report.note(f"heartbeat failed, trying again: {error}")
                    away = True
                    continue
                away = False
                with self._lock:
                    for job_id in lost:
                        if self._held.get(job_id) == held[job_id]:  # not claimed again meanwhile
                            del self._held[job_id]

        thread = threading.Thread(target=beat, name="label-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextmanager
def typed_failures() -> Iterator[None]:
    """Whatever a labeler raises becomes a LabelFailure, so that one bad calculation ends no worker."""
    try:
        yield
    except (LabelFailure, LedgerError):
        raise
    except MemoryError as error:
        raise LabelFailure(FailureKind.MEMORY, str(error) or "out of memory") from error
    except OSError as error:
        kind = FailureKind.DISK_FULL if error.errno in NO_ROOM else FailureKind.CRASHED
        raise LabelFailure(kind, f"{type(error).__name__}: {error}") from error
    except Exception as error:
        raise LabelFailure(FailureKind.CRASHED, f"{type(error).__name__}: {error}") from error


def work(
    ledger: Ledger,
    config: WorkerConfig,
    *,
    until: WorkUntil = WorkUntil.EMPTY,
    max_jobs: int | None = None,
    report: Reporter | None = None,
) -> WorkSummary:
    """Run one label worker over a ledger; see :class:`LabelWorker`."""
    return LabelWorker(ledger, config, report=report).run(until, max_jobs=max_jobs)
