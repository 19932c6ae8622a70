"""Dead workers' jobs go back at once, and the programs they left behind are ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from ase.build import bulk

from alflow.folder import keeper
from alflow.ledger import (
    AttemptRow,
    AttemptState,
    CandidateState,
    JobState,
    Ledger,
    NewCandidate,
    WorkerIdentity,
)
from alflow.loop._reaper import end_orphans, orphans_of, take_back_jobs
from alflow.structures import Structure


def queued(ledger: Ledger) -> int:
    """A job for one structure."""
    campaign = ledger.campaigns.create("c", "", {}, 1)
    structure = Structure.from_atoms(bulk("Ni"))
    [candidate] = ledger.pool.add(campaign.id, None, [NewCandidate(structure=structure, source="test")])
    for state in (CandidateState.POOLED, CandidateState.SELECTED):
        ledger.pool.transition([candidate], state, "test")
    theory = ledger.theories.register("emt", "emt", {}, "emt", {}, "e" * 64)
    return ledger.queue.enqueue(ledger.pool.get(candidate).structure_id, theory.id, candidate).id


def gone() -> WorkerIdentity:
    """A worker of this machine whose process has ended."""
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    return replace(WorkerIdentity.current("gone"), pid=ended.pid, pid_started=1)


def test_the_job_of_a_process_that_is_gone_is_taken_back_before_its_lease_ends(ledger: Ledger) -> None:
    job = queued(ledger)
    [claimed] = ledger.queue.claim(gone(), lease_seconds=3600)
    ledger.queue.start(claimed.job_id, claimed.fence)
    assert take_back_jobs(ledger) == [job]
    row = ledger.queue.get(job)
    assert (row.state, row.deaths) == (JobState.QUEUED, 1)
    assert "gone" in row.message


def test_a_job_is_quarantined_after_as_many_deaths_as_the_worker_file_says(ledger: Ledger) -> None:
    job = queued(ledger)
    [claimed] = ledger.queue.claim(gone(), lease_seconds=3600)
    ledger.queue.start(claimed.job_id, claimed.fence)
    assert take_back_jobs(ledger, max_deaths=1) == [job]
    assert ledger.queue.get(job).state == JobState.QUARANTINED


def test_living_workers_and_those_elsewhere_keep_their_jobs(ledger: Ledger) -> None:
    job = queued(ledger)
    ledger.queue.claim(WorkerIdentity.current(), lease_seconds=3600)
    assert take_back_jobs(ledger) == []
    ledger.queue.release([job])
    ledger.queue.claim(replace(gone(), host="elsewhere"), lease_seconds=3600)
    assert take_back_jobs(ledger) == []


@contextmanager
def program(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A calculation in a session of its own that does not end by being asked to."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    directory.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=directory, start_new_session=True, stdout=subprocess.PIPE
    ) as started:
        assert started.stdout is not None
        started.stdout.readline()
        try:
            yield started
        finally:
            started.kill()


def test_programs_of_dead_workers_are_ended(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alflow.loop._reaper.GRACE_SECONDS", 0.2)
    queued(ledger)
    [claimed] = ledger.queue.claim(gone(), lease_seconds=3600)
    directory = tmp_path / "attempt"
    with program(directory) as left:
        ledger.queue.start(claimed.job_id, claimed.fence, directory=str(directory), process_group=left.pid)
        assert end_orphans(ledger) == [], "its worker is not known to be dead"
        take_back_jobs(ledger)
        assert left.wait(10) == -signal.SIGKILL
        assert end_orphans(ledger) == []


def test_a_process_group_used_again_elsewhere_is_left_alone(tmp_path: Path) -> None:
    attempt = AttemptRow(
        id=1,
        job_id=1,
        fence=1,
        worker="w",
        host="h",
        boot_id=None,
        pid=1,
        pid_started=1,
        process_group=None,
        scheduler_id=None,
        directory=str(tmp_path / "attempt"),
        numerics={},
        state=AttemptState.LOST,
        error_kind=None,
        message="",
        timings={},
        started="",
        finished="",
    )
    with program(tmp_path / "other") as other:
        assert orphans_of(attempt) == []
        assert orphans_of(replace(attempt, process_group=other.pid)) == []
        inside = replace(attempt, directory=str(tmp_path))
        assert orphans_of(replace(inside, process_group=other.pid)) == [other.pid]
        assert orphans_of(replace(inside, process_group=os.getpgrp())) == []


def test_a_program_in_a_session_of_its_own_is_known_by_its_record(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keeper was killed with the worker: only running.json says which session it is."""
    monkeypatch.setattr("alflow.loop._reaper.GRACE_SECONDS", 0.2)
    queued(ledger)
    [claimed] = ledger.queue.claim(gone(), lease_seconds=3600)
    run = tmp_path / "attempt" / "run-1"
    with program(run) as left:
        ledger.queue.start(claimed.job_id, claimed.fence, directory=str(tmp_path / "attempt"))
        take_back_jobs(ledger)
        assert left.poll() is None
        (run / keeper.RUNNING).write_text(json.dumps({"pid": left.pid, "session": left.pid, "keeper": 1}))
        (run / keeper.ENDED).write_text("{}")
        assert end_orphans(ledger) == [], "a program that has ended left none"
        (run / keeper.ENDED).unlink()
        assert end_orphans(ledger) == [left.pid]
        assert left.wait(10) == -signal.SIGKILL
