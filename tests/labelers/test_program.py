"""Labelers that run a program: limits, ends, ladders, and whoever is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from ase.build import bulk
from pydantic import BaseModel, ConfigDict

from alflow.errors import FailureKind, LabelFailure
from alflow.folder import keeper
from alflow.labelers import (
    Capabilities,
    Ended,
    Invocation,
    ProgramLabeler,
    ProgramSettings,
    RawOutcome,
    RunHandle,
    RunState,
    TheorySpec,
    WorkerConfig,
)
from alflow.structures import Properties, Structure

COPPER = Structure.from_atoms(bulk("Cu"))
GOOD = "import json; json.dump({'energy': -1.0, 'converged': True}, open('out.json', 'w'))"


class NoSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Script(ProgramLabeler):
    """Runs a Python script, which is given the rung of the ladder."""

    name = "script"
    settings_model: type[BaseModel] = NoSettings
    script = GOOD
    rungs = 1

    @classmethod
    def create(cls, settings: BaseModel, *, worker: WorkerConfig, directory: Path) -> Self:
        return cls(worker.programs["script"])

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(stress=False, elements=frozenset({"Cu"}))

    @property
    def n_rungs(self) -> int:
        return self.rungs

    def theory(self) -> TheorySpec:
        return TheorySpec(labeler=self.name, settings={}, code="script 1.0")

    def write_inputs(self, structure: Structure, folder: Path, rung: int) -> Invocation:
        (folder / "script.py").write_text(textwrap.dedent(self.script))
        return Invocation(arguments=("script.py", str(rung)))

    def read_outputs(self, structure: Structure, folder: Path, ended: Ended) -> RawOutcome:
        try:
            out = json.loads((folder / "out.json").read_text())
        except (OSError, ValueError) as error:
            raise LabelFailure(FailureKind.TRUNCATED, f"no output: {error}") from error
        properties = Properties(energy=out["energy"], forces=np.zeros((structure.n_atoms, 3)))
        evidence = {"converged": out["converged"], "convergence": "it says so"}
        return RawOutcome(structure=structure, properties=properties, evidence=evidence)


def labeler(script: str = GOOD, rungs: int = 1, **limits: Any) -> Script:
    made = Script(ProgramSettings.model_validate({"command": [sys.executable], "free_disk_gb": 0.0, **limits}))
    made.script, made.rungs = script, rungs
    return made


def processes_in(directory: Path) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cwd").readlink().is_relative_to(directory.resolve()):
                found.append(int(place.name))
        except OSError:
            continue
    return found


def test_a_program_labels_and_leaves_its_record(tmp_path: Path) -> None:
    result = labeler(environment={"COLOUR": "red"}).label(COPPER, tmp_path / "job")
    assert result.properties.energy == -1.0
    assert result.evidence["runs"] == 1
    assert result.evidence["rung"] == 0
    assert result.evidence["command"] == [sys.executable, "script.py", "0"]
    assert result.seconds > 0
    assert {"input.json", "run-1/run.json", "run-1/ended.json", "run-1/out.json"} <= set(result.files)
    assert labeler().parse(tmp_path / "job").properties.energy == -1.0
    assert not processes_in(tmp_path)


def test_without_a_directory_nothing_is_left() -> None:
    assert labeler().label(COPPER).properties.energy == -1.0


def test_a_finished_run_is_not_started_again(tmp_path: Path) -> None:
    first = labeler("import json, time; json.dump({'energy': time.time(), 'converged': True}, open('out.json', 'w'))")
    energy = first.label(COPPER, tmp_path / "job").properties.energy
    assert first.label(COPPER, tmp_path / "job").properties.energy == energy


@pytest.mark.parametrize(
    ("script", "limits", "kind", "words"),
    [
        ("import time; time.sleep(60)", {"wall_seconds": 0.3}, FailureKind.WALL_TIME, r"wall_seconds: 0\.3"),
        (
            "import time; held = bytearray(300_000_000); held[::4096] = b'x' * len(held[::4096]); time.sleep(60)",
            {"memory_gb": 0.1},
            FailureKind.MEMORY,
            r"memory_gb: 0\.1",
        ),
        ("import sys; sys.exit('OSError: No space left on device')", {}, FailureKind.DISK_FULL, "No space left"),
        ("raise MemoryError", {}, FailureKind.MEMORY, "MemoryError"),
        ("import os; os.kill(os.getpid(), 9)", {}, FailureKind.MEMORY, "killed from outside"),
        ("import os; os.kill(os.getpid(), 11)", {}, FailureKind.CRASHED, "signal SIGSEGV"),
        ("import sys; sys.exit('the lattice is upside down')", {}, FailureKind.CRASHED, "exit code 1: the lattice is"),
        ("print('done')", {}, FailureKind.TRUNCATED, "no output"),
        ("open('out.json', 'w').write('{\"energy\": -1')", {}, FailureKind.TRUNCATED, "no output"),
        ("", {"command": ["no-such-program"]}, FailureKind.UNAVAILABLE, "no-such-program: No such file"),
        ("", {"free_disk_gb": 1e9}, FailureKind.DISK_FULL, "free_disk_gb: 1e"),
    ],
    ids=lambda value: None if isinstance(value, dict | str) else value.value,
)
def test_every_end_is_recognised_as_what_it_is(
    tmp_path: Path, script: str, limits: dict[str, Any], kind: FailureKind, words: str
) -> None:
    with pytest.raises(LabelFailure, match=words) as caught:
        labeler(script, **limits).label(COPPER, tmp_path / "job")
    assert caught.value.kind is kind
    assert not processes_in(tmp_path)


class LeavesScratch(Script):
    """A code that writes wavefunctions, which nobody reads."""

    def discard(self, folder: Path) -> None:
        (folder / "scratch.dat").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("end", "limits"),
    [
        (GOOD, {}),
        ("import sys; sys.exit('it crashed')", {}),
        ("import time; time.sleep(60)", {"wall_seconds": 0.5}),
        (
            "held = bytearray(300_000_000); held[::4096] = b'x' * len(held[::4096]); __import__('time').sleep(60)",
            {"memory_gb": 0.1},
        ),
    ],
    ids=["good", "crashed", "wall_time", "memory"],
)
def test_large_scratch_goes_however_a_run_ends(tmp_path: Path, end: str, limits: dict[str, Any]) -> None:
    made = LeavesScratch(ProgramSettings.model_validate({"command": [sys.executable], "free_disk_gb": 0.0, **limits}))
    made.script = f"open('scratch.dat', 'wb').write(bytes(1000)); open('begun', 'w').close(); {end}"
    with nullcontext() if end == GOOD else pytest.raises(LabelFailure):
        made.label(COPPER, tmp_path / "job")
    assert (tmp_path / "job" / "run-1" / "begun").exists()
    assert not (tmp_path / "job" / "run-1" / "scratch.dat").exists()


def test_what_a_launcher_leaves_behind_is_ended(tmp_path: Path) -> None:
    script = f"""
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        {GOOD}
    """
    assert labeler(script).label(COPPER, tmp_path / "job").properties.energy == -1.0
    assert not processes_in(tmp_path)


def test_a_program_that_ignores_the_request_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tmp_path / "keeper.py"
    text = Path(keeper.__file__).read_text()
    short.write_text(text.replace("GRACE_SECONDS = 5.0", "GRACE_SECONDS = 0.3"))
    monkeypatch.setattr(keeper, "__file__", str(short))
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    with pytest.raises(LabelFailure) as caught:
        labeler(script, wall_seconds=0.5).label(COPPER, tmp_path / "job")
    assert caught.value.kind is FailureKind.WALL_TIME
    assert not processes_in(tmp_path / "job")


def test_the_ladder_changes_numerics_until_it_converges(tmp_path: Path) -> None:
    script = """
        import json, sys
        json.dump({"energy": -1.0 - int(sys.argv[1]), "converged": sys.argv[1] == "2"}, open("out.json", "w"))
    """
    result = labeler(script, rungs=4).label(COPPER, tmp_path / "job")
    assert result.properties.energy == -3.0
    assert (result.evidence["runs"], result.evidence["rung"]) == (3, 2)


def test_a_ladder_that_ends_unconverged_is_no_label(tmp_path: Path) -> None:
    script = "import json; json.dump({'energy': -1.0, 'converged': False}, open('out.json', 'w'))"
    with pytest.raises(LabelFailure) as caught:
        labeler(script, rungs=2).label(COPPER, tmp_path / "job")
    assert caught.value.kind is FailureKind.NOT_CONVERGED
    assert len(list((tmp_path / "job").glob("run-*"))) == 2


def test_other_failures_climb_no_ladder(tmp_path: Path) -> None:
    with pytest.raises(LabelFailure):
        labeler("import sys; sys.exit(3)", rungs=3).label(COPPER, tmp_path / "job")
    assert len(list((tmp_path / "job").glob("run-*"))) == 1


def test_steps_may_be_taken_by_different_processes(tmp_path: Path) -> None:
    """One object prepares, another starts, a third looks and reads."""
    job = tmp_path / "job"
    slow = f"import time; time.sleep(0.3); {GOOD}"
    labeler(slow).prepare(COPPER, job)
    starter = labeler(slow)
    handle = starter.submit(job)
    assert handle.process_id is not None
    watcher = labeler(slow)
    deadline = time.monotonic() + 20
    while not (job / "run-1" / keeper.RUNNING).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watcher.poll(handle) is RunState.RUNNING
    assert watcher.submit(job).directory == job
    assert len(list(job.glob("run-*"))) == 1
    while watcher.poll(handle) is RunState.RUNNING and time.monotonic() < deadline:
        time.sleep(0.02)
    assert watcher.parse(job).properties.energy == -1.0
    starter.end(job)


def test_a_worker_that_is_killed_takes_its_program_with_it(tmp_path: Path) -> None:
    job = tmp_path / "job"
    program = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.labelers.test_program import COPPER, labeler
        labeler("import time; time.sleep(120)").label(COPPER, Path({str(job)!r}))
        """
    )
    worker = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    running = job / "run-1" / keeper.RUNNING
    deadline = time.monotonic() + 60
    while not running.exists() and worker.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running.exists()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    while processes_in(job) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_in(job)
    with pytest.raises(LabelFailure) as caught:
        labeler().parse(job)
    assert caught.value.kind is FailureKind.WORKER_DIED


def test_a_keeper_that_was_killed_leaves_a_run_that_is_started_afresh(tmp_path: Path) -> None:
    job = tmp_path / "job"
    first = labeler("import time; time.sleep(120)")
    first.prepare(COPPER, job)
    handle = first.submit(job)
    running = job / "run-1" / keeper.RUNNING
    deadline = time.monotonic() + 20
    while not running.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    session = json.loads(running.read_text())["session"]
    assert handle.process_id is not None
    os.kill(handle.process_id, signal.SIGKILL)
    assert processes_in(job)  # the program outlives its keeper, and the record says where it is
    os.kill(session, signal.SIGKILL)
    first.end(job)
    second = labeler()
    assert second.label(COPPER, job).evidence["runs"] == 2


def test_an_interrupted_call_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = labeler("import time; time.sleep(60)")

    def interrupted(_: RunHandle) -> RunState:
        running = tmp_path / "job" / "run-1" / keeper.RUNNING
        deadline = time.monotonic() + 20
        while not running.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(made, "poll", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.label(COPPER, tmp_path / "job")
    assert not processes_in(tmp_path)


def test_what_is_refused_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(LabelFailure, match="no parameters for Ag"):
        labeler().label(Structure.from_atoms(bulk("Ag")), tmp_path / "job")
    assert not (tmp_path / "job").exists()
