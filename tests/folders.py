"""Folders of jobs in tests: what may run, and ``alflow-label`` as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def write_programs(place: Path) -> Path:
    """A file that lets Python run as the program ``script``."""
    file = place / "alflow-label.toml"
    file.write_text(f'[script]\ncommand = ["{sys.executable}"]\nfree_disk_gb = 0\n')
    return file


def start_worker(folder: Path, programs: Path, *more: str) -> subprocess.Popen[str]:
    """Start a worker; what it says is in its output."""
    command = [sys.executable, "-m", "alflow.folder.worker", str(folder), "--programs", str(programs), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
