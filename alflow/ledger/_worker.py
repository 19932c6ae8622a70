"""Who executes jobs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alflow.ledger._rows import AttemptRow


@dataclass(frozen=True, kw_only=True)
class WorkerIdentity:
    """Who executes jobs: enough to tell later whether that very process still lives.

    Parameters
    ----------
    name
        shown to people; unique per worker
    host, boot_id, pid, pid_started
        the machine, its boot, the process and its start time (clock ticks since boot; a pid alone is reused)
    """

    name: str
    host: str
    pid: int
    boot_id: str | None = None
    pid_started: int | None = None

    @classmethod
    def current(cls, name: str | None = None) -> WorkerIdentity:
        """Describe this process."""
        host, pid = socket.gethostname(), os.getpid()
        boot_file = Path("/proc/sys/kernel/random/boot_id")
        boot_id = boot_file.read_text().strip() if boot_file.exists() else None
        return cls(
            name=name or f"{host}:{pid}",
            host=host,
            pid=pid,
            boot_id=boot_id,
            pid_started=process_start(pid),
        )

    def sees_gone(self, attempt: AttemptRow) -> bool:
        """Whether the process of an attempt ran on this machine and is gone; of others only the lease can tell."""
        here = (attempt.host, attempt.boot_id) == (self.host, self.boot_id)
        return here and attempt.pid_started is not None and not is_alive(attempt.pid, attempt.pid_started)


def process_start(pid: int) -> int | None:
    """When a process of this machine began, clock ticks since boot; None where it is gone or the system cannot tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the command name, field 2, may hold spaces and parentheses: count fields after its closing one
    return int(stat.rpartition(")")[2].split()[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether that very process of this machine still lives; True also where the system cannot tell (no /proc).

    A process that ended but was not waited for by its parent (a zombie) counts as gone: it can write nothing.
    """
    if not Path("/proc/self").exists():
        return True
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[19]) == started and fields[0] not in {"Z", "X"}
