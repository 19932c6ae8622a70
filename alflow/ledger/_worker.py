"""Who executes jobs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class WorkerIdentity:
    """Who executes jobs: enough to tell later whether that very process still lives.

    Parameters
    ----------
    name
        shown to people; unique per worker
    host, boot_id, pid, pid_started
        the machine, its boot, the process and its start time (clock ticks since boot; a pid alone is reused)
    process_group
        what to signal to end everything the worker started
    """

    name: str
    host: str
    pid: int
    boot_id: str | None = None
    pid_started: int | None = None
    process_group: int | None = None

    @classmethod
    def current(cls, name: str | None = None) -> WorkerIdentity:
        """Describe this process."""
        host, pid = socket.gethostname(), os.getpid()
        boot_file, stat_file = Path("/proc/sys/kernel/random/boot_id"), Path(f"/proc/{pid}/stat")
        boot_id = boot_file.read_text().strip() if boot_file.exists() else None
        # the command name, field 2, may hold spaces and parentheses: count fields after its closing one
        started = int(stat_file.read_text().rpartition(")")[2].split()[19]) if stat_file.exists() else None
        return cls(
            name=name or f"{host}:{pid}",
            host=host,
            pid=pid,
            boot_id=boot_id,
            pid_started=started,
            process_group=os.getpgrp() if hasattr(os, "getpgrp") else None,
        )
