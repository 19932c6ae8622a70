"""The two consoles: data to stdout, progress to stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

UNLIMITED_WIDTH = 100_000


def stdout() -> Console:
    """Return a console for data; nothing is wrapped or cut where stdout is not a terminal."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=UNLIMITED_WIDTH)
    return console


def stderr() -> Console:
    """Return a console for progress, notes and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show on a terminal that something is under way; nothing stays of it, and logs get nothing."""
    console = stderr()
    if console.is_terminal:
        with console.status(text, spinner="dots"):
            yield
    else:
        yield
