"""What a person sees while a campaign runs: one line per step with its time, a live line for the step under way.

The loop speaks to a small protocol (``round``, ``step``, ``progress``, ``note``, ``table``, ``done``); this is its implementation
for terminals, and for logs, where nothing moves and long steps say a line now and then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from alflow.cli._output import Column, cell_text, duration, make_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

LOG_INTERVAL = 15.0
_NAME_WIDTH = 10


class ConsoleReporter:
    """Report the steps of rounds on a console.

    A step is opened by :meth:`step` and closed by the next step, the next round or :meth:`done`; calling :meth:`step` again with
    the same name, or :meth:`progress`, replaces its text. Use as a context manager, so that the live line leaves the terminal
    however the work ends.

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
        self._step: str | None = None
        self._text = ""
        self._count = ""
        self._started = 0.0
        self._logged = 0.0
        self._live: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ConsoleReporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close(finished=kind is None)

    # -- the protocol --------------------------------------------------------------------------------------------

    def round(self, index: int, text: str) -> None:
        """A round begins."""
        self._close()
        if self.quiet:
            return
        from rich.text import Text

        line = Text(f"Round {index}", style="bold")
        if text:
            line.append(f"  {text}", style="not bold dim")
        if self.console.is_terminal:
            self.console.print()
        self._print(line)

    def step(self, name: str, text: str = "") -> None:
        """A step begins, or the one under way has something to say."""
        if name == self._step:
            self._text = text or self._text
            self._count = ""
            self._update()
            return
        self._close()
        self._step, self._text, self._count = name, text, ""
        self._started = self._logged = time.monotonic()
        self._open()

    def progress(self, name: str, done: int, total: int | None = None, text: str = "") -> None:
        """Part of a step is done; ``total`` None means that nobody knows how much there is."""
        if name != self._step:
            self.step(name, text)
        if text:
            self._text = text
        self._count = f"{done}" if total is None else f"{done}/{total}"
        self._update(done=done, total=total)

    def note(self, text: str) -> None:
        """Something a person should know now."""
        from rich.text import Text

        self._print(Text(f"  {text}" if self._step or not self.quiet else text, style="yellow" if _alarming(text) else ""))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A small table, such as the batch that goes to the queue."""
        if self.quiet:
            return
        from rich.padding import Padding

        records: list[Mapping[str, Any]] = [dict(zip(columns, row, strict=True)) for row in rows]
        table = make_table([Column(key=name, elastic=name == columns[-1]) for name in columns], records, title=title)
        if self.console.is_terminal:
            self.console.print(Padding(table, (0, 0, 0, 4)))
        else:
            for record in records:
                self._print(f"    {', '.join(f'{key} {cell_text(value)}' for key, value in record.items())}")

    def done(self, text: str) -> None:
        """The work ends: the last word."""
        self._close()
        from rich.text import Text

        if not self.quiet and self.console.is_terminal:
            self.console.print()
        self._print(Text(text, style="bold"))

    # -- the live line -------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self.quiet or not self.console.is_terminal:
            return
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._live = Progress(
            TextColumn(" "),
            SpinnerColumn("dots", style="cyan"),
            TextColumn("{task.fields[name]}", style="cyan"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}", style="dim"),
            console=self.console,
            transient=True,
            refresh_per_second=8,
        )
        self._live.start()
        name = (self._step or "").ljust(_NAME_WIDTH)
        self._task = self._live.add_task("", total=None, name=name, text=self._text, count="")

    def _update(self, *, done: int | None = None, total: int | None = None) -> None:
        if self._live is not None and self._task is not None:
            if done is None:
                self._live.update(self._task, text=self._text, count=self._count)
            else:
                self._live.update(self._task, completed=done, total=total, text=self._text, count=self._count)
            return
        now = time.monotonic()
        if not self.quiet and not self.console.is_terminal and now - self._logged >= self._log_interval:
            self._logged = now
            self._print(" ".join(part for part in (f"  {self._step}", self._count, self._text) if part))

    def _close(self, *, finished: bool = True) -> None:
        if self._live is not None:
            self._live.stop()
            self._live, self._task = None, None
        if self._step is None:
            return
        from rich.text import Text

        name, self._step = self._step, None
        if self.quiet:
            return
        seconds = duration(time.monotonic() - self._started)
        mark, style = ("✓", "green") if finished else ("✗", "red")
        line = Text("  ")
        if self.console.is_terminal:
            line.append(f"{mark} ", style=style)
        line.append(name.ljust(_NAME_WIDTH))
        line.append(f" {seconds:>10}", style="dim")
        if not finished:
            line.append("  stopped here", style=style)
        elif self._text:
            line.append(f"  {self._text}")
        self._print(line)

    def _print(self, line: Any) -> None:
        self.console.print(line, soft_wrap=not self.console.is_terminal, markup=False)


def _alarming(text: str) -> bool:
    return text.lower().startswith(("warning", "failed", "quarantined", "error"))
