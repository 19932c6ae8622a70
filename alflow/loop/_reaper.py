"""The reaper: jobs of workers that died go back to the queue, and programs that they left running are ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from alflow.labelers import programs_left
from alflow.ledger import MAX_DEATHS, AttemptRow, Ledger, WorkerIdentity

GRACE_SECONDS = 5.0
"""Between asking a program to end and killing it."""


def take_back_jobs(ledger: Ledger, *, max_deaths: int = MAX_DEATHS) -> list[int]:
    """Queue the jobs of dead workers again, and end what those of this machine left running; return the job ids.

    The process of a worker on this machine is seen to be gone at once; of another machine's the lease must run out. A
    job that ``max_deaths`` workers did not survive is quarantined.
    """
    me = WorkerIdentity.current()
    dead = [(attempt.job_id, attempt.fence) for attempt in ledger.queue.held_attempts() if me.sees_gone(attempt)]
    jobs = ledger.queue.reclaim_expired(max_deaths=max_deaths, dead=dead)
    if jobs:
        end_orphans(ledger)
    return jobs


def end_orphans(ledger: Ledger) -> list[int]:
    """End the programs that attempts without a label left running on this machine; return the process numbers.

    An orphan is known by its process group or session *and* by working inside the attempt's directory: numbers are used
    again.
    """
    me = WorkerIdentity.current()
    ended: list[int] = []
    for attempt in ledger.queue.abandoned_attempts(me.host, me.boot_id):
        orphans = orphans_of(attempt)
        if not orphans:
            continue
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid in orphans_of(attempt):
                _signal(pid, sign)
            deadline = time.monotonic() + GRACE_SECONDS
            while orphans_of(attempt) and time.monotonic() < deadline:
                time.sleep(0.05)
        ended += orphans
    return ended


def orphans_of(attempt: AttemptRow) -> list[int]:
    """Processes of this machine that an attempt left running inside its directory.

    They belong to its process group, or to the session of a program whose end is not written down there.
    """
    if attempt.directory is None:
        return []
    directory = Path(attempt.directory).resolve()
    sessions = set(programs_left(directory))
    if attempt.process_group is None and not sessions:
        return []
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            known = int(fields[2]) == attempt.process_group or int(fields[3]) in sessions
            if not known or fields[0] in {"Z", "X"}:
                continue
            place = (entry / "cwd").readlink()
        except OSError:  # ended meanwhile, or another user's
            continue
        if place.is_relative_to(directory):
            found.append(int(entry.name))
    return found


def _signal(pid: int, sign: signal.Signals) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return
