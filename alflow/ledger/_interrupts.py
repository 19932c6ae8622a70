"""Interrupts between two steps of a transaction: one that hits a driver or a pool leaves connections it cannot mend."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Puts off what signals do while a connection is fetched, a transaction begins or ends.

    The first signal takes effect when :meth:`let_through` is called; a second one at once, for who is in a hurry. Only
    handlers written in Python are put off, and only in the main thread, the only one in which they run.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._pending: tuple[int, FrameType | None] | None = None
        self._here = threading.current_thread() is threading.main_thread()

    def put_off(self) -> None:
        """From here on a signal waits."""
        if not self._here:
            return
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler) and number not in self._handlers:
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def let_through(self) -> None:
        """From here on a signal takes effect as before; one that came meanwhile does so now."""
        while self._handlers:  # what an interrupt leaves undone here is done by the next call
            number = next(iter(self._handlers))
            signal.signal(number, self._handlers[number])
            del self._handlers[number]
        if self._pending is not None:
            (number, frame), self._pending = self._pending, None
            handler = signal.getsignal(number)
            if callable(handler):
                handler(number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._pending is None:
            self._pending = (number, frame)
        else:
            self._handlers[number](number, frame)


@contextmanager
def interrupts_put_off() -> Iterator[Interrupts]:
    """Put signals off for the length of the block, apart from what the block itself lets through."""
    interrupts = Interrupts()
    try:
        interrupts.put_off()
        yield interrupts
    finally:
        interrupts.let_through()
