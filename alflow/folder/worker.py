"""``alflow-label FOLDER``: computes the jobs of a folder on a machine that reaches no database."""

import argparse
import contextlib
import errno
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from alflow.folder import keeper
from alflow.folder.layout import (
    BAD,
    DONE,
    HEARTBEAT,
    JOB,
    LOCAL_RUN,
    LOST,
    NO_ROOM,
    OPEN,
    REASON,
    RESULT,
    TAKEN,
    VERSION,
    WORKER,
    FolderError,
    Manifest,
    differences,
    files_of,
    last_run,
    make,
    manifest,
    move,
    read_json,
    taken_name,
    write_json,
)

PROGRAMS_FILE = "alflow-label.toml"
BEAT_SECONDS = 15.0
POLL_SECONDS = 2.0
"""Between two looks for a job, where none waits."""
_OWN = frozenset({WORKER, HEARTBEAT, RESULT})

_HELP = f"""\
Compute the jobs that wait in a folder, one after the other; start as many as there is room for.

What may run is said on this machine, in {PROGRAMS_FILE} (in the working directory, or in ~/.config/alflow):

  [vasp]
  command = ["srun", "vasp_std"]        # no shell reads it
  environment = {{ OMP_NUM_THREADS = "1" }}
  wall_seconds = 36000
  memory_gb = 180

A job whose program is not named there is left to others. Ended by SIGTERM (a batch system's time limit) it gives back
the job that it computes. Needs nothing but Python.
"""


@dataclass(frozen=True)
class Program:
    """What this machine runs for one program's name."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    wall_seconds: float | None = None
    memory_gb: float | None = None
    free_disk_gb: float = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``alflow-label``; 0 where it ended by itself, 1 for a mistake that is told in one line."""
    parser = argparse.ArgumentParser(
        prog="alflow-label", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder that alflow worker --folder serves")
    parser.add_argument("--programs", type=Path, metavar="FILE", help=f"what may run here (default: {PROGRAMS_FILE})")
    parser.add_argument("--jobs", type=int, metavar="N", help="end after so many jobs")
    parser.add_argument(
        "--idle", type=float, default=0.0, metavar="SECONDS", help="wait so long for new jobs (default: not at all)"
    )
    parser.add_argument(
        "--seconds", type=float, metavar="SECONDS", help="take no new job after so long; a batch job's time limit"
    )
    given = parser.parse_args(arguments)
    try:
        Worker(given.folder, read_programs(given.programs)).run(jobs=given.jobs, idle=given.idle, seconds=given.seconds)
    except FolderError as error:
        print(f"alflow-label: {error}", file=sys.stderr)
        return 1
    return 0


def read_programs(path: Path | None) -> dict[str, Program]:
    """Read what may run on this machine; raises FolderError naming the file, the entry and the mistake."""
    if path is None:
        base = os.environ.get("XDG_CONFIG_HOME")
        places = [Path(PROGRAMS_FILE), (Path(base) if base else Path.home() / ".config") / "alflow" / PROGRAMS_FILE]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise FolderError(f"no {PROGRAMS_FILE} here or in ~/.config/alflow says what may run; see --help")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FolderError(f"{path}: {error}") from error
    return {name: _program(path, name, entry) for name, entry in content.items()}


def _program(path: Path, name: str, entry: Any) -> Program:
    where = f"{path}, [{name}]"
    if not isinstance(entry, dict):
        raise FolderError(f'{where}: write a section such as [{name}] with command = ["srun", "{name}"]')
    known = Program.__dataclass_fields__
    for key in entry:
        if key not in known:
            raise FolderError(f"{where}: unknown key {key!r}; there are {', '.join(known)}")
    command = entry.get("command")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise FolderError(f'{where}: command must be a list of words, e.g. ["srun", "{name}"]')
    environment = entry.get("environment", {})
    if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
        raise FolderError(f"{where}: environment must be a table of texts")
    for key in ("wall_seconds", "memory_gb", "free_disk_gb"):
        value = entry.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise FolderError(f"{where}: {key} must be a number that is not negative")
    if shutil.which(command[0]) is None:
        raise FolderError(f"{where}: there is no program {command[0]!r} on this machine's PATH")
    return Program(**{**entry, "command": tuple(command)})


class Worker:
    """Computes the jobs of one folder; raises FolderError where there is none."""

    def __init__(self, folder: Path, programs: dict[str, Program]) -> None:
        if not folder.is_dir():
            raise FolderError(f"{folder}: no such folder; `alflow worker --folder` makes it")
        make(folder)
        self.folder = folder.resolve()
        self.programs = programs
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.done = 0
        self._told = False
        self._left: dict[str, str] = {}

    def run(self, *, jobs: int | None, idle: float, seconds: float | None) -> None:
        """Work until there is nothing to do, the number of jobs or the time is used up, or SIGTERM comes."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)
        self._end_orphans()
        begin = last = time.monotonic()
        while not self._told and (jobs is None or self.done < jobs):
            if seconds is not None and time.monotonic() - begin > seconds:
                break
            job = None
            try:
                job = self._take()
                if job is not None:
                    with self._alive(job):
                        self._execute(job)
                    last = time.monotonic()
            except FileNotFoundError:
                self._say(f"{'a job' if job is None else _plain(job)} was given to somebody else meanwhile")
                continue
            except OSError as error:  # a full disk, a quota: the next job would meet it too
                if job is not None and error.errno in NO_ROOM:
                    self._tell_disk_full(job, error)
                raise FolderError(f"{self.folder} cannot be written to: {error}") from error
            if job is not None:
                continue
            if time.monotonic() - last >= idle:
                break
            time.sleep(min(POLL_SECONDS, max(idle / 20, 0.05)))
        for name, reason in sorted(self._left.items()):
            self._say(f"{name} is left to others: {reason}")
        self._say(f"{self.done} jobs computed")

    def _tell(self, _number: int, _frame: FrameType | None) -> None:
        self._told = True

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def _end_orphans(self) -> None:
        """End what still runs on this machine of workers that were killed together with their keepers."""
        given_up = (self.folder / LOST).glob("*")
        abandoned = (job for job in (self.folder / TAKEN).glob("*") if not _is_kept(job))
        for job in (*given_up, *abandoned):
            if keeper.end_orphans(job):
                self._say(f"{_plain(job)}: a program that was left running is ended")

    def _take(self) -> Path | None:
        """A job that waits and that this machine can run, now ours."""
        waiting = sorted((self.folder / OPEN).glob("job-*"))
        # workers that start together should not all reach for the same one
        random.shuffle(waiting)
        for job in waiting:
            record = read_json(job / JOB)
            program = None if record is None else record.get("program")
            if program not in self.programs:
                self._left[job.name] = f"{program!r} is not in {PROGRAMS_FILE}" if record else f"no whole {JOB}"
                continue
            taken = self.folder / TAKEN / taken_name(job.name, self.name)
            if move(job, taken):
                try:
                    (taken / HEARTBEAT).touch()
                    write_json(taken / WORKER, {"worker": self.name, "taken": time.time()})
                except OSError:
                    move(taken, job)
                    raise
                self._left.pop(job.name, None)
                return taken
        return None

    def _execute(self, job: Path) -> None:
        record = read_json(job / JOB)
        run = last_run(job)
        files = files_of(record)
        if record is None or run is None or record.get("version") != VERSION or files is None:
            self._refuse(job, [f"{JOB} is missing, damaged or of another version"])
            return
        wrong = differences(job, files)
        if wrong:
            self._refuse(job, wrong)
            return
        program = self.programs[record["program"]]
        wanted = read_json(run / keeper.RUN) or {}
        local = {
            **wanted,
            "command": [*program.command, *wanted.get("arguments", [])],
            "environment": {**program.environment},
            "wall_seconds": program.wall_seconds,
            "memory_bytes": None if program.memory_gb is None else round(program.memory_gb * 1024**3),
            "disk_bytes": round(program.free_disk_gb * 1024**3),
        }
        write_json(run / LOCAL_RUN, local)
        name = _plain(job)
        self._say(f"{name}: {record.get('formula', '')} with {record['program']}")
        found = self._keep(run)
        try:
            if found is None or found["reason"] == "not_started":
                self._give_back(job, files)
                if found is not None:
                    words = f"{local['command'][0]} could not be started: {found.get('message', '')}"
                    raise FolderError(f"{words}; mend {PROGRAMS_FILE}. {name} waits for another worker")
                return
            write_json(job / RESULT, {"version": VERSION, "worker": self.name, "files": manifest(job, without=_OWN)})
            if move(job, self.folder / DONE / name):
                self.done += 1
                self._say(f"{name}: {found['reason']} after {found['seconds']:.1f} s")
                return
        except FileNotFoundError:  # the folder is no longer where this worker holds it
            pass
        self._say(f"{name} was given to somebody else meanwhile; what was computed here does not count")

    def _keep(self, run: Path) -> dict[str, Any] | None:
        """Run the program under a keeper; how it ended, or None where it was broken off from here."""
        process = subprocess.Popen(  # noqa: S603  the keeper's own file
            [sys.executable, "-I", "-S", keeper.__file__, LOCAL_RUN],
            cwd=run,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdin is not None
        while process.poll() is None and not self._told:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        process.stdin.close()
        process.wait()
        ended = read_json(run / keeper.ENDED)
        if ended is None and process.returncode == keeper.NO_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run))
        if ended is None:
            keeper.end_what_runs_in(run)
            ended = {"reason": "keeper_gone", "seconds": 0.0}
        broken = ended["reason"] != "exited" or ended.get("returncode")
        return None if self._told and broken else ended

    @contextlib.contextmanager
    def _alive(self, job: Path) -> Iterator[None]:
        """Show from a thread that this worker lives, as long as it holds a job."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(BEAT_SECONDS):
                with contextlib.suppress(OSError):  # the job was taken from us; the end will show it
                    os.utime(job / HEARTBEAT)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _give_back(self, job: Path, files: Manifest) -> None:
        """Put a job back as it came: everything that the program left is removed."""
        if not job.exists():
            raise FileNotFoundError(job)
        self._remove_outputs(job, files)
        # a program may have written over an input: then it is no longer the job that came
        wrong = differences(job, files)
        if wrong:
            self._refuse(job, wrong)
        elif move(job, self.folder / OPEN / _plain(job)):
            self._say(f"{_plain(job)} is given back")

    def _tell_disk_full(self, job: Path, error: OSError) -> None:
        """Say how the job ended; what the program left is removed, to have the room for that."""
        files, run = files_of(read_json(job / JOB)), last_run(job)
        if files is None or run is None:
            return
        with contextlib.suppress(OSError):  # no room all the same: its server will see that nobody works at it
            self._remove_outputs(job, files)
            write_json(run / keeper.ENDED, {"reason": "disk_full", "message": error.strerror or str(error)})
            write_json(job / RESULT, {"version": VERSION, "worker": self.name, "files": manifest(job, without=_OWN)})
            if move(job, self.folder / DONE / _plain(job)):
                self._say(f"{_plain(job)}: disk_full")

    @staticmethod
    def _remove_outputs(job: Path, files: Manifest) -> None:
        wanted = set(files) | {JOB}
        for path in sorted(job.rglob("*"), reverse=True):
            if path.relative_to(job).as_posix() in wanted:
                continue
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # it holds inputs
                    path.rmdir()
            else:
                path.unlink(missing_ok=True)

    def _refuse(self, job: Path, wrong: list[str]) -> None:
        write_json(job / REASON, {"worker": self.name, "reason": "; ".join(wrong[:5])})
        goal = self.folder / BAD / _plain(job)
        shutil.rmtree(goal, ignore_errors=True)
        move(job, goal)
        self._say(f"{goal.name} did not arrive whole: {'; '.join(wrong[:3])}")


def _is_kept(job: Path) -> bool:
    """Whether a keeper of this machine looks after a job's last run."""
    run = last_run(job)
    record = None if run is None else read_json(run / keeper.RUNNING)
    number = None if record is None else record.get("keeper")
    return run is not None and isinstance(number, int) and keeper.works_in(number, run)


def _plain(job: Path) -> str:
    """Name of a job without the worker that holds it."""
    return job.name.partition("@")[0]


if __name__ == "__main__":
    sys.exit(main())
