"""Jobs through a folder while its server, those who compute, and the database fail: each is labelled once all the same.

The server and ``alflow-label`` wait at named points while the test does something to them; what is said of these points
stands in :mod:`tests.kill.labelling`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import Any

import pytest

from alflow.errors import FailureKind
from alflow.folder import keeper
from alflow.folder.layout import DONE, OPEN, RESULT, TAKEN
from alflow.ledger import AttemptState, JobState
from tests.databases import PostgresqlServer
from tests.kill.labelling import LADDER, PROGRAM, Bench
from tests.labelers.test_program import GOOD

pytestmark = pytest.mark.integration

SLOW = pytest.mark.slow
"""Further points of the same kind: for a release."""
MOSTLY_ON_SQLITE = pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgresql", marks=SLOW)], indirect=True
)
"""What happens on the folder's side, of which the database hardly knows."""
ON_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
SLEEPY = f"import time; time.sleep(1.0); {GOOD}"
ENDLESS = "import time; time.sleep(600)"
FAILS_ONCE = f"""
from pathlib import Path
mark = Path("../../../../failed")
if mark.exists():
    {GOOD}
else:
    mark.touch()
    raise SystemExit("the lattice is upside down")
"""


def states(bench: Bench, number: int = 0) -> list[AttemptState]:
    """What became of the attempts of a job."""
    return [attempt.state for attempt in bench.attempts(number)]


@pytest.mark.parametrize(
    "point",
    [
        "placed",
        "climb",
        "complete-committed",
        *(
            pytest.param(point, marks=SLOW)
            for point in ("claim-committed", "write", "collect", "complete-commit", "keep")
        ),
    ],
)
def test_a_server_is_killed(bench: Bench, point: str) -> None:
    """The next one takes up what lies in the folder, in whatever state that is."""
    bench.queue(2, PROGRAM)
    how: dict[str, Any] = {"script": LADDER, "rungs": 3}
    bench.label()
    server = bench.server(point, action="kill", **how)
    assert server.wait() == -signal.SIGKILL
    assert bench.server(**how).wait() == 0
    assert bench.losses() == []
    assert {cause for i in range(2) for cause in bench.causes(i)} <= {None, FailureKind.WORKER_DIED}
    assert all(AttemptState.FAILED not in states(bench, i) for i in range(2)), "no calculation failed"
    assert [bench.job(i).deaths for i in range(2)] == [0, 0]
    assert bench.places() == {OPEN: [], TAKEN: [], DONE: []}
    bench.nothing_runs()


@MOSTLY_ON_SQLITE
def test_a_server_is_killed_while_it_puts_a_failure_away(bench: Bench) -> None:
    bench.queue(1, PROGRAM)
    bench.label()
    assert bench.server("keep", action="kill", script=FAILS_ONCE).wait() == -signal.SIGKILL
    server = bench.server(script=FAILS_ONCE, until="forever")
    bench.wait(lambda: FailureKind.CRASHED in bench.causes())
    bench.wait(bench.all_labelled)
    server.kill()
    assert bench.losses() == []
    assert bench.causes() == [FailureKind.WORKER_DIED, FailureKind.CRASHED, None]


@pytest.mark.parametrize("point", ["collect", *(pytest.param(p, marks=SLOW) for p in ("write", "placed", "keep"))])
def test_a_server_sleeps_past_its_lease(bench: Bench, point: str) -> None:
    """Another one serves the folder meanwhile; awake again the first disturbs nothing."""
    bench.queue(2, PROGRAM)
    if point in {"collect", "keep"}:
        bench.label()
    sleeper = bench.server(point, config={"lease_seconds": 1.0})
    bench.scene.wait_until_reached(sleeper)
    bench.stop(sleeper)
    bench.wait(lambda: not bench.is_leased())
    other = bench.server(until="forever")
    bench.wait(lambda: bench.is_leased(1) or bench.all_labelled())
    os.kill(sleeper.pid, signal.SIGCONT)
    bench.scene.go()
    assert sleeper.wait() == 0
    if point in {"write", "placed"}:
        bench.label()
    bench.wait(bench.all_labelled)
    other.kill()
    assert bench.losses() == []
    messages = [a.message for i in range(2) for a in bench.attempts(i) if a.state is AttemptState.FAILED]
    assert messages == [], "no calculation failed"
    bench.nothing_runs()


def test_two_servers_one_of_which_slept_while_its_job_waits(bench: Bench) -> None:
    """What the first server abandons belongs to the second by then."""
    bench.queue(1, PROGRAM)
    sleeper = bench.server("look", config={"lease_seconds": 1.0})
    bench.scene.wait_until_reached(sleeper)
    assert bench.job().state is JobState.SUBMITTED
    bench.stop(sleeper)
    bench.wait(lambda: not bench.is_leased())
    other = bench.server(until="forever")
    bench.wait(lambda: len(bench.attempts()) == 2 and bench.job().state is JobState.SUBMITTED)
    os.kill(sleeper.pid, signal.SIGCONT)
    bench.scene.go()
    assert sleeper.wait() == 0
    assert bench.places()[OPEN] == ["job-1"]
    bench.label()
    bench.wait(bench.all_labelled)
    other.kill()
    assert bench.losses() == []
    assert states(bench) == [AttemptState.RELEASED, AttemptState.DONE]


@ON_POSTGRESQL
@pytest.mark.parametrize(
    "point", ["collect", *(pytest.param(point, marks=SLOW) for point in ("placed", "complete-commit"))]
)
def test_the_database_crashes_under_a_server(bench: Bench, point: str, crashing_server: PostgresqlServer) -> None:
    bench.queue(3, PROGRAM)
    bench.label()
    server = bench.server(point)
    bench.scene.wait_until_reached(server)
    bench.go_on_without(crashing_server)
    assert server.wait() == 0
    assert "cannot be reached" in server.output()
    assert bench.losses() == []
    assert [states(bench, i) for i in range(3)] == [[AttemptState.DONE]] * 3
    bench.nothing_runs()


@ON_POSTGRESQL
@pytest.mark.parametrize(
    "point",
    [
        "claim-committed",
        "complete-committed",
        *(pytest.param(point, marks=SLOW) for point in ("claim-commit", "complete-commit")),
    ],
)
def test_a_server_loses_its_connection_during_a_commit(bench: Bench, point: str) -> None:
    bench.queue(3, PROGRAM)
    bench.label()
    server = bench.server(point, action="lose", config={"lease_seconds": 1.0}, until="forever")
    bench.scene.wait_until_reached(server)
    bench.scene.go()
    bench.wait(bench.all_labelled)
    server.kill()
    assert "the connection is lost" in server.output()
    assert bench.losses() == []
    again = [AttemptState.RELEASED, AttemptState.DONE] if point == "claim-committed" else [AttemptState.DONE]
    assert [states(bench, i) for i in range(3)] == [again] * 3


@MOSTLY_ON_SQLITE
@pytest.mark.parametrize("point", ["result", *(pytest.param(point, marks=SLOW) for point in ("taken", "moving"))])
def test_alflow_label_is_killed(bench: Bench, point: str) -> None:
    """It is silent, its job is taken back from it and computed by another one."""
    bench.queue(2, PROGRAM)
    server = bench.server(until="forever", silence=1.0)
    victim = bench.label(point, action="kill")
    assert victim.wait() == -signal.SIGKILL
    bench.label()
    bench.wait(lambda: FailureKind.WORKER_DIED in bench.causes(0) + bench.causes(1))
    assert bench.job(0).state in {JobState.DONE, JobState.RETRY_WAIT}
    bench.repeat_soon()
    bench.wait(bench.all_labelled)
    server.kill()
    assert bench.losses() == []
    causes = bench.causes(0) + bench.causes(1)
    assert sorted(map(str, causes)) == ["None", "None", "worker_died"]
    bench.nothing_runs()


@MOSTLY_ON_SQLITE
@pytest.mark.parametrize("keeper_too", [pytest.param(False, marks=SLOW), True], ids=["alone", "with its keeper"])
def test_alflow_label_is_killed_while_a_program_runs(bench: Bench, keeper_too: bool) -> None:
    bench.queue(1, PROGRAM)
    server = bench.server(until="forever", silence=1.0, script=ENDLESS)
    victim = bench.label()
    bench.wait(lambda: list(bench.folder.rglob(keeper.RUNNING)))
    assert bench.is_leased()
    assert bench.job().state is JobState.SUBMITTED
    if keeper_too:
        [record] = bench.folder.rglob(keeper.RUNNING)
        os.kill(json.loads(record.read_text())["keeper"], signal.SIGKILL)
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    bench.wait(lambda: bench.causes() == [FailureKind.WORKER_DIED])
    server.kill()
    bench.repeat_soon()
    bench.label()
    bench.nothing_runs()
    assert bench.server().wait() == 0
    assert bench.losses() == []
    assert bench.causes() == [FailureKind.WORKER_DIED, None]


@MOSTLY_ON_SQLITE
def test_alflow_label_sleeps_past_its_time(bench: Bench) -> None:
    bench.queue(1, PROGRAM)
    server = bench.server(until="forever", silence=1.0, script=SLEEPY)
    bench.wait(lambda: list((bench.folder / OPEN).glob("job-*")))
    sleeper = bench.label(options=("--jobs", "1", "--idle", "3"))
    bench.wait(lambda: list(bench.folder.rglob(keeper.RUNNING)))
    os.kill(sleeper.pid, signal.SIGSTOP)
    bench.wait(lambda: bench.causes() == [FailureKind.WORKER_DIED])
    bench.repeat_soon()
    bench.label()
    bench.wait(bench.all_labelled)
    label = bench.job()
    os.kill(sleeper.pid, signal.SIGCONT)
    assert sleeper.wait() == 0
    assert "was given to somebody else meanwhile" in sleeper.output()
    server.kill()
    assert bench.job() == label
    assert bench.losses() == []
    bench.nothing_runs()


@MOSTLY_ON_SQLITE
@pytest.mark.parametrize(
    "damage",
    ['{"files": {"input.json": 3}}', *(pytest.param(text, marks=SLOW) for text in ("{}", '{"files": null}', "[", ""))],
)
def test_a_damaged_result_ends_no_server(bench: Bench, damage: str) -> None:
    bench.queue(2, PROGRAM)
    server = bench.server(until="forever", arrival=0.3)
    bench.label("moving")
    bench.wait(lambda: (bench.scene.signals / "reached").exists())
    [result] = (bench.folder / TAKEN).glob(f"*/{RESULT}")
    result.write_text(damage)
    bench.scene.go()
    bench.wait(lambda: FailureKind.TRUNCATED in bench.causes(0) + bench.causes(1))
    bench.repeat_soon()
    bench.wait(bench.all_labelled)
    server.kill()
    assert bench.losses() == []
    assert sorted(map(str, bench.causes(0) + bench.causes(1))) == ["None", "None", "truncated"]


@MOSTLY_ON_SQLITE
def test_folders_that_appear_twice_are_stored_once(bench: Bench) -> None:
    """As a file system that was restored from a backup, or a user who copies, may leave them."""
    bench.queue(2, PROGRAM)
    server = bench.server("collect", until="forever")
    bench.wait(lambda: len(bench.places()[OPEN]) == 2)
    for name in bench.places()[OPEN]:
        shutil.copytree(bench.folder / OPEN / name, bench.scene.directory / "copies" / name)
    bench.label()
    bench.scene.wait_until_reached(server)
    for name in ("job-1", "job-2"):
        if not (bench.folder / OPEN / name).exists():
            shutil.copytree(bench.scene.directory / "copies" / name, bench.folder / OPEN / name)
    bench.scene.go()
    bench.wait(bench.all_labelled)
    bench.wait(lambda: not bench.places()[OPEN] and not bench.places()[TAKEN])
    server.kill()
    assert bench.server().wait() == 0
    assert bench.losses() == []
    assert [states(bench, i) for i in range(2)] == [[AttemptState.DONE]] * 2
    assert bench.places()[DONE] == []
