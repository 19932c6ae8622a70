from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from alflow.config import CampaignConfig, init_template, load_campaign


@pytest.mark.parametrize("labeler", ["emt", "ase", "replay"])
def test_the_template_loads(tmp_path: Path, labeler: str) -> None:
    (tmp_path / "labels.extxyz").write_text("")
    path = tmp_path / "campaign.yaml"
    path.write_text(init_template("ni-pt", ["Ni", "Pt", "No"], labeler))
    config = load_campaign(path).config
    assert config.name == "ni-pt"
    assert config.elements == ("Ni", "Pt", "No")
    assert config.theory.labeler == labeler


def test_what_the_remarks_say_is_true(tmp_path: Path) -> None:
    """Settings that are commented out are at their defaults, and would be accepted."""
    lines = init_template().splitlines()
    sections = "\n".join(
        line[2:] for line in lines if line.startswith(("# stop", "# fil", "# dup", "# com", "# tra", "# dis", "#   "))
    )
    commented = yaml.safe_load(sections)
    assert set(commented) == {"stopping", "filters", "duplicates", "committee", "training", "discovery"}
    config = CampaignConfig.model_validate({"name": "c", "elements": ["Ni"], "theory": {"labeler": "emt"}})
    for section, values in commented.items():
        for key, value in values.items():
            assert getattr(getattr(config, section), key) == value, f"{section}.{key}"


def test_every_section_is_mentioned() -> None:
    text = init_template()
    assert [name for name in CampaignConfig.model_fields if f"{name}:" not in text] == []
