from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from alflow.config import CONFIG_VERSION, CampaignConfig
from alflow.config._migrate import STEPS, migrate
from alflow.errors import ConfigError

if TYPE_CHECKING:
    from tests.config.conftest import Load


def test_json_and_back(load: Load) -> None:
    config = load(
        "sources: [{kind: perturb, n: 7}, {kind: dynamics, temperatures: [100, 200]}]\nbudget: {labels: 5}"
    ).config
    content = json.loads(json.dumps(config.to_json()))
    assert content["version"] == CONFIG_VERSION
    assert CampaignConfig.from_json(content) == config
    assert CampaignConfig.from_json(content).config_hash == config.config_hash


def test_the_hash_is_of_what_describes_the_campaign(load: Load) -> None:
    plain = load("").config.config_hash
    assert load("selection: {batch: 10}").config.config_hash == plain  # a default written out
    assert load("ledger: sqlite:///elsewhere.db").config.config_hash == plain
    assert load("selection: {batch: 11}").config.config_hash != plain
    assert load("sources: [{kind: relax}]").config.config_hash != plain


def test_it_cannot_be_changed(load: Load) -> None:
    with pytest.raises(ValidationError):
        load("").config.seed = 3  # type: ignore[misc]


def test_there_is_a_step_from_every_version() -> None:
    assert set(STEPS) == set(range(1, CONFIG_VERSION))


def test_older_versions_are_brought_up_step_by_step() -> None:
    steps = {1: lambda c: c | {"b": c.pop("a")}, 2: lambda c: c | {"c": c["b"] + 1}}
    assert migrate({"version": 1, "a": 1}, steps=steps, current=3) == {"version": 3, "b": 1, "c": 2}
    assert migrate({"version": 2, "b": 5}, steps=steps, current=3) == {"version": 3, "b": 5, "c": 6}
    assert migrate({"b": 5}, steps=steps, current=3) == {"b": 5}


@pytest.mark.parametrize("version", [0, True, "1", 99])
def test_other_versions_are_refused(version: object) -> None:
    with pytest.raises(ConfigError):
        migrate({"version": version})
