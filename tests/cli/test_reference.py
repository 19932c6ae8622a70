"""No command and no option without a word about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from alflow.cli._app import app
from alflow.cli._reference import reference_markdown


def commands(group: Any, name: str = "alflow") -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def test_the_page_is_up_to_date(root: Path) -> None:
    written = (root / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference_markdown(), "write it anew: python -m alflow.cli._reference > docs/cli.md"


def test_every_command_and_option_is_on_the_page() -> None:
    page = reference_markdown()
    sections = {part.split("\n", 1)[0].strip("# "): part for part in page.split("\n## ")}
    sections |= {part.split("\n", 1)[0].strip("# "): part for part in page.split("\n### ")}
    for name, command in commands(get_command(app)):
        assert name in sections
        for parameter in command.params:
            for option in (o for o in [*parameter.opts, *parameter.secondary_opts] if o.startswith("-")):
                assert f"`{option}`" in sections[name], f"{name} {option}"


def test_everything_explains_itself() -> None:
    for name, command in commands(get_command(app)):
        assert command.help, name
        assert command.help.strip().split("\n")[0].endswith("."), f"{name}: the first line is a sentence"
        assert f"{command.epilog} ".startswith(f"Example: {name} "), name
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"


def test_examples_are_commands_with_known_options() -> None:
    import shlex

    for name, command in commands(get_command(app)):
        words = shlex.split(command.epilog.removeprefix("Example: "))
        assert " ".join(words[: len(name.split())]) == name
        known = {option for parameter in command.params for option in parameter.opts}
        rest = words[len(name.split()) :]
        sort = rest.index("-s") + 1 if "-s" in rest and name == "alflow ls" else None
        for i, word in enumerate(rest):
            assert not word.startswith("-") or i == sort or word in known, f"{name}: {word}"


def test_whatever_prints_data_prints_json() -> None:
    for name, command in commands(get_command(app)):
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options, name
