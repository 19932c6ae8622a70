"""Documentation is held to the code: its blocks run, its commands exist, and what exists is documented."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        content = page.read_text()
        for match in FENCE.finditer(content):
            if match[1] in languages:
                line = content.count("\n", 0, match.start()) + 2
                found.append(Block(page=page, line=line, language=match[1], text=match[3]))
    return found


def pages_with_python() -> list[Path]:
    return sorted({block.page for block in blocks("python")})


@pytest.mark.parametrize("page", pages_with_python(), ids=lambda p: p.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run one after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks("python"):
        if block.page == page:
            source = "\n" * (block.line - 1) + block.text  # so that a traceback names the line of the page
            exec(compile(source, str(page), "exec"), namespace)


def shell_commands() -> Iterator[tuple[Block, list[str]]]:
    """Every command of the shell blocks, split into words; comments and continuation lines dealt with."""
    for block in blocks("sh", "bash", "console"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words:
                yield block, words


@cache
def cli() -> Any:
    import typer.main

    from alflow.cli._app import app

    return typer.main.get_command(app)


def check_alflow(words: list[str]) -> None:
    """Raise AssertionError unless these words name a command of alflow and options that it has."""
    command, rest = cli(), list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        assert name in command.commands, f"alflow has no command {name!r}"
        command = command.commands[name]
    known: dict[str, bool] = {"--help": False, "-h": False}  # option: does a value follow?
    for parameter in command.params:
        takes_value = not (getattr(parameter, "is_flag", False) or getattr(parameter, "count", False))
        known |= dict.fromkeys([*parameter.opts, *parameter.secondary_opts], takes_value)
    words_left = iter(rest)
    for word in words_left:
        option, has_value, _ = word.partition("=")
        if re.fullmatch(r"--?[a-zA-Z][\w-]*", option):
            assert option in known, f"alflow {command.name} has no option {option}"
            if known[option] and not has_value:
                next(words_left, None)


def test_shell_blocks_name_commands_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    checked = 0
    for block, words in shell_commands():
        match words:
            case ["make", *targets]:
                for target in (t for t in targets if "=" not in t and not t.startswith("-")):
                    assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"{block}: make {target}"
                for variable in (t.partition("=")[0] for t in targets if "=" in t):
                    assert re.search(rf"^{variable} \?=", makefile, re.MULTILINE), f"{block}: {variable}"
            case ["alflow", *rest]:
                try:
                    check_alflow(rest)
                except AssertionError as error:
                    raise AssertionError(f"{block}: {error}") from None
            case _:
                continue
        checked += 1
    assert checked >= 10


def test_inline_commands_exist() -> None:
    """``alflow something`` within a sentence names a command, too."""
    for page in PAGES:
        prose = FENCE.sub("", page.read_text())
        for name in re.findall(r"`alflow ([a-z]+)[` ]", prose):
            assert name in cli().commands, f"{page.name} speaks of `alflow {name}`"


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    for name, command in cli().commands.items():
        if not command.hidden:
            assert f"| `alflow {name}`" in text, f"docs/commands.md does not list `alflow {name}`"
        for sub, below in getattr(command, "commands", {}).items():
            if not below.hidden:
                assert f"`alflow {name} {sub}`" in text, f"docs/commands.md does not list `alflow {name} {sub}`"


def test_every_exit_code_is_documented() -> None:
    from alflow.cli._errors import ExitCode

    text = (ROOT / "docs" / "commands.md").read_text()
    for code in ExitCode:
        assert f"| {int(code)} |" in text, f"docs/commands.md does not explain exit code {int(code)}"


def test_every_column_of_ls_is_documented_with_its_unit() -> None:
    from alflow.cli._columns import COLUMNS

    section = (ROOT / "docs" / "ledger.md").read_text().partition("\n## Selections\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("| `")]
    for key, column in COLUMNS.items():
        found = [cells for cells in rows if len(cells) >= 2 and f"`{key}`" in cells[0] and "=" not in cells[0]]
        assert found, f"docs/ledger.md does not explain the column {key}"
        assert any(not column.unit or column.unit in cells[-1] for cells in found), f"docs/ledger.md: unit of {key}"


def test_every_make_target_explains_itself() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), f"make {target} has no help text"


def navigation(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for value in entry.values() if isinstance(entry, dict) else entry:
            yield from navigation(value)


def test_navigation_and_pages_agree() -> None:
    listed = set(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert listed == {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}


def test_links_between_files_resolve() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if re.match(r"[a-z]+:|#", target):
                continue
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"


def test_architecture_page_knows_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for room in (p for p in (ROOT / "alflow").iterdir() if p.is_dir() and p.name not in {"__pycache__", "migrations"}):
        assert f"`{room.name}`" in text, f"docs/architecture.md does not name alflow.{room.name}"
