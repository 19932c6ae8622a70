"""Environment variables in the worker's file: ``${NAME}`` and nothing else; no shell is involved."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from alflow.errors import ConfigError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand(value: Any, where: str) -> Any:
    """Replace ``${NAME}`` in every text of a nested value.

    Raises
    ------
    ConfigError
        if the variable is not set; ``where`` says in which setting
    """
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(match.group(1), where), value)
    if isinstance(value, dict):
        return {k: expand(v, where) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [expand(v, where) for v in value]
    return value


def expand_path(path: Path, where: str) -> Path:
    """Expand ``${NAME}`` and a leading ``~``."""
    return Path(expand(str(path), where)).expanduser()


def _variable(name: str, where: str) -> str:
    try:
        return os.environ[name]
    except KeyError as error:
        raise ConfigError(
            f"{where}: the environment variable {name} is not set: export it, or write the value"
        ) from error
