from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from alflow.errors import NotFoundError, UserError
from alflow.ledger import (
    CampaignRow,
    CandidateState,
    JobRow,
    Ledger,
    TheoryRow,
    WorkerIdentity,
    backup_ledger,
    check_ledger,
    open_ledger,
)
from alflow.structures import Properties


@pytest.fixture
def used(ledger: Ledger, add: Callable[..., list[int]], enqueue: Callable[[list[int]], list[JobRow]]) -> Ledger:
    """A ledger with a label, an open job and a file."""
    enqueue(add(2, CandidateState.SELECTED))
    [job] = ledger.queue.claim(WorkerIdentity.current(), limit=1)
    ledger.queue.complete(job.job_id, job.fence, Properties(energy=-1.0), {})
    ledger.artifacts.put(b"weights", kind="checkpoint", name="round 0")
    return ledger


def test_a_backup_is_a_ledger(used: Ledger, url: str, tmp_path: Path, theory: TheoryRow) -> None:
    target = tmp_path / "backups" / "copy.db"
    with used.read():  # somebody works on it meanwhile
        assert backup_ledger(url, target) == target
    assert not list(target.parent.glob("*.partial"))
    assert next((target.parent / "copy.db.files").glob("??/*")).read_bytes() == b"weights"
    with pytest.raises(UserError, match="exists"):
        backup_ledger(url, target)
    if not url.startswith("sqlite"):
        assert target.read_bytes().startswith(b"PGDMP")
        return
    copied = f"sqlite:///{target}"
    assert check_ledger(copied) == []
    with open_ledger(copied, create=False) as copy:
        assert copy.stats()["rows"] == used.stats()["rows"]
        assert [x.properties.energy for x in copy.labels.accepted(theory.id)] == [-1.0]
        assert copy.artifacts.read(1) == b"weights"


def test_a_sound_ledger_has_no_problems(used: Ledger, url: str) -> None:
    assert check_ledger(url) == []


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    missing = f"sqlite:///{tmp_path / 'none.db'}"
    with pytest.raises(NotFoundError):
        check_ledger(missing)
    with pytest.raises(NotFoundError):
        backup_ledger(missing, tmp_path / "copy.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE job SET state = 'cancelled' WHERE state = 'queued'", "queued without an open job"),
        ("DELETE FROM label", "labelled without an accepted label"),
        ("DELETE FROM label", "jobs are done without an accepted label"),
        ("UPDATE job SET state = 'running', lease_until = NULL", "held without a lease"),
    ],
)
def test_contradictions_are_found(used: Ledger, url: str, damage: str, problem: str) -> None:
    with used._database.write() as connection:
        connection.execute(text(damage))
    assert any(problem in found for found in check_ledger(url))


def test_missing_files_are_found(used: Ledger, url: str) -> None:
    shutil.rmtree(used.directory)
    [found] = check_ledger(url)
    assert "1 artifacts are missing" in found


def test_statistics(used: Ledger, campaign: CampaignRow) -> None:
    stats = used.stats()
    assert stats["rows"]["candidate"] == 2
    assert stats["rows"]["label"] == 1
    assert stats["files"] == 1
    assert stats["file_bytes"] == len(b"weights")
    assert stats["database_bytes"] > 10_000
