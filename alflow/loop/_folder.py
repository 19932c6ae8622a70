"""Jobs of the queue through a folder, for clusters whose nodes reach no database.

One process beside the ledger holds the leases: it writes jobs into the folder, watches what becomes of them, and brings
back labels or typed failures. Nodes know the folder only and run ``alflow-label``. Jobs move by renaming, so that a job
is in one place or another whoever is killed; see :mod:`alflow.folder`.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alflow.errors import ConfigError, FailureKind, LabelFailure, LeaseLostError, LedgerUnavailableError, NotFoundError
from alflow.folder.layout import (
    BAD,
    DONE,
    HEARTBEAT,
    JOB,
    LOST,
    OPEN,
    REASON,
    RESULT,
    TAKEN,
    VERSION,
    WORKER,
    Manifest,
    differences,
    files_of,
    last_run,
    make,
    manifest,
    read_json,
    taken_jobs,
    write_json,
)
from alflow.labelers import Labeler, LabelResult, ProgramLabeler, WorkerConfig, read_input
from alflow.ledger import OPEN_JOBS, ClaimedJob, JobState, Ledger
from alflow.loop._places import Places
from alflow.loop._reporter import Reporter
from alflow.loop._worker import IDLE_SECONDS, LabelWorker, WorkSummary, WorkUntil, typed_failures

SERVED = "served.json"
SILENCE_SECONDS = 900.0
"""A job whose worker showed no life for so long is taken back."""
ARRIVAL_SECONDS = 120.0
"""Files that a network file system shows late are waited for so long."""


@dataclass(kw_only=True)
class _Flight:
    """A job that is in the folder."""

    job: ClaimedJob
    labeler: ProgramLabeler
    began: float
    incomplete_since: float | None = None
    silent_since: float | None = None
    missing_since: float | None = None


class FolderServer(LabelWorker):
    """Serves one folder from one ledger.

    A server that is stopped or killed leaves the folder as it is; the next one takes up every job that is still there,
    also those that were computed meanwhile.

    Parameters
    ----------
    ledger
        whose queue is served
    config
        this machine's configuration; its labelers of programs are those that can be served
    folder
        on a file system that the nodes see too
    capacity
        how many jobs may be in the folder at once
    silence
        s: a job is taken back from a worker that shows no life for so long
    """

    def __init__(
        self,
        ledger: Ledger,
        config: WorkerConfig,
        folder: Path,
        *,
        capacity: int = 100,
        silence: float = SILENCE_SECONDS,
        report: Reporter | None = None,
        labelers: dict[int, Labeler] | None = None,
    ) -> None:
        super().__init__(ledger, config, report=report, labelers=labelers)
        self._folder = folder.resolve()
        self._places = Places(self._folder, self._report)
        self._capacity, self._silence = capacity, silence
        self._flights: dict[str, _Flight] = {}
        self._told_of: set[int] = set()

    def serve(self, until: WorkUntil = WorkUntil.EMPTY) -> WorkSummary:
        """Serve until queue and folder are empty, were so for a minute, or forever.

        Raises
        ------
        ConfigError
            if the folder is served for another ledger
        KeyboardInterrupt, LedgerError
            passed on; the folder stays as it is, and its jobs go back to the queue until it is served again
        """
        self._claim_folder()
        started = idle_since = time.monotonic()
        with self._heartbeat():
            try:
                self._patiently(self._tidy)
                while True:
                    self._patiently(self._reclaim)
                    room = min(self._config.batch, self._capacity - len(self._flights))
                    jobs = self._patiently(partial(self._claim, room)) if room > 0 else []
                    for job in jobs:
                        self._place(job)
                    moved = self._look()
                    if jobs or self._flights:
                        idle_since = time.monotonic()
                    elif until is WorkUntil.EMPTY or (
                        until is WorkUntil.IDLE and time.monotonic() - idle_since > IDLE_SECONDS
                    ):
                        break
                    if not (jobs or moved):
                        time.sleep(self._config.poll_seconds)
            except BaseException:
                with contextlib.suppress(LedgerUnavailableError):  # their leases run out by themselves
                    self._give_back([flight.job for flight in self._flights.values()])
                raise
        return WorkSummary(**self._done, seconds=time.monotonic() - started)

    def theories(self) -> dict[int, Labeler]:
        """Of the theories that this machine can compute those of programs; others are left to other workers."""
        known = super().theories()
        served: dict[int, Labeler] = {
            number: labeler for number, labeler in known.items() if isinstance(labeler, ProgramLabeler)
        }
        for number in sorted(set(known) - set(served) - self._told_of):
            self._told_of.add(number)
            self._report.note(
                f"jobs of the labeler {known[number].name!r} need no folder: start `alflow worker` without --folder"
            )
        return served

    # -- the folder --------------------------------------------------------------------------------------------------

    def _claim_folder(self) -> None:
        make(self._folder)
        (self._folder / LOST).mkdir(exist_ok=True)
        served = read_json(self._folder / SERVED)
        if served is None:
            write_json(self._folder / SERVED, {"version": VERSION, "ledger": self._ledger.url})
        elif served.get("ledger") != self._ledger.url:
            raise ConfigError(
                f"{self._folder} is served for another ledger; give each ledger a folder of its own, or remove "
                f"{SERVED} there if that ledger was moved"
            )

    def _tidy(self) -> None:
        """Put away what belongs to jobs that are closed; what belongs to no job of this ledger is left alone."""
        for place in (OPEN, TAKEN, DONE, BAD):
            for path in sorted((self._folder / place).glob("*")):
                number = path.name.partition("@")[0].removeprefix("job-")
                try:
                    state = self._ledger.queue.get(int(number)).state
                except (NotFoundError, ValueError):
                    self._report.note(f"{path} is no job of this ledger and is left alone")
                    continue
                if state in OPEN_JOBS or (place == TAKEN and not self._is_silent(path)):
                    continue
                self._places.put_away(path, f"its job is {state}")

    def _is_silent(self, taken: Path) -> bool:
        age = self._places.age_of(taken / HEARTBEAT)
        return age is None or age > self._silence

    # -- into the folder ---------------------------------------------------------------------------------------------

    def _place(self, job: ClaimedJob) -> None:
        """Write a claimed job into the folder, or take up the one that is there."""
        name, started = f"job-{job.job_id}", time.monotonic()
        try:
            labeler = self.theories()[job.theory_id]
            assert isinstance(labeler, ProgramLabeler)
            flight = _Flight(job=job, labeler=labeler, began=started)
            # first, so that a server that slept after its claim puts nothing in another one's way
            self._patiently(
                lambda: self._ledger.queue.start(
                    job.job_id, job.fence, submitted=True, directory=str(self._directory(job))
                )
            )
            with typed_failures():
                self._places.put_away(self._folder / BAD / name, "it belongs to an earlier attempt")
                if not self._takes_up(name, job, labeler):
                    self._write(job, labeler)
        except LabelFailure as failure:
            self._release(job)
            self._fail(job, failure, time.monotonic() - started)
        except LeaseLostError:
            self._release(job)
            self._done["lost"] += 1
        else:
            self._flights[name] = flight

    def _takes_up(self, name: str, job: ClaimedJob, labeler: ProgramLabeler) -> bool:
        """Whether the folder holds this very calculation; another one of that name is put away."""
        for there in self._places.find(name) or self._places.find(name):
            try:
                structure, theory = read_input(there)
            except LabelFailure:
                if not there.exists():  # it moved on meanwhile
                    return self._takes_up(name, job, labeler)
                structure, theory = None, ""
            if structure == job.structure and theory == labeler.theory().fingerprint:
                return True
            self._places.put_away(there, "it is another calculation")
        return False

    def _write(self, job: ClaimedJob, labeler: ProgramLabeler) -> None:
        name = f"job-{job.job_id}"
        # under a name of its own: another server may have the job by now, or this one may be the other
        making = self._folder / f".making-{job.job_id}-{job.fence}"
        for left in self._folder.glob(f".making-{job.job_id}-*"):
            if int(left.name.rpartition("-")[2]) <= job.fence:
                shutil.rmtree(left, ignore_errors=True)
        try:
            labeler.prepare(job.structure, making)
            self._record(making, job, labeler)
            try:
                making.rename(self._folder / OPEN / name)
            except OSError:
                # a server that slept while it wrote was first: what it put there is the same, or is put away
                if not self._takes_up(name, job, labeler):
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)  # a full disk is not filled further

    @staticmethod
    def _record(directory: Path, job: ClaimedJob, labeler: ProgramLabeler) -> None:
        # a result stays: it tells the next server, should this one be killed here, which runs were computed
        for name in (WORKER, HEARTBEAT):
            (directory / name).unlink(missing_ok=True)
        write_json(
            directory / JOB,
            {
                "version": VERSION,
                "job": job.job_id,
                "program": labeler.program_name,
                "formula": job.structure.formula,
                "files": manifest(directory, without=frozenset({JOB, RESULT})),
            },
        )

    # -- out of the folder -------------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Look at every job in the folder; return whether anything changed."""
        moved = False
        for name, flight in list(self._flights.items()):
            with self._lock:
                ours = self._held.get(flight.job.job_id) == flight.job.fence
            if not ours:
                self._abandon(name)
                moved = True
            elif (self._folder / DONE / name).exists():
                moved |= self._collect(name, flight)
            elif (self._folder / BAD / name).exists():
                reason = (read_json(self._folder / BAD / name / REASON) or {}).get("reason", "no reason was given")
                self._places.put_away(self._folder / BAD / name, str(reason))
                self._close(name, LabelFailure(FailureKind.TRUNCATED, f"it did not reach its worker whole: {reason}"))
                moved = True
            elif taken := taken_jobs(self._folder, name):
                moved |= self._check_life(name, flight, taken[0])
            elif self._places.find(name):
                flight.missing_since = None
            else:
                # a network file system may show a move late
                now = time.monotonic()
                flight.missing_since = flight.missing_since or now
                if now - flight.missing_since >= ARRIVAL_SECONDS:
                    self._close(name, LabelFailure(FailureKind.UNAVAILABLE, f"{name} vanished from {self._folder}"))
                    moved = True
        return moved

    def _abandon(self, name: str) -> None:
        """The job was cancelled, or another worker has it."""
        job_id = self._flights.pop(name).job.job_id
        self._done["lost"] += 1
        state = self._patiently(lambda: self._ledger.queue.get(job_id)).state
        # a job that is queued or submitted may be another server's by now, which serves this folder
        if state is JobState.RUNNING or state not in OPEN_JOBS:
            self._places.put_away(self._folder / OPEN / name, f"its job is {state} elsewhere")
        self._report.note(f"{name}: the lease was lost, what is computed for it is not stored")

    def _check_life(self, name: str, flight: _Flight, taken: Path) -> bool:
        silent = self._places.age_of(taken / HEARTBEAT)
        if silent is None:  # it may have died before its first sign of life
            flight.silent_since = flight.silent_since or time.monotonic()
            silent = time.monotonic() - flight.silent_since
        else:
            flight.silent_since = None
        if silent <= self._silence:
            return False
        worker = (read_json(taken / WORKER) or {}).get("worker", "its worker")
        self._places.put_away(taken, f"{worker} showed no life for {silent:.0f} s")
        if taken.exists():
            return False
        self._close(name, LabelFailure(FailureKind.WORKER_DIED, f"{worker} showed no life for {silent:.0f} s"))
        return True

    def _collect(self, name: str, flight: _Flight) -> bool:
        """Read what was computed; False where its files are not all there yet."""
        job = flight.job
        # a server that slept must not touch what is another one's by now; the heartbeat may not have noticed yet
        if self._patiently(lambda: self._ledger.queue.heartbeat([(job.job_id, job.fence)], self._config.lease_seconds)):
            self._abandon(name)
            return True
        directory = self._folder / DONE / name
        result = read_json(directory / RESULT)
        files, arrived = files_of(result), bool(result and result.get("arrived"))
        if result is None or files is None:
            wrong = [f"{RESULT} is missing or damaged"]
        else:
            wrong = [] if arrived else differences(directory, files)
        if wrong:
            now = time.monotonic()
            flight.incomplete_since = flight.incomplete_since or now
            if now - flight.incomplete_since < ARRIVAL_SECONDS:
                return False
            self._places.put_away(directory, wrong[0])
            self._close(
                name, LabelFailure(FailureKind.TRUNCATED, f"its results did not arrive: {'; '.join(wrong[:3])}")
            )
            return True
        flight.incomplete_since = None
        assert result is not None
        assert files is not None
        try:
            with typed_failures():
                if not arrived:  # judging removes large files: whoever judges again must not miss them
                    write_json(directory / RESULT, {**result, "arrived": True})
                if self._holds_new_run(directory, files) or flight.labeler.climb(directory):
                    self._put_in(directory, flight)
                    return True
                found = flight.labeler.parse(directory)
        except LabelFailure as failure:
            # out of the way first: the next attempt must not find it
            self._keep(directory, flight.job)
            if self._close(name, failure):
                self._settle(self._directory(flight.job), labelled=False)
            return True
        if self._close(name, found):
            self._keep(directory, flight.job)
            self._settle(self._directory(flight.job), labelled=True)
        return True

    @staticmethod
    def _holds_new_run(directory: Path, computed: Manifest) -> bool:
        """Whether a server was killed when it had written the next run: it is not among what was computed."""
        run = last_run(directory)
        return run is not None and not any(name.startswith(f"{run.name}/") for name in computed)

    def _put_in(self, directory: Path, flight: _Flight) -> None:
        """Let a job whose next run is written wait for a worker."""
        waiting = self._folder / OPEN / directory.name
        self._places.put_away(waiting, "its job is further by now")
        self._record(directory, flight.job, flight.labeler)
        directory.rename(waiting)

    def _close(self, name: str, found: LabelResult | LabelFailure) -> bool:
        """Store a label or a failure; the job leaves the folder's books. False where its lease was lost."""
        flight = self._flights.pop(name)
        job, wall = flight.job, time.monotonic() - flight.began
        try:
            if isinstance(found, LabelFailure):
                self._release(job)
                self._fail(job, found, wall)
                return True
            timings = {"seconds": found.seconds, "wall_seconds": wall}
            self._patiently(
                lambda: self._ledger.queue.complete(
                    job.job_id, job.fence, found.properties, self._evidence(found), timings
                )
            )
        except LeaseLostError:
            self._done["lost"] += 1
            self._report.note(
                f"job {job.job_id}: the lease was lost; its result waits in the folder for the next server"
            )
            return False
        else:
            self._done["labelled"] += 1
            return True
        finally:
            self._release(job)

    def _release(self, job: ClaimedJob) -> None:
        with self._lock:
            self._held.pop(job.job_id, None)

    def _keep(self, directory: Path, job: ClaimedJob) -> None:
        """Move what was computed to where other workers keep theirs; there it is whole or not at all."""
        goal = self._directory(job)
        partial = goal.with_name(f".{goal.name}.partial")
        try:
            goal.parent.mkdir(parents=True, exist_ok=True)
            try:
                directory.rename(goal)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                shutil.rmtree(partial, ignore_errors=True)
                shutil.copytree(directory, partial, symlinks=True)
                partial.rename(goal)
                shutil.rmtree(directory, ignore_errors=True)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            self._places.put_away(directory, f"it could not be moved to {goal}: {str(error)[:300]}")
