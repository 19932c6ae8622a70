from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import alflow.labelers
from alflow.errors import ConfigError, TheoryError
from alflow.labelers import (
    InProcessLabeler,
    ProgramLabeler,
    get_labeler,
    labeler_for_theory,
    labeler_names,
    labeler_type,
)

ROOT = Path(__file__).parents[2]


def test_the_built_in_labelers_are_registered_and_load() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["alflow.labelers"]
    assert set(declared) <= set(labeler_names())
    for name in declared:
        kind = labeler_type(name)
        assert kind.name == name
        assert issubclass(kind, InProcessLabeler | ProgramLabeler)


@pytest.mark.parametrize(("name", "nearest"), [("etm", "emt"), ("reply", "replay"), ("asee", "ase")])
def test_an_unknown_name_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no labeler '{name}': did you mean '{nearest}'"):
        get_labeler(name)


def test_a_theory_of_another_version_is_not_computed_here() -> None:
    spec = get_labeler("emt").theory()
    assert labeler_for_theory("emt", spec.settings, spec.fingerprint).theory() == spec
    with pytest.raises(TheoryError, match="labels of two theories never mix"):
        labeler_for_theory("emt", spec.settings, "0" * 64)


def test_the_face_is_exactly_all() -> None:
    public = {name for name in vars(alflow.labelers) if not name.startswith("_")}
    assert public == set(alflow.labelers.__all__)
