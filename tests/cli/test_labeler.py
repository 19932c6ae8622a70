"""Trying a labeler: whether it works here, how it converges, and how noisy it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ase.build import bulk
from ase.io import write

from alflow.config import load_campaign
from alflow.ledger import open_ledger

if TYPE_CHECKING:
    from tests.cli.conftest import Campaign, Run, WriteTiny

LJ = """\
labelers:
  lj:
    calculator: ase.calculators.lj.LennardJones
    arguments: {sigma: 2.3, epsilon: 0.3, rc: 6.0}
"""


def test_check_of_a_campaign(alflow: Run, campaign: Campaign) -> None:
    text = alflow("labeler", "check").stdout
    assert "labeler    emt, ase" in text
    assert "trial      NiPt in " in text
    found = alflow("labeler", "check", campaign.file, "--no-run", "--json").json()
    assert found["ok"] is True
    assert [finding["what"] for finding in found["findings"]] == ["labeler", "computes"]


def test_check_by_name(alflow: Run) -> None:
    assert "Cu2 in" in alflow("labeler", "check", "emt", "--elements", "Cu").stdout
    assert "nothing for Fe" in alflow("labeler", "check", "emt", "-e", "Fe,Cu", code=1).stdout
    assert "known: ase, " in alflow("labeler", "check", "lj", code=1).stderr
    Path("alflow-worker.yaml").write_text(LJ)
    write("cell.cif", bulk("Cu", cubic=True))
    assert "Cu4 in" in alflow("labeler", "check", "lj", "--structure", "cell.cif").stdout


def test_converge(alflow: Run) -> None:
    Path("alflow-worker.yaml").write_text(LJ)
    found = alflow("labeler", "converge", "--setting", "arguments.rc=5,8,12", "-C", "lj", code=1)
    assert "give a --structure" in found.stderr
    Path("campaign.yaml").write_text(
        "name: lj\nelements: [Cu]\nledger: sqlite:///lj.db\ntheory: {labeler: ase, name: lj}\n"
    )
    points = alflow("labeler", "converge", "--setting", "arguments.rc=5,8,12", "--json").json()["points"]
    assert [point["value"] for point in points] == [5, 8, 12]
    assert abs(points[0]["energy_difference"]) > abs(points[1]["energy_difference"]) > points[2]["energy_difference"]
    assert points[2]["force_difference"] == 0.0
    table = alflow("labeler", "converge", "--setting", "arguments.rc=5,8,12").stdout
    assert "meV/atom" in table
    assert f"{1e3 * points[0]['energy_difference']:.3f}" in table
    assert not Path("lj.db").exists()
    for wrong in ("arguments.rc", "arguments.rc=5", "arguments.rc=5,high"):
        assert alflow("labeler", "converge", "--setting", wrong, code=2).stderr


def test_noise_is_kept_and_targets_are_held_to_it(alflow: Run, campaign: Campaign) -> None:
    text = alflow("labeler", "noise").stdout
    assert "turned and moved" in text
    assert "NiPt, 2 atoms" in text
    with open_ledger(campaign.url, create=False) as ledger:
        [theory] = ledger.theories.list()
        assert theory.noise is not None
        assert theory.noise["energy"] < 1e-9
        assert theory.noise["structure"] == "NiPt"
        assert "Targets below the noise" not in report(alflow)
        ledger.theories.set_noise(theory.id, {**theory.noise, "energy": 0.01})
    assert "Targets below the noise of the labels" in report(alflow)
    assert alflow("theory", "ls", "--json").json()[0]["noise"] == 0.01


@pytest.mark.parametrize("values", ["nan,1", "1,inf"])
def test_values_to_be_tried_are_finite(alflow: Run, values: str) -> None:
    assert (
        "must be finite numbers"
        in alflow("labeler", "converge", "-C", "emt", "--setting", f"x={values}", code=2).stderr
    )


def test_plan_warns(alflow: Run, write_tiny: WriteTiny) -> None:
    write_tiny()
    alflow("labeler", "noise")
    found = alflow("plan", "--json").json()
    assert (len(found["items"]) > 0, found["warnings"]) == (True, [])
    key = alflow("theory", "ls", "--ledger", load_campaign(Path("campaign.yaml")).ledger_url, "--json").json()[0]
    with open_ledger(load_campaign(Path("campaign.yaml")).ledger_url, create=False) as ledger:
        ledger.theories.set_noise(key["id"], {"energy": 0.01})
    assert "target energy: 0.005 eV/atom is below twice the noise" in alflow("plan").stderr
    assert "give its file" in alflow("labeler", "noise", "-C", "emt", code=1).stderr


def report(alflow: Run) -> str:
    return Path(alflow("report").stdout.strip()).read_text()
