"""The database: what it holds, its copies, its schema."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alflow.cli._db import _for_campaign_file
from tests.databases import ON_POSTGRESQL, ON_SQLITE

if TYPE_CHECKING:
    from tests.cli.conftest import Campaign, Run, WriteTiny
    from tests.databases import Databases


def test_stats(alflow: Run, campaign: Campaign) -> None:
    found = alflow("db", "stats", "--json").json()
    assert found["rows"]["candidate"] == len(campaign.ids)
    assert "rows of candidate" in alflow("db", "stats").stdout


def test_backup_holds_what_the_ledger_holds(
    alflow: Run, campaign: Campaign, backend: str, databases: Databases
) -> None:
    alflow("db", "backup", "--output", "copy.db")
    copy = "copy.db" if backend == "sqlite" else databases.restore(Path("copy.db"))
    assert alflow("ls", "--ledger", copy, "--json").json() == alflow("ls", "--json").json()
    assert "exists already" in alflow("db", "backup", "-o", "copy.db", code=1).stderr


def test_backup_names_itself(alflow: Run, campaign: Campaign, backend: str) -> None:
    path = Path(alflow("db", "backup", "--json").json()["backup"])
    assert path.parent == campaign.file.parent
    database, suffix = ("ni-pt", "db") if backend == "sqlite" else (campaign.url.rpartition("/")[2], "dump")
    assert re.fullmatch(rf"{database}-\d{{8}}-\d{{6}}\.{suffix}", path.name)
    assert path.stat().st_size > 10_000
    others = {alflow("db", "backup", "--json").json()["backup"] for _ in range(3)}  # some within one second
    assert len({str(path), *others}) == 4


def test_upgrade_of_a_current_ledger_changes_nothing(alflow: Run, campaign: Campaign) -> None:
    before = alflow("ls", "--json").json()
    assert "schema" in alflow("db", "upgrade").stderr
    assert alflow("ls", "--json").json() == before


def test_nothing_makes_a_ledger_by_accident(alflow: Run, campaign: Campaign) -> None:
    for command in ("upgrade", "stats", "backup"):
        assert "there is no ledger at" in alflow("db", command, "-L", "gone.db", code=1).stderr
    assert not campaign.file.with_name("gone.db").exists()


@ON_POSTGRESQL
def test_a_password_is_never_shown(alflow: Run, campaign: Campaign) -> None:
    for url in (campaign.url.replace("@", ":hunter2@"), f"{campaign.url}?password=hunter2"):
        for command in (("db", "stats"), ("db", "upgrade"), ("check",), ("ls",), ("db", "backup")):
            found = alflow(*command, "-L", url)
            assert "hunter2" not in found.stdout + found.stderr
            found = alflow(*command, "-L", url.replace("/test_", "/gone_"), code=1)
            assert "gone_" in found.stdout + found.stderr
            assert "hunter2" not in found.stdout + found.stderr
        found = alflow("db", "copy", campaign.file, url, "--files", "files", code=1)
        assert "not empty" in found.stderr
        assert "hunter2" not in found.stderr


@ON_POSTGRESQL
def test_an_empty_database_is_no_mistake_and_becomes_a_ledger(alflow: Run, backend: str, databases: Databases) -> None:
    """In PostgreSQL a database is made before its ledger."""
    empty = databases.empty(backend)
    assert "· ledger" in alflow("check", "-L", empty).stdout
    assert "schema" in alflow("db", "upgrade", "-L", empty).stderr
    assert "✓ ledger" in alflow("check", "-L", empty).stdout
    assert alflow("db", "stats", "-L", empty, "--json").json()["rows"]["candidate"] == 0


def test_a_campaign_goes_on_in_a_copy(
    alflow: Run, write_tiny: WriteTiny, backend: str, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round on SQLite, the rest where the copy is, and nothing of it in the source."""
    write_tiny(ledger="sqlite:///old.db")
    first = alflow("run", "--rounds", "1", "--json").json()
    before = alflow("ls", "--json").json()
    if backend == "sqlite":
        found = alflow("db", "copy", "campaign.yaml", "new.db")
        assert f"  ledger: sqlite:///{Path('new.db').resolve()}\n" in found.stderr
        assert len(found.stderr.splitlines()) == 4, "no bar where nobody watches"
    else:
        url = databases.empty(backend).replace("@", ":hunter2@")
        found = alflow("db", "copy", "old.db", url, "--files", "shared")
        assert f"  ledger: {url.replace('hunter2', '${ALFLOW_LEDGER_PASSWORD}')}\n" in found.stderr
        assert f"  export ALFLOW_LEDGER_FILES={Path('shared').resolve()}\n" in found.stderr
        assert "  export ALFLOW_LEDGER_PASSWORD=" in found.stderr
        monkeypatch.setenv("ALFLOW_LEDGER_PASSWORD", "hunter2")
        monkeypatch.setenv("ALFLOW_LEDGER_FILES", str(Path("shared").resolve()))
    assert "old.db is as it was; use it no more" in found.stderr
    [ledger] = re.findall(r"^  ledger: (.*)$", found.stderr, flags=re.MULTILINE)
    write_tiny(ledger=ledger)
    assert alflow("ls", "--json").json() == before
    last = alflow("run", "--json", code=3).json()
    assert first["labels"] + last["labels"] == 9
    assert alflow("status", "--json").json()["labels"] == 9
    assert "✓ ledger" in alflow("check").stdout
    assert len(alflow("ls", "--json").json()) > len(before)
    assert alflow("ls", "-L", "old.db", "--json").json() == before


@ON_SQLITE
def test_a_bar_shows_on_a_terminal(alflow: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    terminal = Console(file=StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr("alflow.cli._console.stderr", lambda: terminal)
    alflow("db", "copy", "campaign.yaml", "new.db")
    assert isinstance(terminal.file, StringIO)
    assert "comparing" in terminal.file.getvalue()


def test_a_copy_as_json(alflow: Run, campaign: Campaign, databases: Databases, backend: str) -> None:
    found = alflow("db", "copy", campaign.url, "new.db", "--json").json()
    assert found["rows"]["candidate"] == len(campaign.ids)
    assert found["ledger"] == found["target"] == f"sqlite:///{Path('new.db').resolve()}"
    assert alflow("ls", "-L", "new.db", "--json").json() == alflow("ls", "--json").json()
    assert alflow("db", "copy", "campaign.yaml", "new.db", code=1).stderr.startswith("error: ")
    assert "leave --files away" in alflow("db", "copy", campaign.url, "x.db", "--files", "f", code=1).stderr
    assert not Path("x.db").exists()


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://me:${ALFLOW_LEDGER_PASSWORD}@host/db"),
        ("postgresql://me:${MINE}@host/db", "postgresql://me:${MINE}@host/db"),
        ("postgresql://host/db?password=hunter2", "postgresql://host/db?password=${ALFLOW_LEDGER_PASSWORD}"),
    ],
)
def test_a_campaign_file_is_told_no_password(typed: str, written: str) -> None:
    assert _for_campaign_file(typed, "postgresql+psycopg://host/db") == written


def test_variables_are_filled_into_urls(alflow: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "UNSET_NAME is not set" in alflow("ls", "-L", "postgresql://me:${UNSET_NAME}@host/db", code=1).stderr
    scheme, _, rest = campaign.url.partition("://")
    monkeypatch.setenv("REST", rest)
    assert alflow("ls", "-L", scheme + "://${REST}", "--json").json() == alflow("ls", "--json").json()
