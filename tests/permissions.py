"""Folders and files that may not be written, and processes that this holds back, also where the tests run as root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: as root: a process without the capabilities to pass permission bits by (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
_HELD_BACK = """
import ctypes, os, sys
drop = 24  # PR_CAPBSET_DROP
if any(ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0) for capability in (1, 2)):
    sys.exit(77)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def run_held_back(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments as somebody whom permission bits hold back."""
    before = ["-c", _HELD_BACK] if os.geteuid() == 0 else []
    command = [sys.executable, *before, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=folder)
    if done.returncode == 77:
        pytest.skip("root here cannot give up its power over permission bits")
    return done


@contextmanager
def unwritable(*paths: Path) -> Iterator[None]:
    """Take the permission to write away from everybody, for as long as the block lasts."""
    modes = [(path, path.stat().st_mode) for path in paths]
    try:
        for path, mode in modes:
            path.chmod(mode & ~0o222)
        yield
    finally:
        for path, mode in modes:
            path.chmod(mode)
