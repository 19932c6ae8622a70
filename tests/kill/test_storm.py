"""Faults at random moments while jobs are labelled, many of them: nothing is lost, nothing is double.

``make test-slow``; with ``-rP`` each test says what was done. Whoever is hurt is drawn, and so is the moment; a new
process takes the place of one that was killed, and one that was stopped goes on when its lease has run out.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from alflow.errors import FailureKind
from alflow.ledger import AttemptState
from tests.databases import PostgresqlServer
from tests.kill.labelling import IN_PROCESS, PROGRAM, Bench
from tests.kill.scene import Command
from tests.labelers.test_program import GOOD

pytestmark = pytest.mark.slow

FOLDER = "folder"
N_JOBS, N_FAULTS, LEASE = 80, 30, 1.5
MOST_SECONDS = 900.0
NEVER_ASIDE = {"machine": 1000, "calculation": 1000, "deaths": 1000, "delay_seconds": 0.0}
CONFIG = {"lease_seconds": LEASE, "batch": 2, "retries": NEVER_ASIDE}
TAKES_TIME = f"import time; time.sleep(0.2); {GOOD}"


@dataclass(kw_only=True)
class Storm:
    """Who works, and what is done to them.

    Parameters
    ----------
    bench
        the jobs
    draw
        chance
    crew
        who works, and how each is replaced
    asleep
        who is stopped, and until when
    faults
        how often each kind was done; ``in a job`` counts kills and stops of somebody who held a leased job
    """

    bench: Bench
    draw: random.Random
    crew: list[tuple[Command, Callable[[], Command]]] = field(default_factory=list)
    asleep: dict[int, float] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, start: Callable[[], Command]) -> None:
        """Let somebody work."""
        self.crew.append((start(), start))

    def holders(self) -> set[int]:
        """Processes that hold jobs, by the ledger."""
        with self.bench.ledger() as ledger:
            return {attempt.pid for attempt in ledger.queue.held_attempts()}

    def hurt(self, fault: str) -> None:
        """Kill or stop one of those who are awake."""
        awake = [i for i, (command, _) in enumerate(self.crew) if command.pid not in self.asleep]
        if not awake:
            return
        chosen = self.draw.choice(awake)
        command, start = self.crew[chosen]
        self.faults["in a job"] += command.pid in self.holders()
        self.faults[fault] += 1
        if fault == "killed":
            os.kill(command.pid, signal.SIGKILL)
            assert command.wait() == -signal.SIGKILL, command.output()
            self.crew[chosen] = (start(), start)
        else:
            os.kill(command.pid, signal.SIGSTOP)
            self.asleep[command.pid] = time.monotonic() + self.draw.uniform(1.0, 2.0) * LEASE

    def wake(self, *, all_of_them: bool = False) -> None:
        """Let those go on who slept long enough."""
        for pid, until in list(self.asleep.items()):
            if all_of_them or time.monotonic() > until:
                os.kill(pid, signal.SIGCONT)
                del self.asleep[pid]

    def check_crew(self) -> None:
        """Nobody ends but by a kill."""
        for command, _ in self.crew:
            assert command.ended() is None, f"ended with {command.ended()}:\n{command.output()}"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", [IN_PROCESS, PROGRAM, FOLDER])
def test_faults_at_random_moments(
    bench: Bench, mode: str, seed: int, database: str, request: pytest.FixtureRequest
) -> None:
    bench.queue(N_JOBS, IN_PROCESS if mode == IN_PROCESS else PROGRAM)
    storm = Storm(bench=bench, draw=random.Random(f"{mode} {database} {seed}"))
    if mode == FOLDER:
        storm.add(lambda: bench.server(until="forever", silence=LEASE, script=TAKES_TIME, config=CONFIG))
        for _ in range(2):
            storm.add(lambda: bench.label(options=("--idle", "1000")))
    else:
        for _ in range(3):
            storm.add(lambda: bench.worker(until="forever", seconds=0.2, script=TAKES_TIME, config=CONFIG))
    kinds = ["killed", "stopped"]
    server: PostgresqlServer | None = None
    if database == "postgresql":
        server = request.getfixturevalue("crashing_server")
        kinds += ["database crashed", "connections cut"]
    deadline = time.monotonic() + MOST_SECONDS
    while not bench.all_labelled():
        assert time.monotonic() < deadline, bench.said()
        time.sleep(storm.draw.uniform(0.05, 0.6))
        storm.wake()
        storm.check_crew()
        if sum(storm.faults[kind] for kind in kinds) < N_FAULTS:
            fault = storm.draw.choice(kinds)
            if fault in {"killed", "stopped"}:
                storm.hurt(fault)
                continue
            assert server is not None
            storm.faults[fault] += 1
            if fault == "database crashed":
                server.stop("immediate")
                time.sleep(storm.draw.uniform(0.0, 0.5))
                server.start()
            else:
                cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{bench.scene.name}'"
                server.administer(cut)
    storm.wake(all_of_them=True)
    time.sleep(1.0)  # whoever comes late with a result comes now
    storm.check_crew()
    for command, _ in storm.crew:
        command.kill()
    bench.nothing_runs()
    attempts = [attempt for i in range(N_JOBS) for attempt in bench.attempts(i)]
    states = Counter(str(attempt.state) for attempt in attempts)
    print(f"{mode}, {database}, {seed}: {N_JOBS} jobs, {dict(storm.faults)}, attempts {dict(states)}")
    assert bench.losses() == []
    assert sum(storm.faults[kind] for kind in kinds) >= 20
    assert states[AttemptState.DONE] == N_JOBS
    assert {attempt.error_kind for attempt in attempts} <= {None, FailureKind.WORKER_DIED}
