"""What one run may do at most, and what is left of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from alflow.loop._reporter import counted

CONTINUES = "the next run goes on from there"


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """What one run may do at most; None means: no limit beside the campaign's own budget.

    Parameters
    ----------
    rounds
        rounds that the run brings to their end
    labels
        labels; labelling stops at exactly so many, in the middle of a batch where need be
    wall_seconds
        s; after them no step and no calculation begins, one that is under way is finished
    """

    rounds: int | None = None
    labels: int | None = None
    wall_seconds: float | None = None


class Allowance:
    """What is left of the limits of a run that is under way.

    Parameters
    ----------
    limits
        of the run
    count_labels
        number of labels that the campaign has computed by now
    clock
        seconds from any origin
    """

    def __init__(
        self, limits: RunLimits, count_labels: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._count_labels = count_labels
        self._clock = clock
        self._started = clock()
        self._labels_before = count_labels()

    @property
    def labels(self) -> int:
        """Labels that were computed since the run began, by whomever."""
        return self._count_labels() - self._labels_before

    def labels_left(self) -> int | None:
        """Labels that may still be computed; None without a limit."""
        return None if self._limits.labels is None else max(0, self._limits.labels - self.labels)

    def no_time(self) -> str | None:
        """Say that the time is over, or None."""
        seconds = self._limits.wall_seconds
        if seconds is None or self._clock() - self._started < seconds:
            return None
        return f"this run was limited to {seconds:.0f} s; {CONTINUES}"

    def no_label(self) -> str | None:
        """Say that no further label may be computed, for want of labels or of time, or None."""
        if self._limits.labels is not None and self.labels_left() == 0:
            return f"this run was limited to {counted(self._limits.labels, 'label')}; {CONTINUES}"
        return self.no_time()

    def no_round(self, rounds: int) -> str | None:
        """Say that no further round may begin after ``rounds`` of them, or None."""
        if self._limits.rounds is not None and rounds >= self._limits.rounds:
            return f"this run was limited to {counted(self._limits.rounds, 'round')}; {CONTINUES}"
        return self.no_label()
