"""An ``alflow`` command with a trap: at one named point of its work it dies, waits, or loses the database's answer.

``python -m tests.kill.victim run campaign.yaml`` is ``alflow run campaign.yaml`` but for what the environment asks:

``ALFLOW_TEST_POINT``
    where: ``round.step.place``, such as ``1.train.inside``; label workers are at ``-1.worker``. A fourth part counts
    how often the place must be met before the trap springs
``ALFLOW_TEST_ACTION``
    ``kill`` (the default): SIGKILL to itself; ``wait``: say so by a file and go on when another file is there, while
    a test does something to the database; ``lose``: wait likewise, and then lose the connection
``ALFLOW_TEST_SIGNALS``
    folder of these files, ``reached`` and ``go``
``ALFLOW_TEST_PATIENCE``
    seconds for which a ledger that cannot be reached is waited for

The product knows nothing of this: functions are wrapped here, in the process that is to be killed. The places are

======================  ============================================================================================
before, after           the step's function is called, has returned
writing                 two statements of the step's writing transaction are executed
commit, committed       the transaction that finishes the step is about to be committed, is committed
inside                  the middle of a training epoch, of a trajectory, of a relaxation, of a calculation
checkpoint, artifact    a training checkpoint is written but not in place; a committee's file is, its row is not
claim-, complete-       the same two moments of the transactions that claim jobs and that store a label
commit, -committed
======================  ============================================================================================
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import getattr_static
from pathlib import Path
from types import ModuleType
from typing import Any

import ase.calculators.emt  # noqa: F401  as the next two: loaded once, before commands are forked from here
import psycopg
import rich.table  # noqa: F401
import spglib  # noqa: F401
from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

import alflow.cli._app
import alflow.cli._drive
import alflow.explore._dynamics
import alflow.explore._relax
import alflow.labelers._emt
import alflow.ledger._claims
import alflow.ledger._rounds
import alflow.loop._driver
import alflow.loop._outage
import alflow.potentials._optimiser
from alflow.cli import main

WORKER = (-1, "worker")
POINT, ACTION, SIGNALS, PATIENCE = (f"ALFLOW_TEST_{name}" for name in ("POINT", "ACTION", "SIGNALS", "PATIENCE"))

_PR_SET_PDEATHSIG = 1  # from sys/prctl.h
# how often a place is met before its trap springs: the first is too early to have left something behind
_TIMES = {"inside": 2, "writing": 2, "checkpoint": 2, "complete-commit": 2, "complete-committed": 2}
_TIMES_INSIDE = {"train": 6, "explore-relax": 3, "explore-dynamics": 5}


@dataclass(frozen=True)
class Point:
    """A moment in the work of a command: which round and step, and where in it."""

    round: int
    step: str
    place: str
    times: int = 1

    @classmethod
    def of(cls, round_index: int, step: str, place: str) -> Point:
        """The point at which a kill is most likely to hurt."""
        times = _TIMES.get(place, 1)
        return cls(round_index, step, place, _TIMES_INSIDE.get(step, times) if place == "inside" else times)

    @classmethod
    def parse(cls, text: str) -> Point:
        """Inverse of ``str``."""
        index, step, place, times = text.split(".")
        return cls(int(index), step, place, int(times))

    def __str__(self) -> str:
        return f"{self.round}.{self.step}.{self.place}.{self.times}"


class Trap:
    """Knows where the main thread is, and springs once at its point."""

    def __init__(self, point: Point, action: str, signals: Path | None) -> None:
        self.point, self.action, self.signals = point, action, signals
        self.here = WORKER
        self.transaction: str | None = None
        self.left = point.times

    def at(self, place: str) -> bool:
        """Say that a place is reached; True where the connection is to be lost there."""
        if threading.current_thread() is not threading.main_thread():
            return False
        if place != self.point.place or self.here != (self.point.round, self.point.step) or self.left == 0:
            return False
        self.left -= 1
        if self.left:
            return False
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        assert self.signals is not None, "waiting needs a folder for its signals"
        (self.signals / "reached").touch()
        while not (self.signals / "go").exists():
            time.sleep(0.01)
        return self.action == "lose"


def set_trap(trap: Trap) -> None:
    """Wrap what the trap must hear of."""
    _watch_steps(trap)
    _watch_transactions(trap)
    _watch_files(trap)
    announce(trap, alflow.potentials._optimiser.OptimiserState, "update", "inside")
    announce(trap, alflow.explore._relax._Relaxation, "_step", "inside")
    announce(trap, alflow.explore._dynamics._Walkers, "_advance", "inside")
    announce(trap, alflow.labelers._emt.EmtLabeler, "compute", "inside")


def announce(trap: Trap, owner: type | ModuleType, name: str, place: str, *, after: bool = False) -> None:
    """Make a function of a class or a module say that it is called, or has returned."""
    original, static = getattr(owner, name), isinstance(getattr_static(owner, name), staticmethod)

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        if not after:
            trap.at(place)
        result = original(*arguments, **keywords)
        if after:
            trap.at(place)
        return result

    setattr(owner, name, staticmethod(wrapped) if static else wrapped)


def _watch_steps(trap: Trap) -> None:
    round_steps = alflow.loop._driver.round_steps

    def watched(index: int, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        # a source's step carries a digest of its settings
        short = name.rpartition("-")[0] if name.startswith("explore-") else name

        def step(*arguments: Any) -> Any:
            trap.here, trap.transaction = (index, short), None
            try:
                trap.at("before")
                result = function(*arguments)
                trap.at("after")
            finally:
                trap.here = WORKER
            return result

        return step

    def steps(ctx: Any, index: int) -> list[tuple[str, Callable[..., Any]]]:
        return [(name, watched(index, name, function)) for name, function in round_steps(ctx, index)]

    alflow.loop._driver.round_steps = steps


def _watch_transactions(trap: Trap) -> None:
    """Hear of the statements and the commits of the main thread, and of what a transaction is for."""
    do_commit: Callable[..., None] = DefaultDialect.do_commit

    def commit(self: DefaultDialect, dbapi_connection: Any) -> None:
        main_thread = threading.current_thread() is threading.main_thread()
        kind, lost = trap.transaction if main_thread else None, False
        if kind is not None:
            trap.transaction = None
            lost = trap.at(f"{kind}commit")
        if not lost:
            do_commit(self, dbapi_connection)
            if kind is not None:
                lost = trap.at(f"{kind}committed")
        if lost:  # before the database has committed, or after it did and its answer never arrives
            dbapi_connection.driver_connection.close()
            raise psycopg.OperationalError("the connection is lost")

    DefaultDialect.do_commit = commit  # type: ignore[method-assign]

    def executed(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith(("INSERT", "UPDATE")):
            trap.at("writing")

    event.listen(Engine, "after_cursor_execute", executed)

    def label(owner: type, name: str, kind: str) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            trap.transaction = kind
            return original(*arguments, **keywords)

        setattr(owner, name, wrapped)

    label(alflow.ledger._rounds.Rounds, "finish_step", "")
    label(alflow.ledger._claims.Claims, "claim", "claim-")
    label(alflow.ledger._claims.Claims, "complete", "complete-")


def _watch_files(trap: Trap) -> None:
    replace = Path.replace

    def replaced(self: Path, target: Any) -> Path:
        if self.name.startswith(".training.ckpt"):
            trap.at("checkpoint")
        result = replace(self, target)
        if self.suffix == ".partial":
            trap.at("artifact")
        return result

    Path.replace = replaced  # type: ignore[method-assign,assignment]


def run(arguments: Sequence[str], environment: Mapping[str, str], directory: str, log: str) -> None:
    """Be a command in a process of its own: the target of a process that was forked from a prepared one."""
    stand_alone(environment, directory, log)
    sys.argv = ["alflow", *arguments]
    main()


def stand_alone(environment: Mapping[str, str], directory: str, log: str) -> Trap | None:
    """Make this forked process what a shell would have started, with the trap that the environment asks for."""
    os.setsid()
    if sys.platform == "linux":  # what tests started ends with them, also when they are killed themselves
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.update(environment)
    os.chdir(directory)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(output, number)
    return prepare()


def prepare() -> Trap | None:
    """Set what the environment asks for; return the trap, so that more places can be made known to it."""
    trap = None
    if POINT in os.environ:
        signals = Path(os.environ[SIGNALS]) if SIGNALS in os.environ else None
        trap = Trap(Point.parse(os.environ[POINT]), os.environ.get(ACTION, "kill"), signals)
        set_trap(trap)
    if PATIENCE in os.environ:
        alflow.loop._outage.PATIENCE_SECONDS = float(os.environ[PATIENCE])
    return trap


if __name__ == "__main__":
    prepare()
    main()
