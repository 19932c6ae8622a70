"""What the loop tells a person while it works."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


def counted(n: int, noun: str) -> str:
    """Write a count with its noun: ``1 job``, ``3 jobs``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


@runtime_checkable
class Reporter(Protocol):
    """Receives progress; the command line draws it, Prefect flows turn it into logs and artifacts."""

    def round(self, index: int, text: str) -> None:
        """A round begins or goes on."""

    def step(self, name: str, text: str) -> None:
        """A step begins (or, with its result as text, has ended)."""

    def progress(self, name: str, done: int, total: int | None, text: str = "") -> None:
        """Something long is under way; total is None where it is unknown."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A small table, such as the batch that was chosen."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def done(self, text: str) -> None:
        """The run ends, with its reason."""


class SilentReporter:
    """Says nothing: the default for callers from Python."""

    def round(self, index: int, text: str) -> None:
        """Ignore."""

    def step(self, name: str, text: str) -> None:
        """Ignore."""

    def progress(self, name: str, done: int, total: int | None, text: str = "") -> None:
        """Ignore."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""

    def done(self, text: str) -> None:
        """Ignore."""
