"""Campaign files of older versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from alflow.config._campaign import CONFIG_VERSION
from alflow.errors import ConfigError

Step = Callable[[dict[str, Any]], dict[str, Any]]

STEPS: Mapping[int, Step] = MappingProxyType({})
"""``STEPS[n]`` turns content of version n into content of version n + 1. Version 1 is the first."""


def migrate(
    content: Mapping[str, Any], *, steps: Mapping[int, Step] = STEPS, current: int = CONFIG_VERSION
) -> dict[str, Any]:
    """Return the content as the current version writes it.

    Raises
    ------
    ConfigError
        if the version is no number, or newer than this alflow
    """
    version = content.get("version", current)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ConfigError(f"{version!r} is no version of the campaign file: write `version: {current}`")
    if version > current:
        raise ConfigError(f"version {version} is newer than this alflow, which reads up to {current}: upgrade alflow")
    migrated = dict(content)
    for step in range(version, current):
        migrated = steps[step](migrated) | {"version": step + 1}
    return migrated
