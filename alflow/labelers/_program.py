"""Labelers whose code is a program: inputs in a directory, a keeper beside the program, outputs judged afterwards.

A directory holds ``input.json`` (what was asked) and a folder for every start of the program, ``run-1``, ``run-2``, …,
each with the inputs, the outputs, ``run.json`` (what was started and under which limits) and ``ended.json`` (how it
ended), see :mod:`alflow.folder.keeper`. Another process may take over between any two calls.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from alflow.errors import FailureKind, LabelFailure
from alflow.folder import keeper
from alflow.folder.layout import LOCAL_RUN, read_json
from alflow.labelers._judged import JudgedLabeler
from alflow.labelers._protocol import RunHandle, RunState
from alflow.labelers._record import FAILURE_FILE, files_in
from alflow.labelers._result import LabelResult, RawOutcome
from alflow.structures import Structure

if TYPE_CHECKING:
    from alflow.labelers._worker import ProgramSettings

GIB = 1024**3
_TAIL_BYTES = 20_000
_KEEPER_SECONDS = 20.0
"""A keeper that is told to end needs twice its grace at most."""

_KINDS = {
    "wall_time": FailureKind.WALL_TIME,
    "memory": FailureKind.MEMORY,
    "disk_full": FailureKind.DISK_FULL,
    "not_started": FailureKind.UNAVAILABLE,
    "told_to_end": FailureKind.WORKER_DIED,
    "parent_gone": FailureKind.WORKER_DIED,
}
_SIGNS = (
    (FailureKind.DISK_FULL, ("no space left on device", "disk quota exceeded", "disk full")),
    (FailureKind.MEMORY, ("out of memory", "cannot allocate memory", "oom-kill", "std::bad_alloc", "memoryerror")),
    (FailureKind.UNAVAILABLE, ("error while loading shared libraries", "command not found")),
)
"""What machines say, in any code's output, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """How a program is called in a folder that holds its inputs.

    Parameters
    ----------
    arguments
        behind the command of the worker's file
    stdin, stdout, stderr
        names of files in the folder; no standard input where it is None
    """

    arguments: tuple[str, ...] = ()
    stdin: str | None = None
    stdout: str = "stdout.txt"
    stderr: str = "stderr.txt"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a program ended.

    Parameters
    ----------
    reason
        ``exited`` where the keeper did not end it; else ``wall_time``, ``memory``, ``disk_full``, ``not_started``,
        ``told_to_end``, ``parent_gone``
    returncode
        as Python tells it: negative for a signal; None where the program was never started
    seconds
        wall time
    peak_bytes
        the most memory that was seen
    message
        what the system said, or that the disk was full when the program exited
    """

    reason: str
    returncode: int | None = None
    seconds: float = 0.0
    peak_bytes: int | None = None
    message: str = ""

    @classmethod
    def read(cls, folder: Path) -> Ended | None:
        """How the program of a folder ended; None where that is not written down."""
        content = read_json(folder / keeper.ENDED)
        if content is None:
            return None
        return cls(**{name: content[name] for name in cls.__dataclass_fields__ if content.get(name) is not None})


class ProgramLabeler(JudgedLabeler):
    """Everything of a :class:`~alflow.labelers.Labeler` but a program's inputs and outputs.

    A subclass gives ``name``, ``settings_model``, :meth:`create`, :attr:`capabilities`, :meth:`theory`,
    :meth:`write_inputs` and :meth:`read_outputs`; :attr:`n_rungs` and :meth:`explain` where it can say more.

    Parameters
    ----------
    program
        command and limits of this machine
    """

    def __init__(self, program: ProgramSettings) -> None:
        self.program = program
        self._keepers: dict[Path, subprocess.Popen[bytes]] = {}

    @abstractmethod
    def write_inputs(self, structure: Structure, folder: Path, rung: int) -> Invocation:
        """Write every input into an empty folder.

        ``rung`` 0 are the usual numerics; each rung above is more patient and changes no physics.
        """

    @abstractmethod
    def read_outputs(self, structure: Structure, folder: Path, ended: Ended) -> RawOutcome:
        """Read what a program that exited by itself said; raises LabelFailure with the typed cause."""

    @property
    def program_name(self) -> str:
        """Under which name machines know the program: the entry of a worker's file."""
        return self.name

    @property
    def n_rungs(self) -> int:
        """How many rungs the ladder of numerics has."""
        return 1

    def explain(self, folder: Path, ended: Ended) -> LabelFailure | None:  # noqa: ARG002
        """The cause of an end that this code's outputs tell better than the keeper; None where they do not."""
        return None

    def discard(self, folder: Path) -> None:
        """Remove what a run that ended, in whatever way, leaves behind and nobody reads: wavefunctions, densities."""

    # -- the four steps ----------------------------------------------------------------------------------------------

    def prepare(self, structure: Structure, directory: Path) -> None:
        """Write the input and the first run's folder; a directory of the same calculation is continued."""
        super().prepare(structure, directory)
        if not _runs(directory):
            self._new_run(structure, directory, rung=0)

    def submit(self, directory: Path) -> RunHandle:
        """Start the last run if it was never started; one whose keeper vanished without a word is started afresh."""
        structure = self._read_own_input(directory)
        folder = self._last_run(directory)
        if Ended.read(folder) is None and not self._is_kept(folder):
            if (folder / keeper.RUNNING).exists() or (folder / STARTED).exists():
                folder = self._new_run(structure, directory, rung=_rung(folder))
            self._start(folder)
        return self._handle(directory, folder)

    def poll(self, handle: RunHandle) -> RunState:
        """How far it is; where a run did not converge, the next rung of the ladder is started."""
        directory = handle.directory
        folder = self._last_run(directory)
        if Ended.read(folder) is None:
            return RunState.RUNNING if self._is_kept(folder) else RunState.FINISHED
        self._forget(folder)
        if not self.climb(directory):
            return RunState.FINISHED
        self._start(self._last_run(directory))
        return RunState.RUNNING

    def climb(self, directory: Path) -> bool:
        """Prepare the next rung of the ladder where the last run ended by itself and did not converge.

        Returns
        -------
        True where there is a new run, which nobody has started
        """
        folder = self._last_run(directory)
        ended = Ended.read(folder)
        rung = _rung(folder) + 1
        if ended is None or rung >= self.n_rungs or not self._unconverged(directory, folder, ended):
            return False
        self._new_run(self._read_own_input(directory), directory, rung=rung)
        return True

    def parse(self, directory: Path) -> LabelResult:
        """Judge the outputs of the last run; raises LabelFailure with the typed cause."""
        structure = self._read_own_input(directory)
        folders = _runs(directory)
        folder = self._last_run(directory)
        ended = Ended.read(folder)
        if ended is None:
            raise LabelFailure(
                FailureKind.WORKER_DIED, f"{folder} holds no {keeper.ENDED}: the program did not run to its end"
            )
        outcome = self._outcome(structure, folder, ended)
        seconds = sum(run.seconds for run in map(Ended.read, folders) if run is not None)
        evidence = {
            **outcome.evidence,
            "command": (read_json(folder / LOCAL_RUN) or _read_run(folder))["command"],
            "runs": len(folders),
            "rung": _rung(folder),
            "peak_bytes": ended.peak_bytes,
        }
        raw = RawOutcome(
            structure=outcome.structure, properties=outcome.properties, evidence=evidence, warnings=outcome.warnings
        )
        return self._judge(structure, raw, seconds, files_in(directory))

    def label(self, structure: Structure | Atoms, directory: Path | None = None) -> LabelResult:
        """Compute one label; with a directory everything stays in it.

        A program that runs is ended where this call is interrupted.

        Raises
        ------
        LabelFailure
            with the typed cause: refused, not converged, wall_time, memory, …
        """
        asked = Structure.from_atoms(structure) if isinstance(structure, Atoms) else structure
        if directory is None:
            with tempfile.TemporaryDirectory(prefix=f"alflow-{self.name}-") as place:
                return self.label(asked, Path(place) / "calculation")
        self.prepare(asked, directory)
        handle, pause = self.submit(directory), 0.01
        try:
            while self.poll(handle) is RunState.RUNNING:
                time.sleep(pause)
                pause = min(1.5 * pause, 1.0)
        finally:
            self.end(directory)
        return self.parse(directory)

    def end(self, directory: Path) -> None:
        """End what this object started in a directory and what still runs of it."""
        for folder in _runs(directory):
            self._forget(folder)

    # -- runs --------------------------------------------------------------------------------------------------------

    def _new_run(self, structure: Structure, directory: Path, *, rung: int) -> Path:
        """A folder with all inputs; it appears complete or not at all."""
        folder = directory / f"run-{len(_runs(directory)) + 1}"
        partial = directory / f".{folder.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        call = self.write_inputs(structure, partial, rung)
        run = {
            "command": [*self.program.command, *call.arguments],
            "arguments": list(call.arguments),
            "stdin": call.stdin,
            "stdout": call.stdout,
            "stderr": call.stderr,
            "environment": dict(self.program.environment),
            "wall_seconds": self.program.wall_seconds,
            "memory_bytes": None if self.program.memory_gb is None else round(self.program.memory_gb * GIB),
            "disk_bytes": round(self.program.free_disk_gb * GIB),
            "rung": rung,
        }
        (partial / keeper.RUN).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
        partial.replace(folder)
        return folder

    def _start(self, folder: Path) -> None:
        free = shutil.disk_usage(folder).free
        if free < self.program.free_disk_gb * GIB:
            raise LabelFailure(
                FailureKind.DISK_FULL,
                f"{free / GIB:.1f} GiB are free for {folder}, less than free_disk_gb: {self.program.free_disk_gb:g}",
            )
        (folder / STARTED).touch()
        self._keepers[folder] = subprocess.Popen(  # noqa: S603  our own file; its command is the worker's file's
            [sys.executable, "-I", "-S", keeper.__file__],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _is_kept(self, folder: Path) -> bool:
        mine = self._keepers.get(folder)
        if mine is not None:
            if mine.poll() == keeper.NO_ROOM:
                raise LabelFailure(FailureKind.DISK_FULL, f"the disk of {folder} is full: nothing was started")
            return mine.poll() is None
        content = read_json(folder / keeper.RUNNING)
        return content is not None and _runs_in(int(content["keeper"]), folder)

    def _forget(self, folder: Path) -> None:
        """Let a keeper end: it ends its program when the pipe to it closes."""
        process = self._keepers.pop(folder, None)
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_KEEPER_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            keeper.end_what_runs_in(folder)

    def _handle(self, directory: Path, folder: Path) -> RunHandle:
        process = self._keepers.get(folder)
        return RunHandle(directory=directory, process_id=None if process is None else process.pid)

    def _last_run(self, directory: Path) -> Path:
        folders = _runs(directory)
        if not folders:
            raise LabelFailure(FailureKind.MISSING_FILE, f"{directory} holds no run: prepare the calculation first")
        return folders[-1]

    # -- judging -----------------------------------------------------------------------------------------------------

    def _outcome(self, structure: Structure, folder: Path, ended: Ended) -> RawOutcome:
        """What the program said, or the typed cause why it said nothing."""
        self.discard(folder)
        if ended.reason != "exited":
            raise self._ended_early(folder, ended)
        if ended.returncode:
            failure = self.explain(folder, ended) or self._seen_in_output(folder)
            if failure is None and ended.returncode == -signal.SIGKILL:
                failure = LabelFailure(
                    FailureKind.MEMORY, "the program was killed from outside, as a machine without memory does"
                )
            if failure is not None:
                raise failure
        try:
            return self.read_outputs(structure, folder, ended)
        except LabelFailure as failure:
            cut_off = {FailureKind.TRUNCATED, FailureKind.MISSING_FILE}
            if ended.message and failure.kind in {*cut_off, FailureKind.NOT_CONVERGED}:
                raise LabelFailure(FailureKind.DISK_FULL, f"{ended.message}: {failure.message}") from failure
            if ended.returncode and failure.kind in cut_off:
                raise LabelFailure(FailureKind.CRASHED, self._crash(folder, ended)) from failure
            raise

    def _ended_early(self, folder: Path, ended: Ended) -> LabelFailure:
        told = {
            "wall_time": f"ended after {ended.seconds:.0f} s, wall_seconds: {self.program.wall_seconds}",
            "memory": f"ended at {(ended.peak_bytes or 0) / GIB:.2f} GiB, memory_gb: {self.program.memory_gb}",
            "disk_full": ended.message or f"ended: less than {self.program.free_disk_gb:g} GiB were free for {folder}",
            "not_started": f"the program could not be started: {ended.message}",
        }
        kind = _KINDS.get(ended.reason, FailureKind.CRASHED)
        return LabelFailure(kind, told.get(ended.reason, "its worker ended before the program"))

    def _seen_in_output(self, folder: Path) -> LabelFailure | None:
        text = tail(folder / _read_run(folder)["stdout"]) + tail(folder / _read_run(folder)["stderr"])
        for line in reversed(text.splitlines()):
            for kind, signs in _SIGNS:
                if any(sign in line.lower() for sign in signs):
                    return LabelFailure(kind, line.strip()[:300])
        return None

    def _crash(self, folder: Path, ended: Ended) -> str:
        run = _read_run(folder)
        said = tail(folder / run["stderr"]).strip() or tail(folder / run["stdout"]).strip()
        code = ended.returncode or 0
        known = {number.value: number.name for number in signal.Signals}
        how = f"exit code {code}" if code > 0 else f"signal {known.get(-code, -code)}"
        last = said.splitlines()[-1].strip()[:300] if said else "it said nothing"
        return f"{Path(run['command'][0]).name} ended with {how}: {last}"

    def _unconverged(self, directory: Path, folder: Path, ended: Ended) -> bool:
        """Whether a run that exited by itself gave everything but convergence."""
        try:
            structure = self._read_own_input(directory)
            outcome = self._outcome(structure, folder, ended)
        except LabelFailure as failure:
            return failure.kind is FailureKind.NOT_CONVERGED
        return outcome.evidence.get("converged") is not True


STARTED = "started"


def _runs(directory: Path) -> list[Path]:
    """Folders of the runs, in the order of their starts."""
    found = [p for p in directory.glob("run-*") if p.name.removeprefix("run-").isdigit() and p.is_dir()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("run-")))


def _read_run(folder: Path) -> Mapping[str, Any]:
    content = read_json(folder / keeper.RUN)
    if content is None:
        raise LabelFailure(FailureKind.TRUNCATED, f"{folder / keeper.RUN} is missing or damaged")
    return content


def _rung(folder: Path) -> int:
    return int(_read_run(folder)["rung"])


def _runs_in(pid: int, folder: Path) -> bool:
    """Whether a process is alive and works in a folder; numbers of processes are used again."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) == folder.resolve()
    except OSError:
        return False


def tail(path: Path, size: int = _TAIL_BYTES) -> str:
    """The end of a text file; empty where there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - size))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def logs_in(directory: Path) -> tuple[Path, ...]:
    """What the last run of a calculation printed, and why it failed, as far as that is there and not empty."""
    named: list[Path] = []
    for folder in _runs(directory)[-1:]:
        run = read_json(folder / keeper.RUN) or {}
        named += [folder / str(run[name]) for name in ("stdout", "stderr") if name in run]
    named.append(directory / FAILURE_FILE)
    return tuple(path for path in named if path.is_file() and path.stat().st_size)


def programs_left(directory: Path) -> Iterator[int]:
    """Sessions of programs that keepers started below a directory and whose end is not written down."""
    for path in directory.rglob(keeper.RUNNING):
        content = read_json(path)
        if content is not None and not (path.parent / keeper.ENDED).exists():
            yield int(content["session"])
