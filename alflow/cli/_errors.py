"""How the command line fails: exit codes, one or two lines per error, clean interruption."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType

from alflow.errors import AlflowError, LabelFailure

BUG_NOTE = "this is a bug in alflow, not a mistake of yours; please report it with the lines below"
CONTINUES = "interrupted; the same command continues"


class ExitCode(IntEnum):
    """What the shell sees."""

    OK = 0
    USER_ERROR = 1
    USAGE = 2
    NOTHING_TO_DO = 3
    INTERRUPTED = 130


def describe(error: BaseException) -> str | None:
    """Say in a line or two what went wrong; None where the error is a bug and deserves its traceback."""
    if isinstance(error, LabelFailure):
        return f"{error.message} ({error.kind})"
    if isinstance(error, AlflowError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return None


def print_error(message: str) -> None:
    """Write ``error: message`` to stderr, unwrapped so that paths and commands can be copied."""
    from rich.text import Text

    from alflow.cli._console import stderr

    text = Text("error: ", style="bold red")
    text.append(message, style="not bold default")
    stderr().print(text, soft_wrap=True)


def print_interrupted() -> None:
    """Say that nothing was lost. Plain: it must work at any instant, also while modules are half loaded."""
    sys.stderr.write(f"\n{CONTINUES}\n" if sys.stderr.isatty() else f"{CONTINUES}\n")
    sys.stderr.flush()


@contextmanager
def interrupts_as_exceptions() -> Iterator[None]:
    """Let SIGTERM and a closed terminal unwind the stack as Ctrl-C does, so that leases are given back.

    What ignores SIGHUP already, as under ``nohup``, goes on ignoring it.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    previous = [(number, signal.signal(number, interrupt)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


def silence_broken_pipe() -> None:
    """Keep the interpreter quiet when ``| head`` has left: point stdout at nothing before it is flushed at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
