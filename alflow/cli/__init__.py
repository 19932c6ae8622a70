"""The command line: thin commands over the library, with every heavy import inside the command that needs it.

stdout carries data, stderr carries progress and errors. :func:`main` is the console script ``alflow``.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; leaves the process with one of :class:`alflow.cli._errors.ExitCode`."""
    from alflow.cli._errors import ExitCode, interrupts_as_exceptions, print_interrupted

    try:
        with interrupts_as_exceptions():
            from alflow.cli._app import app

            app(prog_name="alflow")
    except KeyboardInterrupt:  # outside a command: while modules load or the interpreter leaves one
        print_interrupted()
        raise SystemExit(ExitCode.INTERRUPTED) from None
