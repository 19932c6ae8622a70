from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from alflow.explore import (
    AnySourceSettings,
    DynamicsSettings,
    EnumerateSettings,
    FilesSettings,
    FilterSettings,
    PerturbSettings,
    RelaxSettings,
    Round0Settings,
    SourceSettings,
    source_settings_types,
)

MODELS = [
    EnumerateSettings,
    PerturbSettings,
    RelaxSettings,
    DynamicsSettings,
    FilesSettings,
    Round0Settings,
    FilterSettings,
]


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_described_with_its_unit(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        if field.annotation is float:
            known = ("Å", "fs", "eV", "dimensionless", "over", "u (")
            assert any(unit in field.description for unit in known), f"{name}: {field.description}"


@pytest.mark.parametrize("model", MODELS)
def test_unknown_keys_are_errors(model: type[BaseModel]) -> None:
    needed: dict[str, Any] = {"paths": ["a.xyz"]} if model is FilesSettings else {}
    model.model_validate(needed)
    with pytest.raises(ValidationError, match="extra_forbidden"):
        model.model_validate({**needed, "max_atom": 3})


def test_the_kind_decides_the_model() -> None:
    adapter: TypeAdapter[SourceSettings] = TypeAdapter(AnySourceSettings)
    assert adapter.validate_python({"kind": "relax", "f_max": 0.05}) == RelaxSettings(f_max=0.05)
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        adapter.validate_python({"kind": "guess"})


def test_every_registered_kind_is_the_default_of_its_model() -> None:
    for kind, model in source_settings_types().items():
        assert model.model_fields["kind"].default == kind


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (Round0Settings, {"volume": (1.1, 0.9)}),
        (FilterSettings, {"min_volume_per_atom": 200.0}),
        (EnumerateSettings, {"volumes": {"Ni": -1.0}}),
        (DynamicsSettings, {"temperatures": []}),
        (RelaxSettings, {"f_max": 0.0}),
    ],
)
def test_impossible_values_are_refused(model: type[BaseModel], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(wrong)
