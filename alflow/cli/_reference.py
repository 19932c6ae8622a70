"""The reference page of the command line, written from the commands themselves.

``python -m alflow.cli._reference > docs/cli.md`` writes it anew; a test compares.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from alflow.cli._app import app

_HEAD = """\
# Command reference

Every command with its arguments and options, as `--help` prints them; [Commands](commands.md) is the overview with the
exit codes. This page is written by `python -m alflow.cli._reference`.

Data goes to stdout, progress and errors to stderr. A campaign is a campaign file, a folder that holds one or, together
with `--ledger`, the name of a campaign. `alflow --install-completion` makes the shell complete commands, options, files
and columns.
"""
_COMPLETION = {"--install-completion", "--show-completion"}  # worded by Typer, differently from version to version


def reference_markdown() -> str:
    """Return the page: one section per command, in the order of ``alflow --help``."""
    command = get_command(app)
    parts = [_HEAD, "## alflow\n", _options(command), *_sections(command, "alflow")]
    return "\n".join(part for part in parts if part)


def _sections(group: Any, name: str) -> Iterator[str]:
    for word, command in group.commands.items():
        if command.hidden:
            continue
        full = f"{name} {word}"
        yield f"## {full}\n"
        yield _paragraphs(command.help or "")
        if hasattr(command, "commands"):
            yield from (part.replace(f"## {full} ", f"### {full} ", 1) for part in _sections(command, full))
            continue
        yield f"```sh\n{command.epilog.removeprefix('Example: ')}\n```\n"
        yield _options(command)


def _paragraphs(text: str) -> str:
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(paragraphs) + "\n"


def _options(command: Any) -> str:
    shown = (parameter for parameter in command.params if not parameter.hidden and not _COMPLETION & {*parameter.opts})
    rows = [_row(parameter) for parameter in shown]
    if not rows:
        return ""
    return "\n".join(["| argument or option | meaning |", "|---|---|", *rows]) + "\n"


def _row(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    if is_option:
        names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
        value = "" if getattr(parameter, "is_flag", False) else f" `{parameter.metavar}`"
    else:
        names, value = f"`{parameter.metavar}`", ""
    meaning = (parameter.help or "").replace("|", "\\|")
    notes = []
    if isinstance(parameter.show_default, str):
        notes.append(f"default: {parameter.show_default}")
    elif parameter.show_default and not isinstance(parameter.default, (bool, type(None))):
        notes.append(f"default: `{parameter.default}`")
    if parameter.required and is_option:
        notes.append("required")
    if parameter.envvar:
        notes.append(f"environment: `{parameter.envvar}`")
    remarks = f" ({', '.join(notes)})" if notes else ""
    return f"| {names}{value} | {meaning}{remarks} |"


if __name__ == "__main__":
    sys.stdout.write(reference_markdown())
