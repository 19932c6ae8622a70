"""The loop's progress as logs and artifacts of a flow run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alflow.flows._artifacts import Artifacts


class FlowReporter:
    """Passes the loop's progress on to the logger and the artifacts of the flow run.

    ``round_index`` is the round under way.
    """

    def __init__(self, log: Any, artifacts: Artifacts) -> None:
        self._log = log
        self._artifacts = artifacts
        self.round_index = 0

    def round(self, index: int, text: str) -> None:
        """Log that a round begins or goes on."""
        self.round_index = index
        self._log.info("round %d %s", index, text)

    def step(self, name: str, text: str) -> None:
        """Log the result of a step."""
        self._artifacts.finish_progress()
        self._log.info("%s: %s", name, text or "begins")

    def progress(self, name: str, done: int, total: int | None, text: str = "") -> None:
        """Move the progress bar."""
        self._artifacts.progress(f"round {self.round_index}, {name}", done, total, text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Show a table as an artifact."""
        shown = [{c: _cell(v) for c, v in zip(columns, row, strict=True)} for row in rows]
        self._artifacts.table(title, f"round {self.round_index}: {title}", shown)

    def note(self, text: str) -> None:
        """Log something worth knowing."""
        self._log.warning("%s", text)

    def done(self, text: str) -> None:
        """Log why the run ends."""
        self._log.info("%s", text)


def _cell(value: object) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
