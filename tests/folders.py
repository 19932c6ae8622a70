"""Folders of jobs in tests: what may run, ``alflow-label`` as a process, jobs and their server."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ase.build import bulk

from alflow.folder.layout import TAKEN
from alflow.labelers import Labeler, WorkerConfig
from alflow.ledger import CandidateState, Ledger, NewCandidate
from alflow.loop import FolderServer
from alflow.structures import Structure
from tests.labelers.test_program import labeler

SOON = 40.0


def write_programs(place: Path) -> Path:
    """A file that lets Python run as the program ``script``."""
    file = place / "alflow-label.toml"
    file.write_text(f'[script]\ncommand = ["{sys.executable}"]\nfree_disk_gb = 0\n')
    return file


def start_worker(folder: Path, programs: Path, *more: str) -> subprocess.Popen[str]:
    """Start a worker; what it says is in its output."""
    command = [sys.executable, "-m", "alflow.folder.worker", str(folder), "--programs", str(programs), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def queued(ledger: Ledger, n: int, theory: int | None = None) -> tuple[list[int], int]:
    """Jobs for so many structures, and the theory that they are wanted at."""
    campaign = ledger.campaigns.create(f"c{n}", "", {}, 1)
    structures = [Structure.from_atoms(bulk("Cu", a=3.5 + 0.01 * i)) for i in range(n)]
    ids = ledger.pool.add(campaign.id, None, [NewCandidate(structure=s, source="test") for s in structures])
    for state in (CandidateState.POOLED, CandidateState.SELECTED):
        ledger.pool.transition(ids, state, "test")
    spec = labeler().theory()
    if theory is None:
        theory = ledger.theories.register("script", spec.labeler, {}, spec.code, {}, spec.fingerprint).id
    jobs = [ledger.queue.enqueue(ledger.pool.get(i).structure_id, theory, i).id for i in ids]
    return jobs, theory


def server(ledger: Ledger, folder: Path, made: Labeler, theory: int, **more: Any) -> FolderServer:
    """A server that looks often."""
    config = WorkerConfig(poll_seconds=0.05, lease_seconds=30.0)
    return FolderServer(ledger, config, folder, labelers={theory: made}, **more)


def wait_for(what: Any, seconds: float = SOON) -> None:
    """Return when something is true; raises AssertionError if it never happens."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def held(folder: Path, name: str) -> list[Path]:
    """A file in the first run of jobs that workers hold."""
    return list((folder / TAKEN).glob(f"job-*/run-1/{name}"))
