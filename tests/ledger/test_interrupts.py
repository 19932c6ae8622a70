"""Ctrl-C at every moment of a transaction: all of it or nothing, and the ledger is free for the next one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from alflow.ledger import Ledger, open_ledger
from alflow.ledger._interrupts import Interrupts, interrupts_put_off


def interrupt(*_arguments: Any) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def at(ledger: Ledger) -> Callable[[str], None]:
    """Interrupt the next transaction once, at a moment that SQLAlchemy names."""

    def at(moment: str) -> None:
        ledger.now()  # connected
        event.listen(ledger._database._writer, moment, interrupt, once=True)

    return at


def is_free(url: str) -> bool:
    """Whether another process could write at once, and finds what the first one left."""
    begun = time.monotonic()
    with open_ledger(url, create=False) as other:
        other.events.add("free", "")
    return time.monotonic() - begun < 10


def kinds(ledger: Ledger) -> list[str]:
    return [e.kind for e in ledger.events.list()]


@pytest.mark.parametrize(
    ("moment", "kept"),
    [
        ("checkout", []),
        ("begin", []),
        ("before_cursor_execute", []),
        ("after_cursor_execute", []),
        ("commit", ["a", "b"]),
        ("checkin", ["a", "b"]),
    ],
)
def test_a_transaction_is_whole_or_nothing(
    ledger: Ledger, url: str, at: Callable[[str], None], moment: str, kept: list[str]
) -> None:
    def write() -> None:
        with ledger.write():
            ledger.events.add("a", "")
            if moment.endswith("execute"):  # in the middle, not as it begins
                at(moment)
            ledger.events.add("b", "")

    if not moment.endswith("execute"):
        at(moment)
    with pytest.raises(KeyboardInterrupt):
        write()
    # while the traceback still holds what was interrupted
    assert is_free(url)
    assert kinds(ledger) == [*kept, "free"]
    assert not ledger._database.in_write


@pytest.mark.parametrize("moment", ["savepoint", "release_savepoint", "rollback"])
def test_a_part_that_is_undone_is_undone(ledger: Ledger, url: str, at: Callable[[str], None], moment: str) -> None:
    def write() -> None:
        with ledger.write():
            at(moment)
            ledger.events.add("a", "")
            raise ValueError

    with pytest.raises(KeyboardInterrupt):
        write()
    assert is_free(url)
    assert kinds(ledger) == ["free"]


def test_what_is_done_on_the_way_out_works(ledger: Ledger, at: Callable[[str], None]) -> None:
    """As a run gives its lease back, while the interrupt is on its way up."""

    def drive() -> None:
        try:
            at("after_cursor_execute")
            ledger.campaigns.list()
            ledger.events.add("never", "")
        finally:
            ledger.events.add("given back", "")

    with pytest.raises(KeyboardInterrupt):
        drive()
    assert kinds(ledger)[-1] == "given back"


def test_reading_can_be_interrupted(ledger: Ledger) -> None:
    def look() -> None:
        with ledger.read():
            interrupt()
            pytest.fail("the interrupt was put off for too long")

    with pytest.raises(KeyboardInterrupt):
        look()
    assert ledger.now()


def test_the_second_interrupt_takes_effect_at_once() -> None:
    reached = []

    def hurry() -> None:
        with interrupts_put_off():
            interrupt()
            reached.append(1)
            interrupt()
            reached.append(2)

    with pytest.raises(KeyboardInterrupt):
        hurry()
    assert reached == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_of_others_and_threads_are_left_alone() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with interrupts_put_off():
            signal.raise_signal(signal.SIGTERM)
            assert seen == []
        assert seen == [signal.SIGTERM]
        ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with interrupts_put_off():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, ignored)
    finally:
        signal.signal(signal.SIGTERM, before)

    def in_thread() -> None:
        interrupts = Interrupts()
        interrupts.put_off()
        seen.append(-1 if signal.getsignal(signal.SIGINT) is signal.default_int_handler else 0)
        interrupts.let_through()

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert seen[-1] == -1
