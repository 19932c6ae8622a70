from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alflow.errors import LedgerError, UserError
from alflow.ledger import CampaignRow, Ledger
from alflow.ledger._engine import Database
from alflow.ledger._events import as_ranges, in_ranges
from alflow.ledger._types import plain, to_json


def test_nested_blocks_join(ledger: Ledger, campaign: CampaignRow) -> None:
    def fail() -> None:
        with ledger.write():
            ledger.events.add("b", "undone", campaign_id=campaign.id)
            raise RuntimeError

    with ledger.write():
        ledger.events.add("a", "first", campaign_id=campaign.id)
        with pytest.raises(RuntimeError):
            fail()
        assert [e.kind for e in ledger.events.list(campaign.id)][-1] == "a"  # reads see the open transaction
        ledger.events.add("c", "third", campaign_id=campaign.id)
    assert [e.kind for e in ledger.events.list(campaign.id)][-2:] == ["a", "c"]


def test_readers_do_not_wait_for_a_writer(ledger: Ledger, campaign: CampaignRow) -> None:
    seen: list[int] = []
    with ledger.write():
        ledger.rounds.open(campaign.id, 0)
        reader = threading.Thread(target=lambda: seen.append(len(ledger.rounds.list(campaign.id))))
        reader.start()
        reader.join(10)
        assert seen == [0]
    assert len(ledger.rounds.list(campaign.id)) == 1


def test_a_thread_has_its_own_transaction(ledger: Ledger, campaign: CampaignRow) -> None:
    """As a worker's heartbeat does while the main thread is in another transaction."""
    done = threading.Event()

    def beat() -> None:
        ledger.events.add("beat", "alive", campaign_id=campaign.id)
        done.set()

    with ledger.write():
        thread = threading.Thread(target=beat)
        ledger.now()
        if not ledger.url.startswith("sqlite"):
            thread.start()
            assert done.wait(10)
    if ledger.url.startswith("sqlite"):
        thread.start()
    thread.join(10)
    assert ledger.events.list(campaign.id, kind="beat")


def test_a_write_inside_a_read_is_refused(ledger: Ledger, campaign: CampaignRow) -> None:
    with ledger.read(), pytest.raises(LedgerError, match="write first"):
        ledger.rounds.open(campaign.id, 0)


def test_sqlite_is_set_up_for_many(ledger: Ledger) -> None:
    if not ledger.url.startswith("sqlite"):
        pytest.skip("settings of SQLite")

    def pragma(connection: Any, name: str) -> Any:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    with ledger._database.write() as connection:
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "foreign_keys") == 1
        assert pragma(connection, "synchronous") == 2
        assert pragma(connection, "busy_timeout") == 30_000
    with ledger._database.write(durable=False) as connection:
        assert pragma(connection, "synchronous") == 1
    with ledger._database.read() as connection:
        assert pragma(connection, "query_only") == 1


def _in_child(ledger: Ledger, campaign_id: int) -> None:
    ledger.events.add("child", "written after a fork", campaign_id=campaign_id)
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_its_own_connections(ledger: Ledger, campaign: CampaignRow) -> None:
    ledger.now()
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(ledger, campaign.id))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert len(ledger.events.list(campaign.id, kind="child")) == 1
    assert ledger.now()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://host/db?user=me&password=hunter2", "postgresql+psycopg://host/db?password=***&user=me"),
        ("postgresql://me@host/db?sslpassword=hunter2", "postgresql+psycopg://me@host/db?sslpassword=***"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert Database(url).shown_url == shown


@pytest.mark.parametrize("url", ["postgresql://me:hunter2/word@host", "postgresql://me@hunter2:word@host:x/db"])
def test_a_password_that_must_be_escaped_is_not_shown_either(url: str) -> None:
    try:
        message = Database(url).shown_url
    except UserError as error:
        message = f"{error} {error.__cause__}"
        assert "%40 for @" in message
    assert "hunter2" not in message


def test_what_a_url_says_reaches_the_client_library() -> None:
    arguments = Database("postgresql://me:pw@/db?host=/run/sockets&sslmode=require").connect_arguments()
    assert arguments == {
        "host": "/run/sockets",
        "dbname": "db",
        "user": "me",
        "password": "pw",
        "sslmode": "require",
    }


def test_events_can_be_followed(ledger: Ledger, campaign: CampaignRow) -> None:
    for i in range(5):
        ledger.events.add("tick", f"{i}", campaign_id=campaign.id, payload={"i": i}, actor="clock")
    events = ledger.events.list(campaign.id, 3)
    assert [e.message for e in events] == ["2", "3", "4"]
    assert [e.message for e in ledger.events.list(kind="tick", after=events[0].id)] == ["3", "4"]
    assert events[0].actor == "clock"


def test_what_only_one_database_takes_is_stored_by_both(ledger: Ledger) -> None:
    """PostgreSQL refuses NUL, which logs of crashed programs hold, and texts longer than their column."""
    ledger.events.add("log", "cut off\x00\x00", payload={"tail": "\x00"}, actor="flow run " + "otter" * 100)
    [event] = ledger.events.list(kind="log")
    assert event.message == "cut off\ufffd\ufffd"
    assert event.payload == {"tail": "\x00"}
    assert event.actor.startswith("flow run otter")


def test_ranges() -> None:
    ids = [5, 1, 2, 3, 9, 3]
    assert as_ranges(ids) == [[1, 3], [5, 5], [9, 9]]
    assert as_ranges([]) == []
    assert [i for i in range(12) if in_ranges(as_ranges(ids), i)] == [1, 2, 3, 5, 9]


def test_json_holds_what_numpy_and_people_give() -> None:
    given = {"a": np.float64(1.5), "b": np.arange(2), "c": (float("nan"), np.inf), "p": Path("x"), "s": {2, 1}, 3: True}
    assert plain(given) == {"a": 1.5, "b": [0, 1], "c": [None, None], "p": "x", "s": [1, 2], "3": True}
    assert to_json({"b": 1, "a": "Å"}) == '{"a":"Å","b":1}'
    with pytest.raises(TypeError, match="complex"):
        plain({"z": 1j})
