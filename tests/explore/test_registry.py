from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from ase.build import bulk
from pydantic import Field

from alflow.errors import ConfigError
from alflow.explore import (
    EnumerateSettings,
    EnumerateSource,
    ExploreContext,
    Proposal,
    SourceSettings,
    check_source,
    make_source,
    source_names,
    source_settings_types,
)
from alflow.structures import Structure

CONTEXT = ExploreContext(
    rng=np.random.default_rng(0), elements=("Cu", "Au"), starts=[Structure.from_atoms(bulk("Cu", cubic=True))]
)


def test_all_sources_are_registered_and_made_from_their_settings() -> None:
    assert source_names() == ("dynamics", "enumerate", "files", "perturb", "relax")
    for kind, model in source_settings_types().items():
        settings = model(paths=("x",)) if kind == "files" else model()  # type: ignore[call-arg]
        source = make_source(settings)
        assert source.settings is settings
        assert source.needs_committee == (kind in {"dynamics", "relax"})
        assert source.once == (kind in {"enumerate", "files"})


def test_enumeration_conforms() -> None:
    assert len(check_source(EnumerateSource(EnumerateSettings(max_atoms=2)), CONTEXT)) == 4


class OwnSettings(SourceSettings):
    kind: Literal["own"] = Field(default="own", description="which source")
    fault: str = Field(default="", description="what it does wrong")


@dataclass(frozen=True)
class OwnSource:
    settings: OwnSettings = field(default_factory=OwnSettings)
    settings_type: ClassVar[type[OwnSettings]] = OwnSettings
    once: ClassVar[bool] = True
    needs_committee: ClassVar[bool] = False

    def propose(self, context: ExploreContext) -> Iterator[Proposal]:
        parameters: dict[str, Any] = {"tuple": (1, 2)} if self.settings.fault == "parameters" else {}
        cell = context.starts[0].cell
        if self.settings.fault == "random":
            cell = cell * context.rng.uniform(1.0, 1.1)
        yield Proposal(
            structure=context.starts[0].with_geometry(cell=cell, positions=context.starts[0].positions),
            source="other" if self.settings.fault == "name" else "own",
            parameters=parameters,
            parent="unheard of" if self.settings.fault == "parent" else None,
        )


def test_an_own_source_conforms() -> None:
    assert len(check_source(OwnSource(), CONTEXT)) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("parameters", "do not survive JSON"),
        ("random", "says once"),
        ("name", "in the name of other"),
        ("parent", "a parent that is no start"),
    ],
)
def test_the_check_finds_what_is_wrong(fault: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_source(OwnSource(OwnSettings(fault=fault)), CONTEXT)


def test_unknown_and_mistaken_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown source 'own'; known are dynamics, enumerate"):
        make_source(OwnSettings())
    with pytest.raises(ConfigError, match=r"'relax' takes RelaxSettings, not SourceSettings"):
        make_source(SourceSettings(kind="relax"))
