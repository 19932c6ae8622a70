"""Sources by name: those that come with alflow and those that other packages register."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from alflow.errors import ConfigError
from alflow.explore._settings import SourceSettings
from alflow.explore._source import ExploreContext, Proposal, Source

_GROUP = "alflow.sources"


@cache
def _source_types() -> Mapping[str, type[Source]]:
    found: dict[str, type[Source]] = {}
    for entry in sorted(entry_points(group=_GROUP), key=lambda e: e.name):
        if entry.name in found:
            raise ConfigError(f"two packages register the source {entry.name!r}; uninstall one of them")
        found[entry.name] = entry.load()
    return found


def source_names() -> tuple[str, ...]:
    """Kinds of all registered sources, in alphabetical order."""
    return tuple(_source_types())


def source_settings_types() -> dict[str, type[SourceSettings]]:
    """Settings model of every registered source, by kind."""
    return {name: source.settings_type for name, source in _source_types().items()}


def make_source(settings: SourceSettings) -> Source:
    """Return the source that the settings describe.

    Raises
    ------
    ConfigError
        if no source of that kind is registered, or the settings belong to another
    """
    source = _source_types().get(settings.kind)
    if source is None:
        raise ConfigError(f"unknown source {settings.kind!r}; known are {', '.join(source_names())}")
    if not isinstance(settings, source.settings_type):
        raise ConfigError(
            f"the source {settings.kind!r} takes {source.settings_type.__name__}, not {type(settings).__name__}"
        )
    build: Any = source
    made: Source = build(settings)
    return made


def check_source(source: Source, context: ExploreContext) -> list[Proposal]:
    """Conformance check for a source: call it in the tests of your own.

    Checked are the attributes, that the settings survive JSON, that proposals name the source and carry JSON
    parameters, that the context is left as it was, and that the same generator state gives the same proposals.

    Parameters
    ----------
    source
        to be checked
    context
        to propose in; its generator is copied, not advanced

    Returns
    -------
    list of Proposal
        what it proposed

    Raises
    ------
    AssertionError
        naming what the source does not keep
    """
    kind = getattr(source, "settings", None) and source.settings.kind
    _require(isinstance(source, Source), "a source has settings, settings_type, once, needs_committee and propose()")
    _require(isinstance(source.settings, source.settings_type), f"settings of {kind} are not of its settings_type")
    again = source.settings_type.model_validate_json(source.settings.model_dump_json())
    _require(again == source.settings, f"settings of {kind} do not survive JSON")
    _require(source.settings_type.model_config.get("extra") == "forbid", f"settings of {kind} must forbid unknown keys")
    for name, field in source.settings_type.model_fields.items():
        _require(bool(field.description), f"setting {name} of {kind} has no description")
    starts = [start.content_hash for start in context.starts]
    first = list(source.propose(_copy(context)))
    second = list(source.propose(_copy(context)))
    for proposal in first:
        _require(isinstance(proposal, Proposal), f"{kind} yields something else than proposals")
        _require(proposal.source == kind, f"{kind} proposes in the name of {proposal.source}")
        parameters = dict(proposal.parameters)
        plain = json.loads(json.dumps(parameters, allow_nan=False))
        _require(plain == parameters, f"parameters of {kind} do not survive JSON")
        _require(proposal.parent is None or proposal.parent in starts, f"{kind} names a parent that is no start")
    _require(starts == [start.content_hash for start in context.starts], f"{kind} changes the starts")
    same = [p.structure.content_hash for p in first] == [p.structure.content_hash for p in second]
    _require(same, f"{kind} does not give the same proposals for the same generator state")
    if source.once:
        other = list(source.propose(_copy(context, seed=987654321)))
        same = [p.structure.content_hash for p in first] == [p.structure.content_hash for p in other]
        _require(same, f"{kind} says once, but its proposals depend on the generator")
    return first


def _copy(context: ExploreContext, seed: int | None = None) -> ExploreContext:
    from copy import deepcopy
    from dataclasses import replace

    return replace(context, rng=deepcopy(context.rng) if seed is None else np.random.default_rng(seed))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
