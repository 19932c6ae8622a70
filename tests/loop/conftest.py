"""Small real campaigns: EMT, cells of one to three atoms, a committee that trains in a second.

Every test that makes one runs on SQLite, and as an integration test on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from alflow.ledger import Ledger, open_ledger
from alflow.loop import CampaignContext, open_campaign
from tests.databases import Databases

SMALL: dict[str, Any] = {
    "name": "small",
    "elements": ["Ni", "Pt"],
    "theory": {"labeler": "emt"},
    "seed": 3,
    "targets": {"energy": 0.02, "force": 0.3, "stress": 0.03},
    "round0": {"prototypes": ["fcc"], "n_spread": 6, "max_atoms": 4, "parents": ["fcc"]},
    "sources": [
        {"kind": "enumerate", "max_atoms": 3},
        {"kind": "perturb", "n": 6},
    ],
    "committee": {"n_members": 2, "channels": 4, "l_max": 2, "l_product": 1, "hidden": 8, "r_max": 4.0},
    "training": {"steps": 15, "warm_steps": 10},
    "selection": {"batch": 4},
    "budget": {"rounds": 3},
}

MakeCampaign = Callable[..., Path]


def write_campaign(directory: Path, **changes: Any) -> Path:
    """Write a campaign file; keyword arguments replace sections of the small one."""
    directory.mkdir(exist_ok=True)
    path = directory / "campaign.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """An empty one."""
    with open_ledger(url) as opened:
        yield opened


@pytest.fixture
def make_campaign(tmp_path: Path, backend: str, databases: Databases) -> MakeCampaign:
    """Write campaign files below the test's folder; each folder has a ledger of its own, as on SQLite by default."""
    ledgers: dict[str, str] = {}

    def make(folder: str = "campaign", **changes: Any) -> Path:
        if backend == "postgresql":
            if folder not in ledgers:
                ledgers[folder] = databases.ledger(backend)
            changes = {"ledger": ledgers[folder]} | changes
        return write_campaign(tmp_path / folder, **changes)

    return make


@pytest.fixture
def small(make_campaign: MakeCampaign) -> CampaignContext:
    """An opened small campaign, nothing done yet."""
    return open_campaign(make_campaign())
