"""The database: what it holds, its copy, its schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Campaign, Run


def test_stats(alflow: Run, campaign: Campaign) -> None:
    found = alflow("db", "stats", "--json").json()
    assert found["rows"]["candidate"] == len(campaign.ids)
    assert "rows of candidate" in alflow("db", "stats").stdout


def test_backup_opens_like_the_ledger(alflow: Run, campaign: Campaign) -> None:
    alflow("db", "backup", "--output", "copy.db")
    assert alflow("ls", "--ledger", "copy.db", "--json").json() == alflow("ls", "--json").json()
    assert "exists already" in alflow("db", "backup", "-o", "copy.db", code=1).stderr


def test_backup_names_itself(alflow: Run, campaign: Campaign) -> None:
    from pathlib import Path

    path = Path(alflow("db", "backup", "--json").json()["backup"])
    assert path.parent == campaign.file.parent
    assert path.name.startswith("ni-pt-")


def test_upgrade_of_a_current_ledger_changes_nothing(alflow: Run, campaign: Campaign) -> None:
    before = alflow("ls", "--json").json()
    assert "schema" in alflow("db", "upgrade").stderr
    assert alflow("ls", "--json").json() == before


def test_nothing_makes_a_ledger_by_accident(alflow: Run, campaign: Campaign) -> None:
    for command in ("upgrade", "stats", "backup"):
        assert "there is no ledger at" in alflow("db", command, "-L", "gone.db", code=1).stderr
    assert not campaign.file.with_name("gone.db").exists()
