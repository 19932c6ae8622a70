"""Keeps one program: starts it in a session of its own, watches time and memory, and writes how it ended.

A file of its own that needs nothing but Python's standard library: it runs beside every program, also where alflow is
not installed. ``python keeper.py [FILE]`` in the directory of the calculation reads ``run.json`` or another file::

    {"command": ["mpirun", "-np", "4", "pw.x"], "stdin": "pw.in", "stdout": "pw.out", "stderr": "pw.err",
     "environment": {"OMP_NUM_THREADS": "1"}, "wall_seconds": 3600, "memory_bytes": null, "disk_bytes": 1000000}

writes ``running.json`` when the program runs and ``ended.json`` when it has ended, each whole or not at all. Room for
both is taken on the disk before anything starts; where there is none, nothing is started and the exit code is 28. The
program is ended when its time or memory is used up, when the keeper is told to (SIGTERM, SIGINT), and when whoever
started the keeper is gone: the keeper's standard input, a pipe that its parent holds, is then at its end.
"""

import contextlib
import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RUN, RUNNING, ENDED = "run.json", "running.json", "ended.json"
GRACE_SECONDS = 5.0
"""Between asking a program to end and killing it."""
POLL_SECONDS, LOOK_SECONDS = 0.5, 3.0
"""Between two looks whether it has ended, and at its memory; quicker at the start."""
NO_ROOM = errno.ENOSPC
"""Exit code where the disk has no room for a record of what is started: nothing is."""
RECORD_BYTES = 4096
FULL_BYTES = 1 << 20
"""A disk with less room than this is full, whatever limit it is watched for."""


def main() -> int:
    """Run the program of this directory to its end; 0 once that is written down, NO_ROOM where it could not be."""
    try:
        for name in (RUNNING, ENDED):
            reserve(name)
    except OSError as error:
        return NO_ROOM if is_full(error) else 1
    run = json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else RUN).read_text(encoding="utf-8"))
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: told.append(received))
    started, begin = time.time(), time.monotonic()
    environment = {**os.environ, **run.get("environment", {})}
    try:
        with contextlib.ExitStack() as files:
            stdin = files.enter_context(Path(run["stdin"]).open("rb")) if run.get("stdin") else subprocess.DEVNULL
            stdout = files.enter_context(Path(run["stdout"]).open("wb"))
            stderr = files.enter_context(Path(run["stderr"]).open("wb"))
            program = subprocess.Popen(  # noqa: S603  the command of the worker's own file
                run["command"], stdin=stdin, stdout=stdout, stderr=stderr, env=environment, start_new_session=True
            )
    except OSError as error:
        kind = "disk_full" if is_full(error) else "not_started"
        finish(kind, started, begin, message=f"{run['command'][0]}: {error.strerror or error}")
        return 0
    write(RUNNING, {"pid": program.pid, "session": program.pid, "keeper": os.getpid(), "started": started})
    reason, peak = watch(program, run, begin, told)
    more: dict[str, object] = {"returncode": program.returncode, "peak_bytes": peak}
    if reason == "exited" and shutil.disk_usage(".").free < FULL_BYTES:
        # it may not even have had the room to say so
        reason, more["message"] = "disk_full" if program.returncode else reason, "the disk was full when it ended"
    finish(reason, started, begin, **more)
    return 0


def watch(program: subprocess.Popen[bytes], run: dict[str, object], begin: float, told: list[int]) -> tuple[str, int]:
    """Wait for the end of a program, or bring it about; return why it ended and the most memory that was seen."""
    wall, memory, disk = (run.get(key) for key in ("wall_seconds", "memory_bytes", "disk_bytes"))
    peak, used, reason, pause, looked = 0, 0, "exited", 0.01, 0.0
    while program.poll() is None:
        if time.monotonic() - looked >= min(LOOK_SECONDS, 10 * pause):
            looked, used = time.monotonic(), memory_of_session(program.pid, memory)
            peak = max(peak, used)
        if told:
            reason = "told_to_end"
        elif parent_is_gone(pause):
            reason = "parent_gone"
        elif isinstance(wall, (int, float)) and time.monotonic() - begin > wall:
            reason = "wall_time"
        elif isinstance(memory, int) and used > memory:
            reason = "memory"
        elif isinstance(disk, int) and shutil.disk_usage(".").free < disk:
            reason = "disk_full"
        if reason != "exited":
            end_session(program.pid, program.poll)
            break
        pause = min(pause * 1.5, POLL_SECONDS)
    program.wait()
    end_session(program.pid)  # what an MPI launcher or a shell left behind
    if told and program.returncode:
        reason = "told_to_end"  # a signal to all of a batch job may reach the program first
    return reason, peak


def parent_is_gone(seconds: float) -> bool:
    """Wait so long for the end of standard input, which a living parent holds open."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1024)


def processes_of_session(session: int) -> list[int]:
    """The living processes of a session; none where there is no /proc."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (place / "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[3]) == session and fields[0] not in {b"Z", b"X"}:
                found.append(int(place.name))
    return found


def memory_of_session(session: int, limit: object) -> int:
    """Bytes that the processes of a session hold.

    Resident sets count for each process what several share. Only where their sum is above the limit the proportional
    shares are added up instead, for which the kernel walks through all pages: a large program would feel that.
    """
    pids = processes_of_session(session)
    resident = sum(memory_of(pid, "status", "VmRSS:") for pid in pids)
    if not isinstance(limit, int) or resident <= limit:
        return resident
    return sum(memory_of(pid, "smaps_rollup", "Pss:") for pid in pids) or resident


def memory_of(pid: int, name: str, key: str) -> int:
    """Bytes that one process holds, by a line of the kernel's; 0 where it has gone, or there is no /proc."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/{name}").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return 0


def end_session(session: int, poll: Callable[[], object] = lambda: 0) -> None:
    """Ask every process of a session to end, then kill what is left; ``poll`` gives None while its leader runs."""
    for number, grace in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        pids = processes_of_session(session)
        if poll() is None and session not in pids:
            pids.append(session)  # no /proc here
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and (poll() is None or processes_of_session(session)):
            time.sleep(0.02)


def end_what_runs_in(folder: Path) -> None:
    """End the program of a folder whose keeper is gone without having written how it ended."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        running = json.loads((folder / RUNNING).read_text(encoding="utf-8"))
        if not (folder / ENDED).exists():
            end_session(int(running["session"]))


def end_orphans(job: Path) -> bool:
    """End the programs of this machine that work in a job's folder; True where there was one.

    They are known by their session *and* by working there: numbers are used again, and the folder may be another
    machine's.
    """
    ended = False
    for record in job.glob(f"*/{RUNNING}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            session = int(json.loads(record.read_text(encoding="utf-8"))["session"])
            if any(works_in(pid, record.parent) for pid in processes_of_session(session)):
                end_session(session)
                ended = True
    return ended


def works_in(pid: int, folder: Path) -> bool:
    """Whether a process of this machine works in a folder or below it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cwd").resolve(strict=True).is_relative_to(folder.resolve())
    return False


def is_full(error: OSError) -> bool:
    """Whether an error says that the disk, or the user's share of it, is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def finish(reason: str, started: float, begin: float, **more: object) -> None:
    """Write how the program ended."""
    write(ENDED, {"reason": reason, "started": started, "seconds": time.monotonic() - begin, **more})
    for name in (RUNNING, f"{RUNNING}.partial"):
        Path(name).unlink(missing_ok=True)


def reserve(name: str) -> None:
    """Take the room for a record."""
    with Path(f"{name}.partial").open("wb") as stream:
        stream.write(b" " * RECORD_BYTES)
        stream.flush()
        os.fsync(stream.fileno())


def write(name: str, content: dict[str, object]) -> None:
    """Write JSON whole or not at all, into the room that was reserved for it."""
    partial = Path(f"{name}.partial")
    with partial.open("r+b") as stream:
        stream.write(json.dumps(content).encode())
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(name)


if __name__ == "__main__":
    sys.exit(main())
