"""A campaign in a folder of its own, the commands that work on it, and what they leave in its ledger."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import select

from alflow.ledger import AttemptState, CandidateState, JobState, StepState, check_ledger, open_ledger
from alflow.ledger import _tables as t
from tests.kill import victim
from tests.kill.victim import Point

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS = 300.0
ENDED = (0, 3)
"""Exit codes of a run that came to its end: a stopping rule, or nothing left to do."""

ROUNDS = 3

CAMPAIGN: dict[str, Any] = {
    "name": "killed",
    "elements": ["Ni", "Pt"],
    "theory": {"labeler": "emt"},
    "seed": 3,
    "targets": {"energy": 0.02, "force": 0.3, "stress": 0.03},
    "round0": {"prototypes": ["fcc"], "n_spread": 6, "max_atoms": 4, "parents": ["fcc"]},
    "sources": [
        {"kind": "enumerate", "max_atoms": 3},
        {"kind": "perturb", "n": 4, "rattle": 0.01, "strain": 0.002, "volume": 0.002},
        # nothing ends early by uncertainty, so that there is a middle in which to be killed
        {"kind": "relax", "max_starts": 4, "max_steps": 20, "propose_unconverged": True, "u_limit": 1000.0},
        {"kind": "dynamics", "walkers": 2, "steps": 12, "save_every": 6, "min_atoms": 4, "u_limit": 1000.0},
    ],
    "committee": {"n_members": 2, "channels": 4, "l_max": 2, "l_product": 1, "hidden": 8, "r_max": 4.0},
    # a checkpoint after every epoch of several steps, and some structures held out
    "training": {
        "steps": 16,
        "warm_steps": 12,
        "batch_size": 4,
        "checkpoint_seconds": 0,
        "validation_from": 8,
        "validation_fraction": 0.3,
        "validate_every": 4,
    },
    "selection": {"batch": 4},
    "budget": {"rounds": ROUNDS},
}
WORKER = {"batch": 4, "lease_seconds": 60.0, "poll_seconds": 0.1}

STEPS_OF_ROUND_0 = ("explore-enumerate", "design", "queue", "label", "assess")
STEPS_OF_LATER_ROUNDS = (
    "train",
    "explore-perturb",
    "explore-relax",
    "explore-dynamics",
    "score",
    "select",
    "queue",
    "label",
    "assess",
)
_AT_THE_END = ("writing", "commit", "committed", "after")
_FURTHER = {
    "train": ("inside", "checkpoint", "artifact"),
    "explore-relax": ("inside",),
    "explore-dynamics": ("inside",),
    "label": ("claim-commit", "claim-committed", "inside", "complete-commit", "complete-committed"),
}


def all_points() -> list[Point]:
    """Every named point of the three rounds, in the order in which a run comes to them."""
    rounds = ((0, STEPS_OF_ROUND_0), (1, STEPS_OF_LATER_ROUNDS), (2, STEPS_OF_LATER_ROUNDS))
    return [
        Point.of(index, step, place)
        for index, steps in rounds
        for step in steps
        for place in ("before", *_FURTHER.get(step, ()), *_AT_THE_END)
    ]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What must not depend on when a run was killed.

    Parameters
    ----------
    candidates
        structure, state, and the bits of its label: energy, forces and stress
    scores
        structure and the bits of its last u, which show whether a training was continued to the same committee
    committees
        round and SHA-256 of the stored file
    """

    candidates: frozenset[tuple[str, str, bytes | None]]
    scores: frozenset[tuple[str, str | None]]
    committees: tuple[tuple[int, str], ...]


class Command:
    """A started command, in a process group of its own."""

    def __init__(self, process: subprocess.Popen[bytes] | ForkServerProcess, log: Path) -> None:
        self._process, self._log = process, log
        assert process.pid is not None
        self.pid = process.pid

    def wait(self, seconds: float = COMMAND_SECONDS) -> int:
        """Return the exit code, minus the signal where one ended it; raises AssertionError when it takes too long."""
        if isinstance(self._process, subprocess.Popen):
            try:
                return self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"still running after {seconds:.0f} s:\n{self.output()}") from None
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"still running after {seconds:.0f} s:\n{self.output()}"
        return code

    def ended(self) -> int | None:
        """Return the exit code, as :meth:`wait` does; None while it runs."""
        return self._process.poll() if isinstance(self._process, subprocess.Popen) else self._process.exitcode

    def kill(self) -> None:
        """SIGKILL to everything that it is."""
        end_group(self.pid)
        self._process.kill()  # one that has not come to leading its group yet
        self.wait(30.0)

    def output(self) -> str:
        """What it wrote to both streams."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


@dataclass(kw_only=True)
class Scene:
    """One campaign and its ledger.

    Parameters
    ----------
    directory
        holds the campaign file, and the ledger or its files
    url
        of the ledger
    prepared
        True: commands are forked from a process that has imported everything, in milliseconds instead of seconds;
        False: they are started as a shell would
    """

    directory: Path
    url: str
    prepared: bool = False
    commands: list[Command] = field(default_factory=list)

    def write(self, *, worker: Mapping[str, Any] | None = None, **changes: Any) -> None:
        """Write the campaign file and the worker's; keyword arguments replace sections."""
        campaign = CAMPAIGN | {"ledger": self.url} | changes
        (self.directory / "campaign.yaml").write_text(yaml.safe_dump(campaign))
        (self.directory / "alflow-worker.yaml").write_text(yaml.safe_dump(WORKER | dict(worker or {})))

    def start(
        self,
        *arguments: str,
        point: Point | None = None,
        action: str = "kill",
        patience: float | None = None,
    ) -> Command:
        """Start ``alflow`` with these arguments; with a point, a trap is set there."""
        environment = {"ALFLOW_LEDGER_FILES": str(self.directory / "files"), "OMP_NUM_THREADS": "1"}
        if point is not None:
            environment |= {victim.POINT: str(point), victim.ACTION: action, victim.SIGNALS: str(self.signals)}
            for name in ("reached", "go"):
                (self.signals / name).unlink(missing_ok=True)
        if patience is not None:
            environment[victim.PATIENCE] = str(patience)
        log = self.directory / f"command-{len(self.commands)}.log"
        if self.prepared:
            server = multiprocessing.get_context("forkserver")
            arguments_of_run = (arguments, environment, str(self.directory), str(log))
            process = server.Process(target=victim.run, args=arguments_of_run)
            process.start()
            command = Command(process, log)
        else:
            module = "alflow.cli" if len(environment) == 2 else "tests.kill.victim"
            with log.open("wb") as output:
                popen = subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    cwd=self.directory,
                    env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join([str(ROOT), *_search_path()])},
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            command = Command(popen, log)
        self.commands.append(command)
        return command

    def run(self, point: Point | None = None, **how: Any) -> Command:
        """Start ``alflow run campaign.yaml``."""
        return self.start("run", "campaign.yaml", point=point, **how)

    def run_rounds(self, rounds: int) -> Command:
        """Start ``alflow run campaign.yaml --rounds N``."""
        return self.start("run", "campaign.yaml", "--rounds", str(rounds))

    def run_without_work(self, point: Point | None = None) -> Command:
        """Start ``alflow run campaign.yaml --no-work``, which waits for label workers."""
        return self.start("run", "campaign.yaml", "--no-work", point=point)

    def finish(self, at_most: int = 3) -> None:
        """Repeat the command until it ends by itself; a traceback is a failure whatever the ledger says."""
        for _ in range(at_most):
            command = self.run()
            code = command.wait()
            assert "Traceback" not in command.output(), command.output()
            if code in ENDED:
                return
        raise AssertionError(f"the command ended with {code}:\n{command.output()}")

    @property
    def name(self) -> str:
        """Of the database."""
        return self.url.rpartition("/")[2]

    @property
    def signals(self) -> Path:
        """Where a command says that it waits, and is told to go on."""
        return self.directory

    def wait_until_reached(self, command: Command, seconds: float = 120.0) -> None:
        """Return when a command waits at its point."""
        deadline = time.monotonic() + seconds
        while not (self.signals / "reached").exists():
            assert time.monotonic() < deadline, f"the point was not reached:\n{command.output()}"
            time.sleep(0.02)

    def go(self) -> None:
        """Let a command that waits go on."""
        (self.signals / "go").touch()

    # -- what is left --------------------------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        """Read from the ledger what a kill must not change."""
        with open_ledger(self.url, create=False, directory=self.files) as ledger:
            campaign = ledger.campaigns.list()[0]
            theory = ledger.theories.list()[0]
            rows = ledger.pool.rows(ledger.pool.ids(campaign.id))
            labels = {label.structure_id: label for label in ledger.labels.accepted(theory.id, campaign.id)}
            bits = {i: label.properties.to_bytes() for i, label in labels.items()}
            committees = ledger.committees.list(campaign.id)
            digests = {artifact.id: artifact.sha256 for artifact in ledger.artifacts.list()}
            return Outcome(
                candidates=frozenset((r.content_hash, r.state.value, bits.get(r.structure_id)) for r in rows),
                scores=frozenset((r.content_hash, None if r.u is None else r.u.hex()) for r in rows),
                committees=tuple((c.round_index, digests[c.artifact_id or 0]) for c in committees),
            )

    def losses(self) -> list[str]:
        """What is lost, double or contradictory in the ledger, a sentence for each; empty where all is well."""
        found = check_ledger(self.url, directory=self.files)
        with open_ledger(self.url, create=False, directory=self.files) as ledger:
            campaign = ledger.campaigns.list()[0]
            with ledger._database.read() as connection:
                labels = Counter(connection.scalars(select(t.Label.structure_id)))
                query = select(t.Job.structure_id).join(t.Attempt, t.Attempt.job_id == t.Job.id)
                done = Counter(connection.scalars(query.where(t.Attempt.state == AttemptState.DONE)))
            found += [f"structure {i} has {n} labels" for i, n in labels.items() if n > 1]
            found += [f"structure {i} was labelled {n} times" for i, n in done.items() if n > 1]
            jobs = ledger.queue.list()
            found += [f"job {job.id} is {job.state}" for job in jobs if job.state is not JobState.DONE]
            found += [f"job {job.id} has no label" for job in jobs if not labels[job.structure_id]]
            found += [f"job {job.id} has no attempt that is done" for job in jobs if done[job.structure_id] != 1]
            for row in ledger.rounds.list(campaign.id):
                steps = ledger.rounds.steps(row.id)
                found += [f"step {s.name} is {s.state}" for s in steps if s.state is not StepState.FINISHED]
                chosen = [i["id"] for s in steps if s.name == "select" for i in s.summary["batch"]]
                fates = {r.id: r.state for r in ledger.pool.rows(chosen)}
                paid = {CandidateState.LABELLED, CandidateState.DUPLICATE}
                found += [f"candidate {i}, chosen, is {state}" for i, state in fates.items() if state not in paid]
        return found

    @property
    def files(self) -> Path | None:
        """The ledger's folder of files; None: beside the database."""
        return None if self.url.startswith("sqlite") else self.directory / "files"

    def end_all(self) -> None:
        """Kill what still runs; raises AssertionError if something outlives that."""
        for command in self.commands:
            command.kill()
        deadline = time.monotonic() + 10.0
        while left := [pid for command in self.commands for pid in members(command.pid)]:
            assert time.monotonic() < deadline, f"processes are left: {left}"
            time.sleep(0.05)


def _search_path() -> list[str]:
    """Where Python is told to look for modules besides; commands start in another folder."""
    return [str(Path(entry).absolute()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def end_group(leader: int) -> None:
    """SIGKILL to a process group, if there is one."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def members(leader: int) -> list[int]:
    """Processes of a session that still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(fields[3]) == leader and fields[0] not in {"Z", "X"}:
            found.append(int(entry.name))
    return found
