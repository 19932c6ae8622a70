from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from alflow.config import LoadedCampaign, load_campaign
from alflow.errors import ConfigError

Load = Callable[[str], LoadedCampaign]
Fail = Callable[[str], str]

LEAST = "name: c\nelements: [Ni, Pt]\ntheory: {labeler: emt}\n"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a campaign from text; what is missing of the least file is added below."""

    def loader(text: str) -> LoadedCampaign:
        path = tmp_path / "campaign.yaml"
        given = {line.partition(":")[0] for line in text.splitlines()}
        path.write_text(
            text + "\n" + "".join(f"{line}\n" for line in LEAST.splitlines() if line.split(":")[0] not in given)
        )
        return load_campaign(path)

    return loader


@pytest.fixture
def fail(load: Load, tmp_path: Path) -> Fail:
    """Load a campaign that must be refused, and return the message without the folder."""

    def failing(text: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return failing
