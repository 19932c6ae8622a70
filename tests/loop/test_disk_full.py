"""Full disks, by a file that is always full: what each part makes of it. ``tests/kill`` fills real disks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alflow.errors import FailureKind
from alflow.folder import keeper
from alflow.folder.layout import DONE, OPEN, RESULT, TAKEN
from alflow.labelers import EmtLabeler, Invocation, Labeler, RawOutcome, WorkerConfig
from alflow.ledger import AttemptState, JobState, Ledger, check_ledger
from alflow.loop import FolderServer, LabelWorker
from alflow.structures import Structure
from tests.folders import SOON, queued, start_worker, write_programs
from tests.labelers.test_program import GOOD, Script, labeler, processes_in

FULL = Path("/dev/full")
# nothing may read that file: it has no end, either
CLOSED = "with open('out.json', 'w') as out: out.write('{}')"

pytestmark = pytest.mark.skipif(not FULL.exists(), reason=f"there is no {FULL} on this system")


class NoRoomFor(Script):
    """A program in whose folder one file is always full."""

    full = ""

    def write_inputs(self, structure: Structure, folder: Path, rung: int) -> Invocation:
        (folder / self.full).symlink_to(FULL)
        return super().write_inputs(structure, folder, rung)


def no_room_for(name: str, script: str = GOOD) -> NoRoomFor:
    made = NoRoomFor(labeler().program)
    made.full, made.script = name, script
    return made


class NoRoomForOutcome(EmtLabeler):
    """A calculation whose outcome cannot be written down."""

    def compute(self, structure: Structure, directory: Path | None) -> RawOutcome:
        assert directory is not None
        (directory / "outcome.json.partial").symlink_to(FULL)
        return super().compute(structure, directory)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(NoRoomForOutcome(), id="the outcome of a call"),
        pytest.param(no_room_for("script.py"), id="an input"),
        pytest.param(no_room_for("out.json", CLOSED), id="an output"),
        pytest.param(no_room_for(f"{keeper.RUNNING}.partial"), id="the record of what runs"),
        pytest.param(no_room_for(f"{keeper.ENDED}.partial"), id="the record of its end"),
    ],
)
def test_a_worker_tells_a_full_disk(ledger: Ledger, tmp_path: Path, made: Labeler) -> None:
    [job], theory = queued(ledger, 1)
    config = WorkerConfig.model_validate({"scratch": tmp_path / "scratch", "retries": {"delay_seconds": 0}})
    assert LabelWorker(ledger, config, labelers={theory: made}).run(max_jobs=1).retried == 1
    [attempt] = ledger.queue.attempts(job)
    assert (attempt.state, attempt.error_kind) == (AttemptState.FAILED, FailureKind.DISK_FULL), attempt.message
    assert not processes_in(tmp_path)
    good: Labeler = EmtLabeler() if isinstance(made, EmtLabeler) else labeler()
    assert LabelWorker(ledger, config, labelers={theory: good}).run().labelled == 1
    assert labelled_once(ledger, job)


@pytest.mark.parametrize("name", ["an input", "the record of the job"])
def test_a_server_tells_a_full_disk(ledger: Ledger, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    made = no_room_for("script.py") if name == "an input" else labeler()
    serving = serve(ledger, folder, made, theory)
    if name != "an input":
        prepare = made.prepare

        def without_room(structure: Structure, directory: Path) -> None:
            prepare(structure, directory)
            (directory / "job.json.partial").symlink_to(FULL)

        monkeypatch.setattr(made, "prepare", without_room)
    serving._place(serving._claim(1)[0])
    [attempt] = ledger.queue.attempts(job)
    assert attempt.error_kind is FailureKind.DISK_FULL
    assert not list(folder.glob(".making*"))
    assert not list((folder / OPEN).iterdir())


@pytest.mark.parametrize("what", ["the record of its end", "the result"])
def test_alflow_label_tells_a_full_disk(ledger: Ledger, tmp_path: Path, what: str) -> None:
    """It ends with one clear line, and what it computed comes back as what it is."""
    [job], theory = queued(ledger, 1)
    folder, programs = tmp_path / "jobs", write_programs(tmp_path)
    if what == "the result":
        made: Script = labeler(f"import os; os.symlink('{FULL}', '../{RESULT}.partial'); {GOOD}")
    else:
        made = no_room_for(f"{keeper.ENDED}.partial")
    serving = serve(ledger, folder, made, theory)
    serving._place(serving._claim(1)[0])
    worker = start_worker(folder, programs)
    said, _ = worker.communicate(timeout=SOON)
    assert worker.returncode == 1
    assert "cannot be written to: [Errno 28] No space left on device" in said
    assert serving._look()
    [attempt] = ledger.queue.attempts(job)
    assert attempt.error_kind is FailureKind.DISK_FULL
    assert "No space left on device" in attempt.message
    good = serve(ledger, folder, labeler(), theory)
    good._place(good._claim(1)[0])
    start_worker(folder, programs).communicate(timeout=SOON)
    assert good._look()
    assert labelled_once(ledger, job)
    assert not [path for place in (OPEN, TAKEN, DONE) for path in (folder / place).iterdir()]


def serve(ledger: Ledger, folder: Path, made: Labeler, theory: int) -> FolderServer:
    """A server that repeats failures at once."""
    config = WorkerConfig.model_validate({"retries": {"delay_seconds": 0}})
    server = FolderServer(ledger, config, folder, labelers={theory: made})
    server._claim_folder()
    return server


def labelled_once(ledger: Ledger, job: int) -> bool:
    """Whether a job that failed once has one label by one attempt, and nothing contradicts that."""
    row: Any = ledger.queue.get(job)
    states = [attempt.state for attempt in ledger.queue.attempts(job)]
    label = ledger.labels.get(row.structure_id, row.theory_id)
    assert check_ledger(ledger.url) == []
    return row.state is JobState.DONE and states == [AttemptState.FAILED, AttemptState.DONE] and label is not None
