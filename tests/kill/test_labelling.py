"""Label workers that are killed, fall asleep, or lose the database: every job is labelled once, and nothing is left.

``IN_PROCESS`` labels are computed in the worker itself, ``PROGRAM`` labels by a program that it starts. The worker
waits at a named point while the test does something to it, having seen in the ledger that the job is leased.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from alflow.errors import FailureKind
from alflow.folder import keeper
from alflow.ledger import AttemptState, JobState
from alflow.structures import Structure
from tests.databases import PostgresqlServer
from tests.kill.labelling import IN_PROCESS, PROGRAM, Bench
from tests.kill.scene import Command
from tests.labelers import test_espresso_program as espresso

pytestmark = pytest.mark.integration

MODES = pytest.mark.parametrize("mode", [IN_PROCESS, PROGRAM])
ON_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
COMMITS = ("claim-commit", "claim-committed", "complete-commit", "complete-committed")
KILLED_AT = [pytest.param(p, marks=() if p == "complete-committed" else pytest.mark.slow) for p in COMMITS]
ENDLESS = "import time; time.sleep(600)"


def running(bench: Bench) -> list[Path]:
    """Records of programs that run."""
    return list(bench.scene.directory.rglob(keeper.RUNNING))


def begin(bench: Bench, mode: str, **how: Any) -> Command:
    """Start a worker and wait until it computes its first job."""
    if mode == IN_PROCESS:
        worker = bench.worker("inside", **how)
        bench.scene.wait_until_reached(worker)
    else:
        worker = bench.worker(script=ENDLESS, **how)
        bench.wait(lambda: running(bench))
    assert bench.is_leased()
    assert bench.job().state is JobState.RUNNING
    return worker


@pytest.mark.parametrize(
    ("mode", "keeper_too"),
    [(IN_PROCESS, False), (PROGRAM, False), (PROGRAM, True)],
    ids=[IN_PROCESS, PROGRAM, "program and its keeper"],
)
def test_a_worker_is_killed_inside_a_job(bench: Bench, mode: str, keeper_too: bool) -> None:
    bench.queue(3, mode)
    worker = begin(bench, mode)
    assert bench.is_leased()
    if keeper_too:
        [record] = running(bench)
        os.kill(json.loads(record.read_text())["keeper"], signal.SIGKILL)
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    assert bench.is_leased(), "its lease outlives it"
    assert bench.worker().wait() == 0
    assert bench.losses() == []
    assert [a.state for a in bench.attempts()] == [AttemptState.LOST, AttemptState.DONE]
    assert bench.causes() == [FailureKind.WORKER_DIED, None]
    assert bench.job().deaths == 1
    bench.nothing_runs()


@pytest.mark.parametrize("point", KILLED_AT)
def test_a_worker_is_killed_at_a_commit(bench: Bench, point: str) -> None:
    bench.queue(3)
    assert bench.worker(point, action="kill").wait() == -signal.SIGKILL
    assert bench.worker().wait() == 0
    assert bench.losses() == []


@MODES
def test_a_worker_sleeps_past_its_lease(bench: Bench, mode: str) -> None:
    """The job is labelled by another one, which also ends the program of the first; the first one's result is late."""
    bench.queue(1, mode)
    sleeper = begin(bench, mode, config={"lease_seconds": 1.0})
    bench.stop(sleeper)
    bench.wait(lambda: not bench.is_leased())
    other = bench.worker()
    assert other.wait() == 0
    label = bench.job()
    assert label.state is JobState.DONE
    os.kill(sleeper.pid, signal.SIGCONT)
    bench.scene.go()
    assert sleeper.wait() == 0
    assert bench.job() == label, "the late result changed nothing"
    assert bench.losses() == []
    assert [a.state for a in bench.attempts()] == [AttemptState.LOST, AttemptState.DONE]
    assert bench.causes() == [FailureKind.WORKER_DIED, None]
    assert [a.pid for a in bench.attempts()] == [sleeper.pid, other.pid]
    bench.nothing_runs()


@ON_POSTGRESQL
@pytest.mark.parametrize("point", ["claim-commit", "complete-commit"])
def test_a_worker_sleeps_past_its_lease_within_a_transaction(bench: Bench, point: str) -> None:
    """What it holds is locked, so that nobody takes it; awake again it stores what it began to store."""
    bench.queue(3)
    sleeper = bench.worker(point, config={"lease_seconds": 0.5, "batch": 1})
    bench.scene.wait_until_reached(sleeper)
    os.kill(sleeper.pid, signal.SIGSTOP)
    other = bench.worker(config={"batch": 1}, until="forever")
    bench.wait(lambda: [job.state for job in map(bench.job, range(3))].count(JobState.DONE) == 2)
    os.kill(sleeper.pid, signal.SIGCONT)
    bench.scene.go()
    assert sleeper.wait() == 0
    bench.wait(bench.all_labelled)
    other.kill()
    assert bench.losses() == []


@ON_POSTGRESQL
@MODES
def test_the_database_crashes_while_a_worker_computes(
    bench: Bench, mode: str, crashing_server: PostgresqlServer
) -> None:
    bench.queue(3, mode)
    worker = bench.worker("inside" if mode == IN_PROCESS else "read")
    bench.scene.wait_until_reached(worker)
    assert bench.is_leased()
    bench.go_on_without(crashing_server)
    assert worker.wait() == 0
    assert "cannot be reached" in worker.output()
    assert bench.losses() == []
    assert [len(bench.attempts(i)) for i in range(3)] == [1, 1, 1], "what was computed meanwhile is stored"
    bench.nothing_runs()


@ON_POSTGRESQL
@pytest.mark.parametrize("point", COMMITS)
def test_a_worker_loses_its_connection_during_a_commit(bench: Bench, point: str) -> None:
    bench.queue(3)
    worker = bench.worker(point, action="lose", config={"lease_seconds": 1.0}, until="forever")
    bench.scene.wait_until_reached(worker)
    bench.scene.go()
    bench.wait(bench.all_labelled)
    worker.kill()
    assert "the connection is lost" in worker.output()
    assert bench.losses() == []
    # a job whose claim was not answered rests until its lease has run out; what was computed is not computed again
    tried = [[a.state for a in bench.attempts(i)] for i in range(3)]
    again = [AttemptState.RELEASED] if point == "claim-committed" else []
    assert tried == [[*again, AttemptState.DONE], [AttemptState.DONE], [AttemptState.DONE]]
    assert [bench.job(i).deaths for i in range(3)] == [0, 0, 0]


@ON_POSTGRESQL
@pytest.mark.parametrize("point", ["claim-commit", "complete-commit"])
def test_the_server_ends_a_connection_before_a_commit(
    bench: Bench, point: str, crashing_server: PostgresqlServer
) -> None:
    """A commit that is sent on a connection which the server has ended."""
    bench.queue(3)
    worker = bench.worker(point)
    bench.scene.wait_until_reached(worker)
    crashing_server.administer(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{bench.scene.name}' AND state = 'idle in transaction'"
    )
    bench.scene.go()
    assert worker.wait() == 0
    assert "cannot be reached" in worker.output()
    assert bench.losses() == []
    assert [len(bench.attempts(i)) for i in range(3)] == [1, 1, 1]


@pytest.mark.skipif(bool(espresso.MISSING), reason=f"needs {', '.join(espresso.MISSING)}")
@pytest.mark.parametrize(
    ("database", "keeper_too"),
    [
        ("sqlite", True),
        ("postgresql", False),
        pytest.param("sqlite", False, marks=pytest.mark.slow),
        pytest.param("postgresql", True, marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else ("with its keeper" if value else "alone"),
    indirect=["database"],
)
def test_a_worker_is_killed_while_pw_x_runs(bench: Bench, keeper_too: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = espresso.labeler(espresso.ALUMINIUM)
    structure = espresso.rattled(bulk("Al", cubic=True, a=4.0), seed=2)
    monkeypatch.setattr(bench, "structures", lambda _: [structure])
    bench.queue(1, "pw.x", made)
    worker = bench.worker(made=made)

    def iterates() -> bool:
        outputs = bench.scene.directory.rglob("pw.out")
        return any("Self-consistent Calculation" in output.read_text() for output in outputs)

    bench.wait(iterates)
    assert bench.is_leased()
    assert "pw.x" in {Path(f"/proc/{pid}/comm").read_text().strip() for pid in bench.processes()}
    if keeper_too:
        [record] = running(bench)
        os.kill(json.loads(record.read_text())["keeper"], signal.SIGKILL)
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    assert bench.worker(made=made).wait() == 0
    bench.nothing_runs()
    assert bench.losses() == []
    assert bench.causes() == [FailureKind.WORKER_DIED, None]
    with bench.ledger() as ledger:
        label = ledger.labels.get(bench.job().structure_id, bench.theory)
    assert label is not None
    assert Structure.from_atoms(structure.to_atoms()) == structure
    assert label.properties.energy == pytest.approx(made.label(structure).properties.energy, abs=1e-6)
