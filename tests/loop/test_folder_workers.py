"""Jobs through a folder: ``alflow-label`` is killed, sleeps, is told to end, or cannot start its program."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from alflow.errors import FailureKind
from alflow.folder import keeper
from alflow.folder.layout import DONE, OPEN, TAKEN, manifest
from alflow.ledger import JobState, Ledger
from tests.folders import SOON, held, queued, server, start_worker, wait_for, write_programs
from tests.labelers.test_program import GOOD, labeler


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    return write_programs(tmp_path)


def test_a_worker_that_is_killed_is_noticed_and_its_job_done_again(
    ledger: Ledger, tmp_path: Path, programs: Path
) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler("import time; time.sleep(120)"), theory, silence=0.3)
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    worker = start_worker(folder, programs)
    wait_for(lambda: held(folder, keeper.RUNNING))
    session = json.loads(held(folder, keeper.RUNNING)[0].read_text())["session"]
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    wait_for(lambda: not Path(f"/proc/{session}").exists())  # its keeper ends the program
    time.sleep(0.4)
    assert serving._look()
    [attempt] = ledger.queue.attempts(job)
    assert attempt.error_kind is FailureKind.WORKER_DIED
    assert "showed no life for" in attempt.message
    assert not list((folder / TAKEN).iterdir())


def test_a_worker_that_slept_past_its_time_cannot_bring_its_result(
    ledger: Ledger, tmp_path: Path, programs: Path
) -> None:
    """SIGSTOP until the job is given to another, which labels it; the first wakes up and finds its job gone."""
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    slow = f"import time; time.sleep(1.0); {GOOD}"
    serving = server(ledger, folder, labeler(slow), theory, silence=0.3)
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    sleeper = start_worker(folder, programs)
    wait_for(lambda: held(folder, keeper.RUNNING))
    sleeper.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    assert serving._look()
    ledger.queue.retry([job])
    other = server(ledger, folder, labeler(), theory)
    other._place(other._claim(1)[0])
    start_worker(folder, programs).communicate(timeout=SOON)
    assert other._look()
    assert ledger.queue.get(job).state is JobState.DONE
    sleeper.send_signal(signal.SIGCONT)
    said, _ = sleeper.communicate(timeout=SOON)
    assert "was given to somebody else meanwhile" in said
    assert len([a for a in ledger.queue.attempts(job) if a.state == "done"]) == 1


def test_sigterm_gives_the_job_back_clean(ledger: Ledger, tmp_path: Path, programs: Path) -> None:
    _, theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    script = "import time; open('half.txt', 'w').write('x'); time.sleep(120)"
    serving = server(ledger, folder, labeler(script), theory)
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    before = manifest(folder / OPEN / "job-1")
    worker = start_worker(folder, programs)
    wait_for(lambda: held(folder, "half.txt"))
    worker.terminate()
    said, _ = worker.communicate(timeout=SOON)
    assert worker.returncode == 0
    assert "job-1 is given back" in said
    assert manifest(folder / OPEN / "job-1") == before


def test_a_signal_to_the_whole_batch_job_is_no_crash_of_the_calculation(
    ledger: Ledger, tmp_path: Path, programs: Path
) -> None:
    """SIGTERM reaches the program before anybody else, as at a batch system's time limit."""
    _, theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler("import time; time.sleep(120)"), theory)
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    worker = start_worker(folder, programs)
    wait_for(lambda: held(folder, keeper.RUNNING))
    running = json.loads(held(folder, keeper.RUNNING)[0].read_text())
    worker.terminate()
    for pid in (running["pid"], running["keeper"]):
        os.kill(pid, signal.SIGTERM)
    worker.communicate(timeout=SOON)
    assert (folder / OPEN / "job-1").is_dir()
    assert not (folder / DONE / "job-1").exists()


def test_a_killed_keeper_leaves_no_program_and_is_told(ledger: Ledger, tmp_path: Path, programs: Path) -> None:
    [job], theory = queued(ledger, 1)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler("import time; time.sleep(120)"), theory)
    serving._claim_folder()
    serving._place(serving._claim(1)[0])
    worker = start_worker(folder, programs)
    wait_for(lambda: held(folder, keeper.RUNNING))
    running = json.loads(held(folder, keeper.RUNNING)[0].read_text())
    os.kill(running["keeper"], signal.SIGKILL)
    worker.communicate(timeout=SOON)
    assert not keeper.processes_of_session(running["session"])
    assert serving._look()
    [attempt] = ledger.queue.attempts(job)
    assert attempt.error_kind is FailureKind.WORKER_DIED


def test_a_program_that_cannot_be_started_stops_the_worker_not_the_jobs(
    ledger: Ledger, tmp_path: Path, programs: Path
) -> None:
    _, theory = queued(ledger, 2)
    folder = tmp_path / "jobs"
    serving = server(ledger, folder, labeler(), theory)
    serving._claim_folder()
    for claimed in serving._claim(2):
        serving._place(claimed)
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o700)
    programs.write_text(f'[script]\ncommand = ["{broken}"]\n')
    worker = start_worker(folder, programs)
    said, _ = worker.communicate(timeout=SOON)
    assert worker.returncode == 1
    assert "could not be started" in said
    assert len(list((folder / OPEN).iterdir())) == 2
    programs.write_text('[script]\ncommand = ["no-such-program"]\n')
    said, _ = start_worker(folder, programs).communicate(timeout=SOON)
    assert "there is no program 'no-such-program' on this machine's PATH" in said
