from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from alflow.errors import LedgerError, NotFoundError
from alflow.ledger import CampaignRow, Ledger


def test_content_is_stored_once(ledger: Ledger, tmp_path: Path) -> None:
    data = b"weights" * 1000
    first = ledger.artifacts.put(data, kind="checkpoint", name="round 0")
    assert first.sha256 == hashlib.sha256(data).hexdigest()
    assert first.size == len(data)
    source = tmp_path / "copy.bin"
    source.write_bytes(data)
    assert ledger.artifacts.put(source, kind="checkpoint", name="round 0") == first
    other = ledger.artifacts.put(source, kind="log", name="same bytes")
    assert other.id != first.id
    assert other.path == first.path
    assert source.exists()
    assert ledger.artifacts.read(first.id) == data
    assert [p for p in ledger.directory.rglob("*") if p.is_file()] == [first.path]
    assert [a.id for a in ledger.artifacts.list("log")] == [other.id]


def test_a_failed_write_leaves_nothing(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ledger.artifacts.put(tmp_path / "missing", kind="log", name="x")
    assert not [p for p in ledger.directory.rglob("*") if p.is_file()]
    assert ledger.artifacts.list() == []


def test_a_full_disk_leaves_neither_a_row_nor_a_file(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def full(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr("alflow.ledger._artifacts.os.fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            ledger.artifacts.put(b"output", kind="output", name="x")
    assert not [p for p in ledger.directory.rglob("*") if p.is_file()]
    assert ledger.artifacts.list() == []
    assert ledger.check() == []
    assert ledger.artifacts.read(ledger.artifacts.put(b"output", kind="output", name="x").id) == b"output"


def test_damage_is_noticed(ledger: Ledger) -> None:
    artifact = ledger.artifacts.put(b"right", kind="checkpoint", name="x")
    artifact.path.write_bytes(b"wrong")
    with pytest.raises(LedgerError, match="altered"):
        ledger.artifacts.read(artifact.id)
    artifact.path.unlink()
    with pytest.raises(LedgerError, match="missing"):
        ledger.artifacts.path(artifact.id)
    ledger.artifacts.put(b"right", kind="checkpoint", name="x")
    assert ledger.artifacts.read(artifact.id) == b"right"
    with pytest.raises(NotFoundError):
        ledger.artifacts.path(99)


def test_pruning_spares_what_is_referred_to(ledger: Ledger, campaign: CampaignRow) -> None:
    round_id = ledger.rounds.open(campaign.id, 0).id
    used = ledger.artifacts.put(b"used", kind="checkpoint", name="a")
    ledger.committees.add(
        round_id, spec={}, training={}, artifact_id=used.id, metrics={}, calibration=None, seed=0, labels=[]
    )
    spared = ledger.artifacts.put(b"spared", kind="checkpoint", name="b")
    idle = ledger.artifacts.put(b"idle", kind="checkpoint", name="c")
    log = ledger.artifacts.put(b"a log", kind="log", name="d")
    stray = ledger.directory / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"stray")
    assert ledger.artifacts.prune(keep=[spared.id], kinds=["checkpoint"], dry_run=True) == 4
    assert idle.path.exists()
    assert ledger.artifacts.prune(keep=[spared.id], kinds=["checkpoint"]) == 4
    assert not idle.path.exists()
    assert all(a.path.exists() for a in (used, spared, log))
    assert stray.exists()  # young: its row may be on its way
    os.utime(stray, (1e9, 1e9))
    ledger.artifacts.prune(keep=[spared.id, log.id])
    assert not stray.exists()
