"""Jobs through a folder: a server beside the ledger, and what may go wrong there."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from alflow.errors import ConfigError, FailureKind
from alflow.folder.layout import DONE, HEARTBEAT, JOB, OPEN, TAKEN, manifest
from alflow.folder.outputs import find_outputs
from alflow.labelers import EmtLabeler, EmtSettings, LabelResult, OutputSettings
from alflow.ledger import CandidateState, JobState, Ledger, NewCandidate, open_ledger
from alflow.loop import WorkUntil
from alflow.structures import Structure
from tests.folders import SOON, queued, server, start_worker, write_programs
from tests.labelers.test_program import GOOD, LeavesScratch, labeler


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    return write_programs(tmp_path)


def test_jobs_go_out_and_labels_come_back(ledger: Ledger, tmp_path: Path, programs: Path) -> None:
    jobs, theory = queued(ledger, 6)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler(), theory, capacity=4)
    serving._claim_folder()
    workers = [start_worker(folder, programs, "--idle", "5") for _ in range(2)]
    summary = serving.serve()
    said = [worker.communicate(timeout=SOON)[0] for worker in workers]
    assert summary.labelled == 6
    for job in jobs:
        row = ledger.queue.get(job)
        assert row.state is JobState.DONE
        label = ledger.labels.get(row.structure_id, theory)
        assert label is not None
        assert label.properties.energy == -1.0
        assert label.evidence["command"][0] == sys.executable
    assert sum(int(text.rpartition(" jobs computed")[0].split()[-1]) for text in said) == 6
    assert not [path for place in (OPEN, TAKEN, DONE) for path in (folder / place).iterdir()]
    kept = sorted((ledger.directory / "jobs").glob("job-*/attempt-1/run-1/out.json"))
    assert len(kept) == 6


def test_a_program_unknown_here_is_left_to_others(ledger: Ledger, tmp_path: Path, programs: Path) -> None:
    _, theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler(), theory)
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    programs.write_text(f'[vasp]\ncommand = ["{sys.executable}"]\n')
    said, _ = start_worker(folder, programs).communicate(timeout=SOON)
    assert "job-1 is left to others: 'script' is not in alflow-label.toml" in said
    assert (folder / OPEN / "job-1").is_dir()


def test_the_ladder_is_climbed_through_the_folder(ledger: Ledger, tmp_path: Path, programs: Path) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    made = labeler(
        "import json, sys; json.dump({'energy': -1.0, 'converged': sys.argv[1] == '1'}, open('out.json', 'w'))",
        rungs=3,
    )
    serving = server(ledger, folder, made, theory)
    serving._claim_folder()
    worker = start_worker(folder, programs, "--idle", "5")
    assert serving.serve().labelled == 1
    worker.communicate(timeout=SOON)
    label = ledger.labels.get(ledger.queue.get(job).structure_id, theory)
    assert label is not None
    assert (label.evidence["runs"], label.evidence["rung"]) == (2, 1)


def test_failures_come_back_as_what_they_are(ledger: Ledger, tmp_path: Path, programs: Path) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler("import sys; sys.exit('the lattice is upside down')"), theory)
    serving._claim_folder()
    worker = start_worker(folder, programs, "--idle", "3")
    summary = serving.serve()
    worker.communicate(timeout=SOON)
    assert (summary.labelled, summary.retried + summary.failed) == (0, 1)
    [attempt] = ledger.queue.attempts(job)
    assert attempt.error_kind is FailureKind.CRASHED
    assert "the lattice is upside down" in attempt.message


def test_input_that_arrives_damaged_is_not_computed(ledger: Ledger, tmp_path: Path, programs: Path) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler(), theory)
    serving._claim_folder()
    [claimed] = serving._claim(1)
    serving._place(claimed)
    (folder / OPEN / "job-1" / "run-1" / "script.py").write_text("print('half a scr")
    said, _ = start_worker(folder, programs).communicate(timeout=SOON)
    assert "job-1 did not arrive whole: run-1/script.py has" in said
    serving._look()
    [attempt] = ledger.queue.attempts(job)
    assert attempt.error_kind is FailureKind.TRUNCATED
    assert ledger.queue.get(job).state is JobState.RETRY_WAIT


def test_results_that_arrive_truncated_are_no_label(
    ledger: Ledger, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler(), theory)
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    start_worker(folder, programs).communicate(timeout=SOON)
    out = folder / DONE / "job-1" / "run-1" / "out.json"
    whole = out.read_text()
    out.write_text(whole[:10])
    assert not serving._look(), "a network file system may show the rest later"
    out.write_text(whole)
    assert serving._look()
    assert ledger.queue.get(job).state is JobState.DONE
    [other], _ = queued_again(ledger, theory)
    serving._place(serving._claim(1)[0])
    start_worker(folder, programs).communicate(timeout=SOON)
    (folder / DONE / f"job-{other}" / "run-1" / "out.json").unlink()
    monkeypatch.setattr("alflow.loop._folder.ARRIVAL_SECONDS", 0.0)
    serving._look()
    serving._look()
    [attempt] = ledger.queue.attempts(other)
    assert attempt.error_kind is FailureKind.TRUNCATED
    assert "out.json is missing" in attempt.message


def queued_again(ledger: Ledger, theory: int) -> tuple[list[int], int]:
    """One more job."""
    campaign = ledger.campaigns.create("more", "", {}, 1)
    structure = Structure.from_atoms(bulk("Cu", a=4.5))
    ids = ledger.pool.add(campaign.id, None, [NewCandidate(structure=structure, source="test")])
    for state in (CandidateState.POOLED, CandidateState.SELECTED):
        ledger.pool.transition(ids, state, "test")
    return [ledger.queue.enqueue(ledger.pool.get(ids[0]).structure_id, theory, ids[0]).id], theory


@pytest.mark.parametrize("after", ["placed", "computed"])
def test_the_next_server_takes_up_what_is_in_the_folder(
    ledger: Ledger, tmp_path: Path, programs: Path, after: str
) -> None:
    """The first one dies with jobs in the folder; nothing is written or computed twice."""
    jobs, theory = queued(ledger, 3)
    folder = tmp_path / "jobs"
    stamped = "import json, time; json.dump({'energy': time.time(), 'converged': True}, open('out.json', 'w'))"
    first = server(ledger, folder, labeler(stamped), theory)
    first._claim_folder()
    for claimed in first._claim(3):
        first._place(claimed)
    if after == "computed":
        start_worker(folder, programs).communicate(timeout=SOON)
        assert len(list((folder / DONE).iterdir())) == 3
    before = manifest(folder / (OPEN if after == "placed" else DONE))
    ledger.queue.release(jobs)  # what the lease's end does
    second = server(ledger, folder, labeler(stamped), theory)
    worker = start_worker(folder, programs, "--idle", "5") if after == "placed" else None
    assert second.serve().labelled == 3
    if worker is not None:
        worker.communicate(timeout=SOON)
    for job in jobs:
        label = ledger.labels.get(ledger.queue.get(job).structure_id, theory)
        assert label is not None
        assert label.evidence["runs"] == 1
        if after == "computed":
            kept = ledger.directory / "jobs" / f"job-{job}" / "attempt-2" / "run-1" / "out.json"
            assert before[f"job-{job}/run-1/out.json"][0] == kept.stat().st_size
            assert json.loads(kept.read_text())["energy"] == label.properties.energy


def test_results_that_were_judged_once_are_not_missed_by_the_next_server(
    ledger: Ledger, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judging removes scratch; a lease that was lost meanwhile leaves the results to the next server."""
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    script = f"open('scratch.dat', 'wb').write(bytes(1000)); {GOOD}"

    def made() -> LeavesScratch:
        found = LeavesScratch(labeler().program)
        found.script = script
        return found

    judging = made()
    parse = judging.parse

    def parse_too_long(directory: Path) -> LabelResult:
        found = parse(directory)
        ledger.queue.release([job])  # what the lease's end does
        return found

    monkeypatch.setattr(judging, "parse", parse_too_long)
    first = server(ledger, folder, judging, theory)
    first._claim_folder()
    first._place(first._claim(1)[0])
    start_worker(folder, programs).communicate(timeout=SOON)
    assert (folder / DONE / "job-1" / "run-1" / "scratch.dat").exists()
    first._look()
    assert not (folder / DONE / "job-1" / "run-1" / "scratch.dat").exists()
    summary = server(ledger, folder, made(), theory).serve()
    assert (summary.labelled, summary.retried) == (1, 0)


@pytest.mark.parametrize("good", [True, False])
def test_outputs_are_compressed_when_they_come_back(ledger: Ledger, tmp_path: Path, programs: Path, good: bool) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    made = labeler() if good else labeler("import sys; sys.exit('the lattice is upside down')")
    serving = server(ledger, folder, made, theory)
    serving._config = serving._config.model_copy(update={"outputs": OutputSettings.model_validate("compress")})
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    start_worker(folder, programs).communicate(timeout=SOON)
    serving._look()
    [attempt] = ledger.queue.attempts(job)
    assert attempt.directory is not None
    found = find_outputs(attempt.directory)
    assert found == ledger.directory / "jobs" / f"job-{job}" / "attempt-1.tar.gz"
    with tarfile.open(found) as tar:
        assert {"attempt-1/input.json", "attempt-1/run-1/ended.json"} <= set(tar.getnames())


def test_what_was_stored_before_the_server_died_is_put_away(ledger: Ledger, tmp_path: Path, programs: Path) -> None:
    """Killed between storing the label and moving the folder."""
    jobs, theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler(), theory)
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    start_worker(folder, programs).communicate(timeout=SOON)
    shutil.copytree(folder / DONE / "job-1", tmp_path / "copy")
    serving._look()
    shutil.copytree(tmp_path / "copy", folder / DONE / "job-1")
    assert server(ledger, folder, labeler(), theory).serve().labelled == 0
    assert not (folder / DONE / "job-1").exists()
    assert ledger.queue.get(jobs[0]).state is JobState.DONE


def test_what_a_superseded_worker_left_is_put_away_when_its_job_is_closed(
    ledger: Ledger, tmp_path: Path, programs: Path
) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler(), theory, silence=0.2)
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    left = folder / TAKEN / "job-1@elsewhere"
    shutil.copytree(folder / OPEN / "job-1", left)
    (left / HEARTBEAT).touch()
    start_worker(folder, programs).communicate(timeout=SOON)
    serving._look()
    assert ledger.queue.get(job).state is JobState.DONE
    (left / HEARTBEAT).touch()
    serving._tidy()
    assert left.exists(), "it may be alive"
    time.sleep(0.4)
    serving._tidy()
    assert not left.exists()


def test_a_parser_that_stumbles_ends_no_server(
    ledger: Ledger, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    made = labeler()
    serving = server(ledger, folder, made, theory)
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    start_worker(folder, programs).communicate(timeout=SOON)

    def stumbles(*_: Any) -> None:
        raise ValueError("could not convert string to float: '***'")

    monkeypatch.setattr(made, "read_outputs", stumbles)
    assert serving._look()
    [attempt] = ledger.queue.attempts(job)
    assert attempt.error_kind is FailureKind.CRASHED
    assert not (folder / DONE / "job-1").exists()


def test_a_cancelled_job_leaves_the_folder(ledger: Ledger, tmp_path: Path) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler(), theory)
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    ledger.queue.cancel([job])
    with serving._lock:
        serving._held.pop(job)  # what the heartbeat does
    assert serving._look()
    assert not (folder / OPEN / "job-1").exists()


def test_a_folder_of_another_ledger_and_foreign_folders_are_left_alone(ledger: Ledger, tmp_path: Path) -> None:
    _, theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    (folder / DONE / "job-77").mkdir(parents=True)
    (folder / DONE / "notes").mkdir()
    serving = server(ledger, folder, labeler(), theory)
    serving._claim_folder()
    serving._tidy()
    assert (folder / DONE / "job-77").is_dir()
    assert (folder / DONE / "notes").is_dir()
    with (
        open_ledger(f"sqlite:///{tmp_path / 'other.db'}") as other,
        pytest.raises(ConfigError, match="is served for another ledger"),
    ):
        server(other, folder, labeler(), theory).serve()


def test_a_job_folder_that_holds_another_calculation_is_not_mistaken(ledger: Ledger, tmp_path: Path) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler(), theory)
    serving._claim_folder()
    labeler().prepare(Structure.from_atoms(bulk("Cu", a=9.0)), folder / DONE / f"job-{job}")
    serving._place(serving._claim(1)[0])
    assert (folder / OPEN / f"job-{job}").is_dir()
    assert not (folder / DONE / f"job-{job}").exists()
    assert list((folder / "lost").iterdir())


def test_labelers_without_a_program_are_left_to_other_workers(ledger: Ledger, tmp_path: Path) -> None:
    [job], theory = queued(ledger, 1)
    serving = server(ledger, tmp_path / "jobs", EmtLabeler(EmtSettings()), theory)
    assert serving.serve().failed == 0
    assert ledger.queue.get(job).state is JobState.QUEUED
    assert not ledger.queue.attempts(job)


def test_an_interrupted_server_gives_its_jobs_back_and_leaves_the_folder(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler(), theory)

    def interrupted() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "_look", interrupted)
    with pytest.raises(KeyboardInterrupt):
        serving.serve(WorkUntil.FOREVER)
    assert ledger.queue.get(job).state is JobState.QUEUED
    assert (folder / OPEN / f"job-{job}" / JOB).is_file()
