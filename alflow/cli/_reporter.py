"""What a person sees while a campaign runs: one line per step with its time, a live line for the step under way.

The loop speaks to a small protocol (``round``, ``step``, ``progress``, ``note``, ``table``, ``done``); this is its
implementation for terminals, and for logs, where nothing moves and long steps say a line now and then.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from alflow.cli._output import Column, cell_text, duration, make_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

LOG_INTERVAL = 15.0
_NAME_WIDTH = 18
_DIGEST = re.compile(
    r"-[0-9a-f]{8}$"
)  # steps of sources carry a digest of their settings, which tells a person nothing


class ConsoleReporter:
    """Report the steps of rounds on a console.

    ``step(name, "")`` begins a step and ``step(name, result)`` ends it, with the time since it began, or since the step
    before it ended where nobody announced it. :meth:`progress` moves the live line. Use as a context manager, so that
    the live line leaves the terminal however the work ends.

    Parameters
    ----------
    console
        where to write; stderr where None
    quiet
        True: only notes and the last word
    log_interval
        seconds between two progress lines of one step where the console is no terminal
    """

    def __init__(
        self, console: Console | None = None, *, quiet: bool = False, log_interval: float = LOG_INTERVAL
    ) -> None:
        from alflow.cli._console import stderr

        self.console = console or stderr()
        self.quiet = quiet
        self._log_interval = log_interval
        self._lock = threading.RLock()
        self._step: str | None = None
        self._text = ""
        self._started = self._logged = time.monotonic()
        self._live: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ConsoleReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._end(self._step, "" if kind is None else "stopped here", finished=kind is None)

    # -- the protocol --------------------------------------------------------------------------------------------

    def round(self, index: int, text: str) -> None:
        """A round begins."""
        from rich.text import Text

        with self._lock:
            self._end(self._step, self._text)
            self._started = time.monotonic()
            if self.quiet:
                return
            if self.console.is_terminal:
                self.console.print()
            line = Text(f"Round {index}", style="bold")
            if text:
                line.append(f"  {text}", style="not bold dim")
            self._print(line)

    def step(self, name: str, text: str = "") -> None:
        """A step begins (no text), or has ended with a result."""
        with self._lock:
            if text:
                self._end(name, text)
            else:
                self._end(self._step, self._text)
                self._begin(name)

    def progress(self, name: str, done: int, total: int | None = None, text: str = "") -> None:
        """Part of a step is done; ``total`` None means that nobody knows how much there is."""
        with self._lock:
            if self._step is None:
                self._begin(name)
            count = f"{done}" if total is None else f"{done}/{total}"
            part = "" if name == self._step else name
            self._show(count, " ".join(word for word in (part, text) if word), done=done, total=total)

    def note(self, text: str) -> None:
        """Something a person should know now."""
        from rich.text import Text

        with self._lock:
            indent = "" if self.quiet else "  "
            self._print(Text(f"{indent}{text}", style="yellow" if _alarming(text) else ""))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A small table, such as the batch that goes to the queue."""
        if self.quiet:
            return
        from rich.padding import Padding

        records: list[Mapping[str, Any]] = [dict(zip(columns, row, strict=True)) for row in rows]
        described = [Column(key=name, elastic=name == columns[-1], cut=True) for name in columns]
        table = make_table(described, records, width=self.console.width - 4, title=title)
        with self._lock:
            if self.console.is_terminal:
                self.console.print(Padding(table, (0, 0, 0, 4)))
                return
            for record in records:
                self._print(f"    {', '.join(f'{key} {cell_text(value)}' for key, value in record.items())}")

    def done(self, text: str) -> None:
        """The work ends: the last word."""
        from rich.text import Text

        with self._lock:
            self._end(self._step, self._text)
            if not self.quiet and self.console.is_terminal:
                self.console.print()
            self._print(Text(text, style="bold"))

    # -- the live line -------------------------------------------------------------------------------------------

    def _begin(self, name: str) -> None:
        self._step, self._text = name, ""
        self._started = self._logged = time.monotonic()
        if self.quiet or not self.console.is_terminal:
            return
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._live = Progress(
            TextColumn(" "),
            SpinnerColumn("dots", style="cyan"),
            TextColumn("{task.fields[name]}", style="cyan"),
            TimeElapsedColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[text]}", style="dim"),
            console=self.console,
            transient=True,
            refresh_per_second=8,
        )
        self._live.start()
        self._task = self._live.add_task("", total=None, name=_shown(name).ljust(_NAME_WIDTH), text="", count="")

    def _show(self, count: str, text: str, *, done: int, total: int | None) -> None:
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=done, total=total, text=text, count=count)
            return
        now = time.monotonic()
        if not self.quiet and not self.console.is_terminal and now - self._logged >= self._log_interval:
            self._logged = now
            self._print("  " + " ".join(word for word in (_shown(self._step or ""), count, text) if word))

    def _end(self, name: str | None, text: str, *, finished: bool = True) -> None:
        """Leave the live line and write what became of a step; nothing where none is open and none is named."""
        from rich.text import Text

        if self._live is not None:
            self._live.stop()
            self._live, self._task = None, None
        began, self._started = self._started, time.monotonic()
        self._step, self._text = None, ""
        if name is None or self.quiet:
            return
        name, seconds = _shown(name), f"{duration(self._started - began):>10}"
        if not self.console.is_terminal:
            self._print(Text(f"  {name:<{_NAME_WIDTH}} {seconds}  {text}".rstrip()))
            return
        from rich.table import Table

        line = Table.grid(padding=(0, 1))
        for width in (1, 1, _NAME_WIDTH, 10):
            line.add_column(width=width, no_wrap=True)
        line.add_column()  # a long result wraps in its own column
        mark, style = ("✓", "green") if finished else ("✗", "red")
        line.add_row(
            "", Text(mark, style=style), name, Text(seconds, style="dim"), Text(text, style="" if finished else style)
        )
        self.console.print(line)

    def _print(self, line: Any) -> None:
        self.console.print(line, soft_wrap=not self.console.is_terminal, markup=False)


def _shown(name: str) -> str:
    return _DIGEST.sub("", name)


def _alarming(text: str) -> bool:
    return text.lower().startswith(("warning", "failed", "quarantined", "error"))
