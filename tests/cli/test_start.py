"""init writes what check accepts; check says what is wrong and how to mend it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from alflow.config import load_campaign
from tests.databases import ON_SQLITE

if TYPE_CHECKING:
    from tests.cli.conftest import Campaign, Run


def test_init_then_check(alflow: Run) -> None:
    assert "alflow check campaign.yaml" in alflow("init", "--elements", "Cu,Au").stderr
    config = load_campaign("campaign.yaml").config
    assert (config.name, config.elements, config.theory.labeler) == ("cu-au", ("Cu", "Au"), "emt")
    found = alflow("check", "--json").json()
    assert found["ok"] is True
    assert [finding["what"] for finding in found["findings"]] == [
        "campaign",
        "labeler",
        "potential",
        "ledger",
        "prefect",
    ]
    assert found["findings"][3]["ok"] is None
    text = alflow("check").stdout
    assert "✓ campaign" in text
    assert "· ledger" in text
    assert "`alflow run` makes it" in text


def test_init_refuses(alflow: Run) -> None:
    assert "there is no element 'Nj'" in alflow("init", "--elements", "Nj,Pt", code=1).stderr
    assert "--elements names no element" in alflow("init", "--elements", " ", code=1).stderr
    assert "emt" in alflow("init", "--labeler", "emtt", code=1).stderr
    assert "no labeler 'nwchem' (known: " in alflow("init", "--labeler", "nwchem", code=1).stderr
    assert "--name" in alflow("init", "--name", "two words", code=1).stderr
    assert "does not exist" in alflow("init", "no/campaign.yaml", code=1).stderr
    assert not Path("campaign.yaml").exists()
    alflow("init")
    before = Path("campaign.yaml").read_text()
    assert "--force" in alflow("init", "-e", "Cu,Au", code=1).stderr
    assert Path("campaign.yaml").read_text() == before
    alflow("init", "-e", "Cu,Au", "--force")
    assert Path("campaign.yaml").read_text() != before


TARGETS = "targets: {energy: 5, force: 0.00001, stress: 0.02}"


def test_targets_in_other_units_are_asked_about(alflow: Run) -> None:
    alflow("init")
    path = Path("campaign.yaml")
    path.write_text(re.sub(r"(?m)^targets:.*$(\n  .*$)*", TARGETS, path.read_text()))
    text = alflow("check").stdout
    assert "targets.energy is 5 eV/atom, which is very large (usual: 1e-05 to 0.1)" in text
    assert "targets.force is 1e-05 eV/Å, which is very small" in text
    assert "targets.stress" not in text


def test_check_names_line_and_key(alflow: Run) -> None:
    alflow("init")
    path = Path("campaign.yaml")
    path.write_text(path.read_text() + "\nbudgets:\n  labels: 10\n")
    found = alflow("check", code=1)
    line = path.read_text().splitlines().index("budgets:") + 1
    assert f"campaign.yaml:{line}" in found.stderr
    assert "budget" in found.stderr
    assert "Traceback" not in found.stderr


def test_check_of_elements_that_the_labeler_does_not_know(alflow: Run) -> None:
    alflow("init", "-e", "Ni,W")
    found = alflow("check", code=1)
    assert "✗ elements" in found.stdout
    assert "W" in found.stdout


def test_check_of_a_worker_file(alflow: Run) -> None:
    alflow("init")
    Path("alflow-worker.yaml").write_text("leese_seconds: 3\n")
    found = alflow("check", code=1)
    assert "✗ labeler" in found.stdout
    assert "lease_seconds" in found.stdout


def test_check_of_a_ledger(alflow: Run, campaign: Campaign) -> None:
    assert "✓ ledger" in alflow("check").stdout
    assert alflow("check", "-L", campaign.url, "--json").json()["ok"] is True


@ON_SQLITE
def test_check_of_a_damaged_file(alflow: Run, campaign: Campaign) -> None:
    database = Path(campaign.url.removeprefix("sqlite:///"))
    database.write_bytes(b"this is no database" * 300)
    found = alflow("check", code=1)
    assert "✗ ledger" in found.stdout
