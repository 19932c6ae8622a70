"""Disks that are full, real ones: a small file system in memory that is filled at the worst moment.

Needs root, to mount. What the same errors do where nobody may mount is in ``tests/loop/test_disk_full.py``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy

from alflow.errors import FailureKind
from alflow.folder.layout import DONE, OPEN, TAKEN
from alflow.ledger import AttemptState, JobState
from alflow.ledger import _tables as t
from tests.kill.labelling import IN_PROCESS, PROGRAM, Bench
from tests.labelers.test_program import GOOD

pytestmark = pytest.mark.integration

MIB = 1 << 20
# a calculation that fills the disk, and whose last words find no room on it either
FILLS = f"""
from pathlib import Path
if Path("../../../../room").exists():
    {GOOD}
else:
    with open("large.out", "wb") as stream:
        while True:
            stream.write(bytes(65536))
"""
# the same, but it notices nothing and exits as if all were well
CARELESS = f"""
import json
from pathlib import Path
if Path("../../../../room").exists():
    {GOOD}
else:
    with open("out.json", "w") as out:
        json.dump({{"energy": -1.0, "converged": True}}, out)
    try:
        with open("large.out", "wb") as stream:
            while True:
                stream.write(bytes(4096))
    except OSError:
        Path("out.json").write_text('{{"energ')
"""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on; it hardly knows of the disks that are filled here."""
    return str(request.param)


@dataclass(frozen=True)
class Disk:
    """A small file system."""

    path: Path

    def fill(self) -> None:
        """Leave no room."""
        with contextlib.suppress(OSError), (self.path / "ballast").open("ab", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        assert os.statvfs(self.path).f_bavail == 0

    def free(self) -> None:
        """Give it back."""
        (self.path / "ballast").unlink(missing_ok=True)


@pytest.fixture
def disk(bench: Bench) -> Iterator[Disk]:
    """A disk of 4 MiB."""
    path = bench.scene.directory / "disk"
    path.mkdir()
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", f"size={4 * MIB}", "alflow-test", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield Disk(path)
    bench.scene.end_all()
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def on_disk(bench: Bench, disk: Disk) -> Bench:
    """The folder of jobs is on the small disk."""
    (disk.path / "jobs").mkdir()
    bench.folder.symlink_to(disk.path / "jobs")
    return bench


def ends_as(bench: Bench, kinds: list[FailureKind | None]) -> None:
    """Every job is labelled once, by attempts that ended so."""
    assert bench.losses() == []
    assert [bench.causes(i) for i in range(len(bench.jobs))] == [kinds] * len(bench.jobs)
    bench.nothing_runs()


def in_scratch(disk: Disk) -> dict[str, str]:
    """A worker's file whose jobs lie on the small disk."""
    return {"scratch": str(disk.path / "scratch")}


@pytest.mark.parametrize("script", [FILLS, CARELESS], ids=["it fails", "it exits with 0"])
def test_a_program_fills_the_disk(bench: Bench, disk: Disk, script: str) -> None:
    """Its standard error is on that disk, too: only the state of the disk tells the cause."""
    bench.queue(1, PROGRAM)
    assert bench.worker(script=script, config=in_scratch(disk)).wait() == 0
    [attempt] = bench.attempts()
    assert (attempt.state, attempt.error_kind) == (AttemptState.FAILED, FailureKind.DISK_FULL), attempt.message
    assert "the disk was full when it ended" in attempt.message
    assert bench.job().state is JobState.RETRY_WAIT
    (disk.path / "room").touch()
    for path in disk.path.rglob("large.out"):
        path.unlink()
    bench.repeat_soon()
    assert bench.worker(script=script, config=in_scratch(disk)).wait() == 0
    ends_as(bench, [FailureKind.DISK_FULL, None])


@pytest.mark.parametrize("mode", [IN_PROCESS, PROGRAM])
def test_a_worker_writes_inputs_to_a_full_disk(bench: Bench, disk: Disk, mode: str) -> None:
    bench.queue(2, mode)
    disk.fill()
    assert bench.worker(config=in_scratch(disk)).wait() == 0
    assert [bench.causes(i) for i in range(2)] == [[FailureKind.DISK_FULL]] * 2
    disk.free()
    bench.repeat_soon()
    assert bench.worker(config=in_scratch(disk)).wait() == 0
    ends_as(bench, [FailureKind.DISK_FULL, None])


@pytest.mark.parametrize(("mode", "point"), [(IN_PROCESS, "inside"), (PROGRAM, "read")])
def test_a_disk_becomes_full_while_a_worker_computes(bench: Bench, disk: Disk, mode: str, point: str) -> None:
    """What is computed in process has to be written down first; the output of a program is there already."""
    bench.queue(1, mode)
    worker = bench.worker(point, config=in_scratch(disk))
    bench.scene.wait_until_reached(worker)
    assert bench.is_leased()
    disk.fill()
    bench.scene.go()
    assert worker.wait() == 0
    if mode == PROGRAM:
        ends_as(bench, [None])
        return
    assert bench.causes() == [FailureKind.DISK_FULL]
    disk.free()
    bench.repeat_soon()
    assert bench.worker(config=in_scratch(disk)).wait() == 0
    ends_as(bench, [FailureKind.DISK_FULL, None])


def test_a_server_writes_jobs_to_a_full_disk(on_disk: Bench, disk: Disk) -> None:
    bench = on_disk
    bench.queue(2, PROGRAM)
    for place in (OPEN, TAKEN, DONE, "bad", "lost"):
        (bench.folder / place).mkdir()
    server = bench.server("claim-committed", until="forever")
    bench.scene.wait_until_reached(server)
    disk.fill()
    bench.scene.go()
    bench.wait(lambda: [bench.causes(i) for i in range(2)] == [[FailureKind.DISK_FULL]] * 2)
    assert not list(bench.folder.glob(".making*")), "half a job takes no room"
    disk.free()
    bench.label()
    bench.repeat_soon()
    bench.wait(bench.all_labelled)
    server.kill()
    ends_as(bench, [FailureKind.DISK_FULL, None])


@pytest.mark.parametrize("point", ["taken", "result"])
def test_alflow_label_finds_the_disk_full(on_disk: Bench, disk: Disk, point: str) -> None:
    """Before it begins the job goes back; afterwards its end is told, in the room that the program's files had."""
    bench = on_disk
    bench.queue(1, PROGRAM)
    server = bench.server(until="forever")
    first = bench.label(point)
    bench.scene.wait_until_reached(first)
    disk.fill()
    bench.scene.go()
    assert first.wait() == 1
    assert "cannot be written to: [Errno 28] No space left on device" in first.output()
    if point == "result":
        bench.wait(lambda: bench.causes() == [FailureKind.DISK_FULL])
    disk.free()
    bench.label()
    bench.repeat_soon()
    bench.wait(bench.all_labelled)
    server.kill()
    ends_as(bench, [FailureKind.DISK_FULL, None] if point == "result" else [None])


def test_a_program_fills_the_disk_of_the_folder(on_disk: Bench, disk: Disk) -> None:
    bench = on_disk
    bench.queue(1, PROGRAM)
    server = bench.server(until="forever", script=FILLS)
    bench.label()
    bench.wait(lambda: bench.causes() == [FailureKind.DISK_FULL])
    (disk.path / "room").touch()
    for path in disk.path.rglob("large.out"):
        path.unlink()
    bench.label()  # the first one may have stopped
    bench.repeat_soon()
    bench.wait(bench.all_labelled)
    server.kill()
    ends_as(bench, [FailureKind.DISK_FULL, None])


def test_a_server_collects_from_a_full_disk(on_disk: Bench, disk: Disk) -> None:
    bench = on_disk
    bench.queue(2, PROGRAM)
    bench.label()
    server = bench.server("collect", until="forever")
    bench.scene.wait_until_reached(server)
    disk.fill()
    bench.scene.go()
    bench.wait(lambda: all(attempt.finished for i in range(2) for attempt in bench.attempts(i)))
    disk.free()
    bench.label()
    bench.repeat_soon()
    bench.wait(bench.all_labelled)
    server.kill()
    assert bench.losses() == []
    causes = {cause for i in range(2) for cause in bench.causes(i)}
    assert causes <= {None, FailureKind.DISK_FULL}
    bench.nothing_runs()


def test_raw_output_that_finds_no_room_stays_in_the_folder(bench: Bench, disk: Disk) -> None:
    """The label is stored; where its files were to go is full."""
    bench.queue(1, PROGRAM)
    bench.label()
    server = bench.server("keep", config=in_scratch(disk))
    bench.scene.wait_until_reached(server)
    disk.fill()
    bench.scene.go()
    assert server.wait() == 0
    assert "No space left on device" in server.output()
    assert [p.name for p in (bench.folder / "lost").glob("*/run-1/out.json")] == ["out.json"]
    assert not [p for p in (disk.path / "scratch").rglob("*") if p.is_file()], "half a copy is none"
    ends_as(bench, [None])


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("point", ["claim-commit", "complete-commit"])
def test_the_disk_of_the_ledger_is_full(bench: Bench, disk: Disk, point: str) -> None:
    """The worker waits for room with what it has computed, and stores it once."""
    shutil.move(bench.scene.url.removeprefix("sqlite:///"), disk.path / "campaign.db")
    bench.scene.url = f"sqlite:///{disk.path / 'campaign.db'}"
    bench.queue(2)
    worker = bench.worker(point, config={"scratch": str(bench.scene.directory / "scratch")})
    bench.scene.wait_until_reached(worker)
    disk.fill()
    bench.scene.go()
    bench.wait(lambda: "its disk is full" in worker.output())
    assert worker.ended() is None
    disk.free()
    assert worker.wait() == 0
    ends_as(bench, [None])


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_disk_of_the_server_is_full(bench: Bench) -> None:
    """The server says so where a label is stored, as it does when a table cannot grow."""
    bench.queue(2)
    worker = bench.worker("inside")
    bench.scene.wait_until_reached(worker)
    table = t.Label.__tablename__
    engine = sqlalchemy.create_engine(bench.scene.url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER no_room BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION no_room()"
        )
    bench.scene.go()
    bench.wait(lambda: "its disk is full" in worker.output())
    assert worker.ended() is None
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION no_room CASCADE")
    assert worker.wait() == 0
    ends_as(bench, [None])
