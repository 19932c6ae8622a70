"""The committees of a campaign: listed, and taken along as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk

from alflow.ledger import open_ledger
from alflow.loop import find_committee, open_campaign, open_committee
from alflow.potentials import load_committee

if TYPE_CHECKING:
    from tests.cli.conftest import Campaign, Run, WriteTiny


@pytest.fixture
def trained(alflow: Run, write_tiny: WriteTiny) -> Path:
    """A campaign that ran until its labels were spent."""
    path = write_tiny(labels=8)
    alflow("run", path, "--quiet", code=3)
    return path


def test_what_a_campaign_trained_is_listed_and_written(alflow: Run, trained: Path) -> None:
    listed = alflow("committee", "ls", "--json").json()
    assert [row["round"] for row in listed] == list(range(1, len(listed) + 1))
    newest = listed[-1]
    assert (newest["kind"], newest["members"], newest["kept"]) == ("native", 2, True)
    assert newest["labels"] == alflow("status", "--json").json()["labels"] == 8
    table = alflow("committee", "ls").stdout
    assert "Held out" in table
    assert "yes" in table

    said = alflow("committee", "save", "--output", "model").stderr
    assert f"the committee of round {newest['round']} of tiny, 2 members for Cu, Au, from 8 labels" in said
    ctx = open_campaign(trained)
    row = find_committee(ctx.ledger, "tiny")
    stored, written = open_committee(ctx.ledger, row), load_committee("model")
    atoms = [bulk("Cu", a=3.7), bulk("Au", a=4.1, cubic=True)]
    ours, theirs = stored.predict(atoms), written.predict(atoms)
    assert np.array_equal(ours.energy, theirs.energy)
    assert np.array_equal(ours.u, theirs.u)
    assert written.calibration == stored.calibration is not None
    ctx.ledger.close()

    alflow("export", "-o", "labels.extxyz")
    assert alflow("eval", "model", "labels.extxyz", "--json").json()["n_structures"] == 8


def test_an_earlier_round_can_be_asked_for(alflow: Run, trained: Path) -> None:
    about = alflow("committee", "save", "-o", "first", "--round", "1", "--json").json()
    assert (about["round"], about["campaign"], about["elements"]) == (1, "tiny", ["Cu", "Au"])
    assert about["labels"] < 8
    assert Path(about["model"]).is_file()
    assert (
        "trained no committee in round 0, but in 1, 2"
        in alflow("committee", "save", "-o", "none", "--round", "0", code=1).stderr
    )
    assert not Path("none").exists()


def test_a_committee_that_was_let_go_is_told(alflow: Run, trained: Path) -> None:
    alflow("upkeep", "--keep-committees", "1")
    kept = [row["kept"] for row in alflow("committee", "ls", "--json").json()]
    assert kept == [False] * (len(kept) - 1) + [True]
    assert "let go" in alflow("committee", "ls").stdout
    refused = alflow("committee", "save", "-o", "first", "--round", "1", code=1).stderr
    assert "was let go to save space" in refused
    alflow("committee", "save", "-o", "newest")


def test_nothing_is_overwritten_or_written_beside_the_point(alflow: Run, trained: Path) -> None:
    Path("model").write_text("precious")
    assert "--force writes over it" in alflow("committee", "save", "-o", "model", code=1).stderr
    assert Path("model").read_text() == "precious"
    alflow("committee", "save", "-o", "model", "--force")
    assert load_committee("model").n_members == 2
    Path("folder").mkdir()
    assert "is a folder" in alflow("committee", "save", "-o", "folder", "--force", code=1).stderr
    assert "create it first" in alflow("committee", "save", "-o", "nowhere/model", code=1).stderr


def test_before_the_first_training_it_says_so(alflow: Run, write_tiny: WriteTiny) -> None:
    path = write_tiny()
    assert "starts it" in alflow("committee", "ls", "-C", path, code=1).stderr
    alflow("run", path, "--quiet", "--rounds", "1")
    assert "no committee yet" in alflow("committee", "ls").stderr
    assert alflow("committee", "ls", "--json").json() == []
    assert "has no committee yet; `alflow run` trains one" in alflow("committee", "save", "-o", "m", code=1).stderr


def test_one_without_a_file_is_named(alflow: Run, campaign: Campaign) -> None:
    with open_ledger(campaign.url, create=False) as ledger:
        assert find_committee(ledger, campaign.name).artifact_id is None
    assert "was let go" in alflow("committee", "save", "-o", "model", code=1).stderr
