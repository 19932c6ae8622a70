"""The places of jobs in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from alflow.folder.layout import DONE, LOST, OPEN, TAKEN, make
from alflow.loop import SilentReporter
from alflow.loop._places import Places


class Listens(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path)
    (tmp_path / LOST).mkdir(exist_ok=True)
    return tmp_path


def test_what_is_computed_counts_before_what_is_held_and_that_before_what_waits(folder: Path) -> None:
    places = Places(folder, Listens())
    assert places.find("job-1") == []
    for place in (OPEN, TAKEN, DONE):
        (folder / place / ("job-1@node" if place == TAKEN else "job-1")).mkdir()
    assert [path.parent.name for path in places.find("job-1")] == [DONE, TAKEN, OPEN]


def test_what_is_put_away_is_told_with_its_reason(folder: Path) -> None:
    told = Listens()
    (folder / OPEN / "job-1").mkdir()
    Places(folder, told).put_away(folder / OPEN / "job-1", "its job is done")
    assert told.said == ["job-1 is put away in lost/: its job is done"]
    assert [path.name.startswith("job-1-") for path in (folder / LOST).iterdir()] == [True]


def test_what_somebody_took_meanwhile_is_no_trouble_and_what_stays_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, job = Listens(), folder / OPEN / "job-1"
    places = Places(folder, told)
    places.put_away(job, "it is not there")
    assert told.said == []

    def refused(path: Path, goal: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(path))

    job.mkdir()
    monkeypatch.setattr(Path, "rename", refused)
    places.put_away(job, "its job is done")
    assert job.is_dir()
    assert len(told.said) == 1
    assert "stays, it cannot be put away: [Errno 13] Permission denied" in told.said[0]


def test_the_age_of_a_file_that_is_not_there_is_unknown(folder: Path) -> None:
    places = Places(folder, Listens())
    assert places.age_of(folder / "no-such-file") is None
    (folder / "now").touch()
    age = places.age_of(folder / "now")
    assert age is not None
    assert age < 60
