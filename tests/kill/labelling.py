"""Jobs and those who label them: workers, servers of folders and ``alflow-label``, as processes that a test may hurt.

Every process is forked from a prepared one and is what its command runs: :class:`~alflow.loop.LabelWorker`,
:class:`~alflow.loop.FolderServer`, and ``main`` of ``alflow-label``. Besides the places of :mod:`tests.kill.victim`
they have

===================  =================================================================================================
read                 a program has ended, its outputs are about to be read
write, placed        a server has made a job's folder that has not appeared yet; it has, and the ledger does not know
look                 it is about to look at its jobs
collect, climb       what was computed is about to be read; the next rung of a ladder is written and not yet in place
keep                 the folder of a job is about to be moved to where finished ones lie
taken                ``alflow-label`` has taken a job and has not shown that it lives
result, moving       it is about to write the result; has written it and is about to move the job
===================  =================================================================================================
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ase.build import bulk
from sqlalchemy import NullPool, create_engine, select

import alflow.folder.layout
import alflow.folder.worker
import alflow.loop._folder
from alflow.errors import FailureKind
from alflow.folder.layout import DONE, OPEN, RESULT, TAKEN
from alflow.labelers import EmtLabeler, Labeler, LabelResult, WorkerConfig
from alflow.ledger import (
    AttemptRow,
    AttemptState,
    CandidateState,
    JobRow,
    JobState,
    Ledger,
    NewCandidate,
    check_ledger,
    open_ledger,
)
from alflow.ledger import _tables as t
from alflow.ledger._states import HELD_JOBS
from alflow.loop import FolderServer, LabelWorker, SilentReporter, WorkUntil
from alflow.loop._outage import through_outage
from alflow.structures import Structure
from tests.databases import PostgresqlServer
from tests.kill import victim
from tests.kill.scene import Command, Scene
from tests.kill.victim import WORKER, Point, Trap, announce
from tests.labelers.test_program import GOOD, Script, labeler, processes_in

SOON = 60.0
IN_PROCESS, PROGRAM = "in-process", "program"
LADDER = "import json, sys; json.dump({'energy': -1.0, 'converged': sys.argv[1] == '1'}, open('out.json', 'w'))"


class Slow(EmtLabeler):
    """EMT that takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def label(self, structure: Any, directory: Path | None = None) -> LabelResult:
        """Wait first."""
        time.sleep(self.seconds)
        return super().label(structure, directory)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a process does.

    Parameters
    ----------
    role
        ``worker``, ``server`` or ``label``
    url, files
        of the ledger
    made
        the labeler
    theory
        what it computes
    config
        the worker's file
    folder
        of jobs, for servers and ``alflow-label``
    until
        when a worker or server ends
    silence
        s without a sign of life after which a server takes a job back
    arrival
        s for which a server waits for files that are late
    options
        further words for ``alflow-label``
    """

    role: str
    url: str
    files: Path | None
    made: Labeler
    theory: int
    config: WorkerConfig
    folder: Path
    until: WorkUntil = WorkUntil.EMPTY
    silence: float = 900.0
    arrival: float = 120.0
    options: tuple[str, ...] = ()


class Prints(SilentReporter):
    """Tells the log."""

    def note(self, text: str) -> None:
        """Write a line."""
        print(text, flush=True)


def be(part: Part, environment: dict[str, str], directory: str, log: str) -> None:
    """Be a part in a process of its own."""
    trap = victim.stand_alone(environment, directory, log)
    if trap is not None:
        announce_places(trap)
    if part.role == "label":
        alflow.folder.worker.BEAT_SECONDS, alflow.folder.worker.POLL_SECONDS = 0.1, 0.05
        command = [str(part.folder), "--programs", str(part.folder.parent / "alflow-label.toml"), *part.options]
        sys.exit(alflow.folder.worker.main(command))
    alflow.loop._folder.ARRIVAL_SECONDS = part.arrival
    # a command that is started while the database is away ends with one error, and is started again
    with through_outage(lambda: open_ledger(part.url, create=False, directory=part.files), Prints()) as ledger:
        labelers = {part.theory: part.made}
        if part.role == "worker":
            LabelWorker(ledger, part.config, labelers=labelers, report=Prints()).run(part.until)
        else:
            FolderServer(
                ledger, part.config, part.folder, labelers=labelers, silence=part.silence, report=Prints()
            ).serve(part.until)


def announce_places(trap: Trap) -> None:
    """Wrap what the trap must hear of besides."""
    announce(trap, Script, "read_outputs", "read")
    announce(trap, FolderServer, "_record", "write", after=True)
    announce(trap, FolderServer, "_write", "placed", after=True)
    announce(trap, FolderServer, "_look", "look")
    announce(trap, FolderServer, "_collect", "collect")
    announce(trap, FolderServer, "_keep", "keep")
    announce(trap, Script, "climb", "climb", after=True)
    label: Any = alflow.folder.worker
    write_json, move = label.write_json, label.move

    def written(path: Path, content: dict[str, Any]) -> None:
        if path.name == RESULT:
            trap.at("result")
        write_json(path, content)

    def moved(job: Path, goal: Path) -> bool:
        if goal.parent.name == DONE:
            trap.at("moving")
        done: bool = move(job, goal)
        if goal.parent.name == TAKEN:
            trap.at("taken")
        return done

    label.write_json, label.move = written, moved


@dataclass(kw_only=True)
class Bench:
    """Jobs, and the processes that label them.

    Parameters
    ----------
    scene
        the ledger, and the processes to be ended
    """

    scene: Scene
    jobs: list[int] = field(default_factory=list)
    theory: int = 0
    mode: str = IN_PROCESS

    # -- the ledger ------------------------------------------------------------------------------------------------

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """Open it for a moment."""
        with open_ledger(self.scene.url, create=False, directory=self.scene.files) as opened:
            yield opened

    def queue(self, n: int, mode: str = IN_PROCESS, made: Labeler | None = None) -> None:
        """Make jobs, one for each of so many crystals of copper."""
        self.mode = mode
        spec = (made or (Slow(0.0) if mode == IN_PROCESS else labeler())).theory()
        with self.ledger() as ledger:
            campaign = ledger.campaigns.create("jobs", "", {}, 1)
            theory = ledger.theories.register(
                spec.labeler, spec.labeler, dict(spec.settings), spec.code, dict(spec.files), spec.fingerprint
            )
            structures = self.structures(n)
            ids = ledger.pool.add(campaign.id, None, [NewCandidate(structure=s, source="test") for s in structures])
            for state in (CandidateState.POOLED, CandidateState.SELECTED):
                ledger.pool.transition(ids, state, "test")
            self.theory = theory.id
            self.jobs = [ledger.queue.enqueue(ledger.pool.get(i).structure_id, theory.id, i).id for i in ids]

    def structures(self, n: int) -> Sequence[Structure]:
        """Different ones."""
        return [Structure.from_atoms(bulk("Cu", a=3.5 + 0.002 * i)) for i in range(n)]

    def job(self, number: int = 0) -> JobRow:
        """One of the jobs."""
        with self.ledger() as ledger:
            return ledger.queue.get(self.jobs[number])

    def attempts(self, number: int = 0) -> list[AttemptRow]:
        """Its executions."""
        with self.ledger() as ledger:
            return ledger.queue.attempts(self.jobs[number])

    def causes(self, number: int = 0) -> list[FailureKind | None]:
        """Why its executions ended, oldest first."""
        return [attempt.error_kind for attempt in self.attempts(number)]

    def is_leased(self, number: int = 0) -> bool:
        """Whether a worker holds it, by a lease that has not run out."""
        with self.ledger() as ledger:
            row = ledger.queue.get(self.jobs[number])
            return (
                row.state in HELD_JOBS
                and row.lease_until is not None
                and datetime.fromisoformat(row.lease_until) > datetime.fromisoformat(ledger.now())
            )

    def wait(self, what: Callable[[], Any], seconds: float = SOON) -> None:
        """Return when something is true; raises AssertionError with what everybody said."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, "it never happened:\n" + self.said()
            time.sleep(0.03)

    def repeat_soon(self) -> None:
        """What a person may do: end the waiting times of failed jobs, and try those again that were put aside."""
        with self.ledger() as ledger:
            waiting = [job.id for job in ledger.queue.list(states=[JobState.RETRY_WAIT])]
            if waiting:
                ledger.queue.release(waiting)
            aside = [job.id for job in ledger.queue.list(states=[JobState.QUARANTINED])]
            if aside:
                ledger.queue.retry(aside)

    # -- the processes ---------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where jobs go to and come from."""
        return self.scene.directory / "jobs"

    def worker(self, point: str | None = None, **how: Any) -> Command:
        """Start a label worker."""
        return self._start("worker", point, **how)

    def server(self, point: str | None = None, **how: Any) -> Command:
        """Start the server of the folder."""
        return self._start("server", point, **how)

    def label(self, point: str | None = None, **how: Any) -> Command:
        """Start ``alflow-label``; by default it waits a long time for jobs."""
        self.folder.mkdir(exist_ok=True)
        (self.scene.directory / "alflow-label.toml").write_text(
            f'[script]\ncommand = ["{sys.executable}"]\nfree_disk_gb = 0\n'
        )
        return self._start("label", point, **({"options": ("--idle", "120")} | how))

    def _start(
        self,
        role: str,
        point: str | None,
        *,
        times: int = 1,
        action: str = "wait",
        script: str = GOOD,
        rungs: int = 1,
        seconds: float = 0.0,
        made: Labeler | None = None,
        config: dict[str, Any] | None = None,
        **more: Any,
    ) -> Command:
        scene = self.scene
        environment = {"OMP_NUM_THREADS": "1", "ALFLOW_LEDGER_FILES": str(scene.directory / "files")}
        if point is not None:
            environment |= {victim.POINT: str(Point(*WORKER, point, times)), victim.ACTION: action}
            environment |= {victim.SIGNALS: str(scene.signals)}
            for name in ("reached", "go"):
                (scene.signals / name).unlink(missing_ok=True)
        if made is None:
            made = Slow(seconds) if self.mode == IN_PROCESS else labeler(script, rungs)
        part = Part(
            role=role,
            url=scene.url,
            files=scene.files,
            made=made,
            theory=self.theory,
            config=WorkerConfig.model_validate({"poll_seconds": 0.05, "lease_seconds": 30.0} | (config or {})),
            **({"folder": self.folder} | more),
        )
        log = scene.directory / f"command-{len(scene.commands)}.log"
        process = multiprocessing.get_context("forkserver").Process(
            target=be, args=(part, environment, str(scene.directory), str(log))
        )
        process.start()
        command = Command(process, log)
        scene.commands.append(command)
        return command

    def stop(self, command: Command) -> None:
        """SIGSTOP between two transactions: within one it would hold locks, of SQLite's file even."""
        for _ in range(100):
            os.kill(command.pid, signal.SIGSTOP)
            if self._nobody_writes():
                return
            os.kill(command.pid, signal.SIGCONT)
            time.sleep(0.02)
        raise AssertionError("it writes all the time:\n" + self.said())

    def _nobody_writes(self) -> bool:
        if self.scene.url.startswith("sqlite"):
            with closing(sqlite3.connect(self.scene.url.removeprefix("sqlite:///"), timeout=0.1)) as file:
                try:
                    file.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    return False
                return True
        within = "state = 'idle in transaction' AND datname = current_database()"
        engine = create_engine(self.scene.url, poolclass=NullPool)
        with engine.connect() as connection:
            return not connection.exec_driver_sql(f"SELECT count(*) FROM pg_stat_activity WHERE {within}").scalar()

    def said(self) -> str:
        """Everything that the processes said."""
        return "\n".join(command.output() for command in self.scene.commands)

    def go_on_without(self, server: PostgresqlServer) -> None:
        """Crash the database, let the process that waits go on, and start it again."""
        server.stop("immediate")
        try:
            self.scene.go()
            time.sleep(0.5)
        finally:
            server.start()

    # -- what is left ----------------------------------------------------------------------------------------------

    def all_labelled(self) -> bool:
        """Whether every job is done."""
        with self.ledger() as ledger:
            return ledger.queue.counts()[JobState.DONE] == len(self.jobs)

    def losses(self, *, unlabelled: int = 0) -> list[str]:
        """What is lost, double or contradictory, a sentence for each; so many jobs may have failed."""
        scene = self.scene
        found = check_ledger(scene.url, directory=scene.files)
        with self.ledger() as ledger:
            with ledger._database.read() as connection:
                labels = Counter(connection.execute(select(t.Label.structure_id, t.Label.theory_id)).tuples())
                done = Counter(connection.scalars(select(t.Attempt.job_id).where(t.Attempt.state == AttemptState.DONE)))
            jobs = ledger.queue.list()
            states = [ledger.pool.get(i).state for job in jobs for i in ledger.queue.candidates_of(job.id)]
        found += [f"structure {i} has {n} labels of theory {k}" for (i, k), n in labels.items() if n != 1]
        found += [f"job {i} was done {n} times" for i, n in done.items() if n != 1]
        without = [job for job in jobs if (job.structure_id, job.theory_id) not in labels]
        if len(without) != unlabelled:
            found += [f"job {job.id} has no label and is {job.state}: {job.message}" for job in without]
        for job in jobs:
            if job in without:
                continue
            if job.state is not JobState.DONE or done[job.id] != 1:
                found.append(f"job {job.id} has a label, is {job.state}, and was done {done[job.id]} times")
        if states.count(CandidateState.LABELLED) != len(labels):
            found.append(f"{len(labels)} labels, but candidates are {Counter(states)}")
        found += [f"attempt {a.id} is {a.state} for ever" for a in self._unfinished()]
        found += [f"{text!r} in what was said" for text in ("Traceback",) if text in self.said()]
        return found

    def _unfinished(self) -> list[AttemptRow]:
        with self.ledger() as ledger:
            attempts = [a for job in self.jobs for a in ledger.queue.attempts(job)]
        return [attempt for attempt in attempts if attempt.finished is None]

    def processes(self) -> list[int]:
        """Programs and keepers that work below the scene's folder; the scene's own commands are not among them."""
        own = {command.pid for command in self.scene.commands}
        return [pid for pid in processes_in(self.scene.directory) if pid not in own]

    def nothing_runs(self) -> None:
        """Wait until no program or keeper is left; raises AssertionError where one is."""
        self.wait(lambda: not self.processes(), 15.0)

    def places(self) -> dict[str, list[str]]:
        """What is in the folder of jobs."""
        return {place: sorted(p.name for p in (self.folder / place).glob("*")) for place in (OPEN, TAKEN, DONE)}
