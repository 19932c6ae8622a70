"""A database that goes away for a while: wait for it, a bounded time, instead of ending at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from alflow.errors import LedgerUnavailableError
from alflow.loop._reporter import Reporter

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""How long a run or a worker waits for a ledger that cannot be reached: a restart, a failover, a broken network."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0


class Outage:
    """Counts how long the ledger has been away, and waits between two attempts to reach it.

    Parameters
    ----------
    report
        whom to tell that it is away, and that it is back
    patience
        s; None: :data:`PATIENCE_SECONDS`
    """

    def __init__(self, report: Reporter, patience: float | None = None) -> None:
        self._report = report
        self._patience = PATIENCE_SECONDS if patience is None else patience
        self._since: float | None = None
        self._pause = _FIRST_PAUSE

    def wait(self, error: LedgerUnavailableError) -> None:
        """Wait a little longer than the last time; raises ``error`` when the patience is at its end."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._report.note(f"{error}; trying again for {self._patience:.0f} s")
        left = self._since + self._patience - now
        if left <= 0:
            raise LedgerUnavailableError(
                f"{error}; waited {self._patience:.0f} s for it: nothing is lost, the same command continues"
            ) from error
        time.sleep(min(self._pause, left))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def over(self) -> None:
        """Say that the ledger answers; the next outage is another one."""
        if self._since is not None:
            self._report.note(f"the ledger is back after {time.monotonic() - self._since:.1f} s")
        self._since, self._pause = None, _FIRST_PAUSE


def through_outage(call: Callable[[], T], report: Reporter) -> T:
    """Call until the ledger answers, as long as patience lasts.

    Where the connection was lost while a transaction was committed, nobody knows whether it was: ``call`` must do the
    right thing when it is repeated after all.

    Raises
    ------
    LedgerUnavailableError
        when the patience is at its end
    """
    outage = Outage(report)
    while True:
        try:
            result = call()
        except LedgerUnavailableError as error:
            outage.wait(error)
        else:
            outage.over()
            return result
