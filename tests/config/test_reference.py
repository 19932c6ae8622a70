from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from alflow.config import CampaignConfig, reference_markdown
from alflow.labelers import AseSettings, EmtSettings, ReplaySettings, WorkerConfig
from alflow.settings import nested_models

ROOT = Path(__file__).parents[2]


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for _, child in nested_models(field.annotation):
            yield from models(child)


def test_the_committed_page_is_current() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference_markdown(), "run: python -m alflow.config > docs/configuration.md"


@pytest.mark.parametrize("root", [CampaignConfig, WorkerConfig, EmtSettings, ReplaySettings, AseSettings])
def test_every_setting_is_described(root: type[BaseModel]) -> None:
    page = reference_markdown()
    for model in models(root):
        assert model.model_config["extra"] == "forbid", model.__name__
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
            if name != "kind":
                assert f"| `{name}` |" in page, f"{model.__name__}.{name}"
