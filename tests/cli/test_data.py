"""Structures and labels in and out: export reads back as what the ledger holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from alflow.labelers import get_labeler
from alflow.ledger import CampaignState, open_ledger
from alflow.structures import LabelledStructure, Structure

if TYPE_CHECKING:
    from ase import Atoms

    from tests.cli.conftest import Campaign, Run


def images(path: str) -> list[Atoms]:
    found = read(path, index=":")
    assert isinstance(found, list)
    return found


def check_label(atoms: Atoms) -> None:
    """The label that was read equals a fresh calculation of the structure that was read."""
    example = LabelledStructure.from_atoms(atoms)
    expected = get_labeler("emt").label(example.structure).properties
    assert example.properties.energy == pytest.approx(expected.energy, abs=1e-6)
    for name in ("forces", "stress"):
        np.testing.assert_allclose(getattr(example.properties, name), getattr(expected, name), atol=1e-6)


@pytest.mark.parametrize("name", ["out.extxyz", "out.xyz", "out.json", "out.db"])
def test_exported_labels_read_back(alflow: Run, campaign: Campaign, name: str) -> None:
    assert "wrote 2 structures" in alflow("export", "--output", name).stderr
    found = images(name)
    assert [Structure.from_atoms(atoms).formula for atoms in found] == ["Ni4", "Ni3Pt"]
    for atoms in found:
        check_label(atoms)


def test_exported_structures_say_where_they_come_from(alflow: Run, campaign: Campaign) -> None:
    alflow("export", "Pt", "-o", "out.extxyz")
    (atoms,) = images("out.extxyz")
    assert atoms.info["alflow_id"] == campaign.ids[1]
    assert atoms.info["alflow_theory"] == "emt"
    assert atoms.info["alflow_label_kind"] == "computed"
    assert atoms.info["alflow_source"] == "enumerate"
    hashes = [row["content_hash"] for row in alflow("ls", "Pt", "-c", "content_hash", "--json").json()]
    assert atoms.info["alflow_hash"] in hashes


def test_stress_is_nine_numbers_that_any_reader_knows(alflow: Run, campaign: Campaign) -> None:
    alflow("export", "-o", "out.extxyz")
    assert "_JSON" not in Path("out.extxyz").read_text()


def test_export_of_unlabelled_candidates(alflow: Run, campaign: Campaign) -> None:
    found = alflow("export", "state=pooled", "-o", "pool.extxyz", "--all", "--json").json()
    assert (found["structures"], found["labelled"]) == (2, 0)
    assert "REF_energy" not in images("pool.extxyz")[0].info
    alflow("export", "-o", "all.cif", "--all")
    assert len(images("all.cif")) == len(campaign.ids)


def test_nothing_to_export(alflow: Run, campaign: Campaign) -> None:
    found = alflow("export", "state=pooled", "-o", "out.extxyz", code=3)
    assert "of 2 candidates none match and have a label" in found.stderr
    assert not Path("out.extxyz").exists()


def test_export_refuses(alflow: Run, campaign: Campaign) -> None:
    assert "no format goes by the suffix '.txt'" in alflow("export", "-o", "out.txt", code=1).stderr
    assert "the formats are" in alflow("export", "-o", "out.xyz", "--format", "poscar", code=1).stderr
    assert "does not exist" in alflow("export", "-o", "no/out.xyz", code=1).stderr
    assert "pbe" in alflow("export", "-o", "out.xyz", "--theory", "pbe", code=1).stderr
    alflow("export", "-o", "out.xyz")
    before = Path("out.xyz").read_text()
    assert "--force" in alflow("export", "-o", "out.xyz", code=1).stderr
    alflow("export", "Pt", "-o", "out.xyz", "--force")
    assert Path("out.xyz").read_text() != before
    assert {p.name for p in Path().iterdir() if "out" in p.name} == {"out.xyz"}
    alflow("export", code=2)


def test_what_is_added_to_a_stopped_campaign_waits_and_says_so(alflow: Run, campaign: Campaign, tmp_path: Path) -> None:
    new = tmp_path / "new.extxyz"
    write(new, bulk("Ni", "bcc", a=2.9))
    assert "has stopped" not in alflow("add", new, "--campaign", campaign.file).stderr
    with open_ledger(campaign.url, create=False) as ledger:
        ledger.campaigns.set_state(ledger.campaigns.get(campaign.name).id, CampaignState.STOPPED, "enough")
    write(new, bulk("Ni", "bcc", a=2.8))
    assert "alflow run --resume" in alflow("add", new, "--campaign", campaign.file).stderr
