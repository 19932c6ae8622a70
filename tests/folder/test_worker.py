"""``alflow-label`` by itself: its file, what it needs, and that it shows that it lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from alflow.folder import keeper
from alflow.folder.layout import DONE, HEARTBEAT, JOB, OPEN, FolderError, manifest, read_json
from alflow.folder.worker import Worker, read_programs
from alflow.structures import Structure
from tests.folders import start_worker, write_programs
from tests.labelers.test_program import Script, labeler

SOON = 40.0


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    return write_programs(tmp_path)


@pytest.mark.parametrize("record", ['{"version": 1, "program": "script"}', '{"version": 99, "program": "script"}'])
def test_a_record_that_is_no_job_is_refused(tmp_path: Path, programs: Path, record: str) -> None:
    job = tmp_path / "jobs" / OPEN / "job-1"
    (job / "run-1").mkdir(parents=True)
    (job / JOB).write_text(record)
    said, _ = start_worker(tmp_path / "jobs", programs).communicate(timeout=SOON)
    assert "job-1 did not arrive whole: job.json is missing, damaged or of another version" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[vasp]\ncommand = 'vasp_std'\n", r"\[vasp\]: command must be a list of words"),
        ("[vasp]\ncommand = ['vasp_std']\nwalltime = 3\n", r"\[vasp\]: unknown key 'walltime'; there are command"),
        ("[vasp]\ncommand = ['v']\nmemory_gb = 'much'\n", r"\[vasp\]: memory_gb must be a number"),
        ("[vasp]\ncommand = ['v']\nenvironment = {A = 1}\n", r"\[vasp\]: environment must be a table of texts"),
        ("vasp = 3\n", r"\[vasp\]: write a section"),
        ("[vasp\n", "alflow-label.toml: "),
    ],
)
def test_a_mistake_in_its_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "alflow-label.toml"
    file.write_text(text)
    with pytest.raises(FolderError, match=words):
        read_programs(file)


def test_without_a_folder_or_a_file_it_says_so(tmp_path: Path, programs: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "none")}
    command = [sys.executable, "-m", "alflow.folder.worker"]
    (tmp_path / "empty").mkdir()
    no_file = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, check=False
    )
    assert (no_file.returncode, no_file.stderr.count("\n")) == (1, 1)
    assert "no alflow-label.toml here" in no_file.stderr
    no_folder = subprocess.run(
        [*command, "nowhere", "--programs", str(programs)], capture_output=True, text=True, check=False
    )
    assert (no_folder.returncode, no_folder.stderr) == (
        1,
        "alflow-label: nowhere: no such folder; `alflow worker --folder` makes it\n",
    )


def test_it_imports_nothing_beyond_the_standard_library() -> None:
    program = (
        "import sys; import alflow.folder.worker; print(sorted(m for m in sys.modules if m.split('.')[0] not in "
        "sys.stdlib_module_names and not m.startswith('alflow') and m != '__main__' and m != 'sitecustomize'))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_worker_shows_that_it_lives(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alflow.folder.worker.BEAT_SECONDS", 0.1)
    folder = tmp_path / "jobs"
    (folder / OPEN).mkdir(parents=True)
    made: Script = labeler("import time; time.sleep(1.2)")
    job = folder / OPEN / "job-1"
    made.prepare(Structure.from_atoms(bulk("Cu")), job)
    record = {"version": 1, "job": 1, "program": "script", "formula": "Cu", "files": manifest(job)}
    (job / JOB).write_text(json.dumps(record))
    beats: list[float] = []
    utime = os.utime

    def counted(path: Any, *arguments: Any, **more: Any) -> None:
        if Path(path).name == HEARTBEAT:
            beats.append(time.monotonic())
        utime(path, *arguments, **more)

    monkeypatch.setattr("alflow.folder.worker.os.utime", counted)
    previous = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        Worker(folder, read_programs(programs)).run(jobs=1, idle=0.0, seconds=None)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), previous, strict=True):
            signal.signal(number, handler)
    assert len(beats) >= 4
    assert np.diff(beats).max() < 1.0
    assert (read_json(folder / DONE / "job-1" / "run-1" / keeper.ENDED) or {})["reason"] == "exited"
