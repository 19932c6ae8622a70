"""A ledger moved to another database: all of it or nothing, bit for bit."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update

from alflow.errors import CampaignBusyError, LedgerError, LedgerVersionError, NotFoundError, UserError
from alflow.ledger import (
    CandidateState,
    JobState,
    Ledger,
    NewCandidate,
    WorkerIdentity,
    check_ledger,
    copy_ledger,
    open_ledger,
)
from alflow.ledger import _copy as module
from alflow.ledger import _tables as t
from alflow.ledger._base import Base
from alflow.ledger._engine import Database
from alflow.ledger._migrate import exists
from tests.databases import Databases
from tests.report.conftest import ordering, play

POSTGRESQL = pytest.mark.integration
PAIRS = [
    ("sqlite", "sqlite"),
    pytest.param(("sqlite", "postgresql"), marks=POSTGRESQL),
    pytest.param(("postgresql", "sqlite"), marks=POSTGRESQL),
]


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite ledger of a finished campaign, with what is hard to copy."""
    path: Path = tmp_path_factory.mktemp("played") / "played.db"
    with open_ledger(f"sqlite:///{path}") as ledger:
        play(ledger)
        for data in (b"weights", b"", b"\x00\xff" * 100_000):
            ledger.artifacts.put(data, kind="checkpoint", name=f"{len(data)} bytes")
        ledger.artifacts.put(b"weights", kind="log", name="the same bytes")
        awkward(ledger)
    return path


def awkward(ledger: Ledger) -> None:
    """Rows that refer to later ones, numbers at the edges, JSON whose spelling matters, words of every script."""
    ids = ledger.pool.ids(1)
    ledger.events.add(
        "odd", "tab\tnew\nline \\N \\. 'quoted' \"Å𝔘\" ", payload={"é\x00\n": [1e-320, -0.0, 2**60, None]}
    )
    with ledger._database.write() as connection:
        for candidate, number in zip(ids, (-0.0, 5e-324, 0.1 + 0.2, math.inf, -math.inf, 2.0**53 + 2), strict=False):
            connection.execute(update(t.Candidate).where(t.Candidate.id == candidate).values(energy=number))
        connection.execute(update(t.Candidate).where(t.Candidate.id == ids[0]).values(parent_id=ids[-1], pinned=True))
        connection.execute(update(t.Campaign).values(fence=2**40, lease_owner="long ago", lease_until=1.0))
        connection.execute(update(t.Candidate).where(t.Candidate.id == ids[1]).values(relation={}))
        # as no ledger of today would write it
        connection.execute(text("""UPDATE round SET summary = '{"b": 1.50,  "a": [1E3]}' WHERE id = 1"""))


@pytest.fixture
def filled(played: Path, databases: Databases, tmp_path: Path) -> Callable[[str], str]:
    """The played ledger in a database of its own."""

    def fill(backend: str) -> str:
        url = databases.empty(backend)
        copy_ledger(f"sqlite:///{played}", url, directory=tmp_path / "files" if backend == "postgresql" else None)
        return url

    return fill


@pytest.fixture(params=PAIRS, ids="-to-".join)
def pair(
    request: pytest.FixtureRequest, played: Path, filled: Callable[[str], str], databases: Databases
) -> tuple[str, str]:
    """URLs of a full ledger and of an empty database."""
    first, second = request.param
    return filled(first), databases.empty(second)


def content(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row, with the text of JSON, floats spelled out to the last bit and nothing else interpreted."""
    database = Database(url)
    found = {}
    with database.read() as connection:
        for table in Base.metadata.sorted_tables:
            columns = ", ".join(
                f'CAST("{c.name}" AS TEXT)' if str(c.type) == "JSON" else f'"{c.name}"' for c in table.columns
            )
            rows = connection.exec_driver_sql(f'SELECT {columns} FROM "{table.name}"')
            found[table.name] = sorted(tuple(map(_spelled, row)) for row in rows)
    database.close()
    return found


def _spelled(value: Any) -> str:
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return repr(int(value) if isinstance(value, bool) else value)


def is_empty(url: str) -> bool:
    database = Database(url)
    try:
        return not exists(database)
    finally:
        database.close()


def test_a_copy_holds_the_same_to_the_last_bit(pair: tuple[str, str], played: Path) -> None:
    source, target = pair
    told: list[tuple[str, int, int]] = []
    report = copy_ledger(source, target, progress=lambda what, done, total: told.append((what, done, total)))
    original = content(f"sqlite:///{played}")
    assert content(source) == content(target) == original
    assert report.rows == {name: len(rows) for name, rows in original.items()}
    assert (report.files, report.file_bytes) == (3, 200_007)
    assert {p.name for p in report.directory.glob("??/*")} == {p.name for p in Path(f"{played}.files").glob("??/*")}
    assert check_ledger(target) == []
    assert list(dict.fromkeys(what for what, done, total in told if done == total)) == ["files", "rows", "comparison"]


def test_new_rows_are_numbered_after_the_copied_ones(pair: tuple[str, str]) -> None:
    source, target = pair
    copy_ledger(source, target)
    with open_ledger(source, create=False) as old, open_ledger(target, create=False) as new:
        before = new.stats()["rows"]
        for ledger in (old, new):
            ledger.pool.add(1, None, [NewCandidate(structure=ordering(("Ni",) * 4, 0.2), source="later")])
            ledger.campaigns.create("next", "", {}, 1)
            ledger.artifacts.put(b"more", kind="log", name="x")
        reads: list[Callable[[Ledger], int]] = [
            lambda x: max(x.pool.ids(1)),
            lambda x: x.campaigns.get("next").id,
            lambda x: x.artifacts.list("log")[-1].id,
        ]
        for read in reads:
            assert read(old) == read(new)
        assert new.stats()["rows"]["candidate"] == before["candidate"] + 1


def test_a_round_trip_changes_nothing(filled: Callable[[str], str], databases: Databases, backend: str) -> None:
    source, back = filled("sqlite"), databases.empty("sqlite")
    middle = databases.empty(backend)
    first = copy_ledger(source, middle)
    second = copy_ledger(middle, back)
    assert first.digests == second.digests
    assert content(source) == content(back)


@pytest.mark.parametrize("pair", [pytest.param(("postgresql", "sqlite"), marks=POSTGRESQL)], indirect=True)
def test_a_negative_zero_is_no_difference(pair: tuple[str, str]) -> None:
    """PostgreSQL keeps its sign, as that of a job's precedence; SQLite does not."""
    source, target = pair
    database = Database(source)
    with database.write() as connection:
        connection.execute(text("UPDATE job SET precedence = '-0'"))
    database.close()
    copy_ledger(source, target)


def test_a_stale_fence_is_stale_in_the_copy_too(pair: tuple[str, str]) -> None:
    source, target = pair
    copy_ledger(source, target)
    with open_ledger(target, create=False) as ledger:
        with pytest.raises(LedgerError, match="lost"):
            ledger.campaigns.renew_lease(1, 2**40 - 1, 60)
        assert ledger.campaigns.acquire_lease(1, "somebody", 60) == 2**40 + 1


def test_a_target_with_rows_or_of_others_is_left_alone(pair: tuple[str, str], databases: Databases) -> None:
    source, target = pair
    copy_ledger(source, target)
    before = content(target)
    with pytest.raises(UserError, match="not empty"):
        copy_ledger(source, target)
    with pytest.raises(UserError, match="not empty"):
        copy_ledger(source, source)
    assert content(target) == before
    foreign = databases.empty("postgresql" if target.startswith("postgresql") else "sqlite")
    database = Database(foreign)
    with database.write() as connection:
        connection.execute(text("CREATE TABLE somebody_elses (id integer)"))
    database.close()
    with pytest.raises(LedgerVersionError, match="somebody_elses"):
        copy_ledger(source, foreign)


def test_an_empty_ledger_is_as_good_as_an_empty_database(
    filled: Callable[[str], str], databases: Databases, backend: str
) -> None:
    source, target = filled("sqlite"), databases.ledger(backend)
    copy_ledger(source, target)
    assert content(target) == content(source)


@pytest.mark.parametrize(("version", "remedy"), [("0000", "alflow db upgrade"), ("9999", "upgrade alflow")])
def test_a_source_of_another_version_is_refused(pair: tuple[str, str], version: str, remedy: str) -> None:
    source, target = pair
    database = Database(source)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version})
    database.close()
    with pytest.raises(LedgerVersionError, match=remedy):
        copy_ledger(source, target)
    assert is_empty(target)


def test_nobody_may_work_on_the_source(pair: tuple[str, str]) -> None:
    source, target = pair
    with open_ledger(source, create=False) as ledger:
        fence = ledger.campaigns.acquire_lease(1, "process 1 on elsewhere", 60)
        with pytest.raises(CampaignBusyError, match=r"ni-pt of .* is driven by process 1 on elsewhere: stop that run"):
            copy_ledger(source, target)
        ledger.campaigns.release_lease(1, fence)

        [failed] = ledger.queue.list(states=[JobState.QUARANTINED])
        ledger.queue.retry([failed.id])
        worker = WorkerIdentity(name="node7", host="node7", pid=1)
        [job] = ledger.queue.claim(worker, limit=1, lease_seconds=60)
        with pytest.raises(UserError, match=r"1 job of .* is held by node7: stop the workers"):
            copy_ledger(source, target)
        assert is_empty(target)
        ledger.queue.give_back([(job.job_id, job.fence)])
        copy_ledger(source, target)


def test_what_is_written_meanwhile_is_not_lost_silently(pair: tuple[str, str]) -> None:
    source, target = pair

    def write(what: str, done: int, total: int) -> None:
        if what == "comparison" and done == 0:
            with open_ledger(source, create=False) as ledger:
                ledger.campaigns.create("meanwhile", "", {}, 1)

    with pytest.raises(LedgerError, match="was changed while it was copied"):
        copy_ledger(source, target, progress=write)
    assert is_empty(target)
    copy_ledger(source, target)
    with open_ledger(target, create=False) as ledger:
        assert ledger.campaigns.get("meanwhile")


def test_a_difference_undoes_everything(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = pair
    insert = module._insert

    def falsify(into: Any, table: Any, batches: Any, shown: str) -> None:
        insert(into, table, batches, shown)
        if table.name == "label":
            into.execute(text("UPDATE label SET energy = energy * 1.0000000000000002 WHERE id = 3"))

    monkeypatch.setattr(module, "_insert", falsify)
    with pytest.raises(LedgerError, match="table label came out differently"):
        copy_ledger(source, target)
    assert is_empty(target)


def test_missing_and_altered_files_are_named(
    filled: Callable[[str], str], databases: Databases, tmp_path: Path
) -> None:
    source = filled("sqlite")
    with open_ledger(source, create=False) as ledger:
        artifacts = ledger.artifacts.list("checkpoint")
    artifacts[0].path.write_bytes(b"WEIGHTS")
    artifacts[2].path.unlink()
    target = databases.empty("sqlite")
    with pytest.raises(LedgerError, match=r"2 artifacts are missing or altered in .*: 1, 3; restore") as caught:
        copy_ledger(source, target)
    assert str(tmp_path) in str(caught.value)
    assert not Path(target.removeprefix("sqlite:///")).exists()


def test_a_row_cannot_place_files_elsewhere(filled: Callable[[str], str], databases: Databases) -> None:
    source = filled("sqlite")
    database = Database(source)
    with database.write() as connection:
        connection.execute(text("UPDATE artifact SET location = '../../elsewhere' WHERE id = 1"))
    database.close()
    with pytest.raises(LedgerError, match="where alflow puts none: 1;"):
        copy_ledger(source, databases.empty("sqlite"))


def test_what_is_missing_is_named(filled: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no ledger"):
        copy_ledger(f"sqlite:///{tmp_path / 'none.db'}", f"sqlite:///{tmp_path / 'copy.db'}")
    with pytest.raises(NotFoundError, match="no folder"):
        copy_ledger(filled("sqlite"), f"sqlite:///{tmp_path / 'nowhere' / 'copy.db'}")
    with pytest.raises(UserError, match="ALFLOW_LEDGER_FILES"):
        copy_ledger(filled("sqlite"), "postgresql://me:hunter2@127.0.0.1:1/ledger")
    with pytest.raises(LedgerError) as caught:
        copy_ledger(filled("sqlite"), "postgresql://me:hunter2@127.0.0.1:1/ledger", directory=tmp_path)
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.integration
def test_a_database_that_is_not_there_is_named(
    filled: Callable[[str], str], databases: Databases, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match=r"createdb .*--username=alflow nowhere"):
        copy_ledger(filled("sqlite"), f"{databases.server.url}/nowhere", directory=tmp_path)


COPY_AND_STOP = """
import sys, time
from alflow.ledger import copy_ledger

def stop(what, done, total):
    if what == sys.argv[3] and done >= total / 2:
        print("half way", flush=True)
        time.sleep(600)

copy_ledger(sys.argv[1], sys.argv[2], progress=stop)
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("pair", "moment"),
    [
        (("sqlite", "sqlite"), "rows"),
        (("postgresql", "sqlite"), "rows"),
        *((("sqlite", "postgresql"), moment) for moment in ("files", "rows", "comparison")),
    ],
    indirect=["pair"],
)
def test_killed_half_way_the_target_is_empty_and_the_same_call_works(pair: tuple[str, str], moment: str) -> None:
    source, target = pair
    command = [sys.executable, "-c", COPY_AND_STOP, source, target, moment]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    with process.stdout as stdout:
        assert stdout.readline() == "half way\n"
        process.kill()
        process.wait()
    assert is_empty(target)
    copy_ledger(source, target)
    assert content(target) == content(source)
    assert check_ledger(target) == []
    with open_ledger(target, create=False) as ledger:
        assert ledger.pool.counts(1)[CandidateState.LABELLED] > 0
