"""Where the ledger lies: environment variables filled in, passwords never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from alflow.errors import ConfigError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_AUTHORITY = re.compile(r"(://[^:/@\s]*):(?!\$\{\w+\}@).*@")
_QUERY = re.compile(r"([?&][^=&]*password=)[^&]*", re.IGNORECASE)
_SQLITE = "sqlite:///"
_SCHEMES = ("sqlite", "postgresql")


def mask_url(url: str) -> str:
    """Return the URL with ``***`` in place of a password; a password given as ``${NAME}`` stays, it says nothing."""
    return _QUERY.sub(r"\1***", _AUTHORITY.sub(r"\1:***@", url))


def check_url(url: str) -> str:
    """Return the URL as it is.

    Raises
    ------
    ValueError
        if it names no database that alflow can use
    """
    scheme = url.partition("://")[0].partition("+")[0]
    if "://" not in url or (scheme not in _SCHEMES and not scheme.startswith("${")):
        raise ValueError(
            "this is no ledger: write sqlite:///campaign.db for a file beside the campaign file, or "
            "postgresql+psycopg://user:${PASSWORD}@host/database"
        )
    return url


def resolve_url(url: str, directory: Path, environment: Mapping[str, str] | None = None) -> str:
    """Fill in environment variables and make a relative SQLite path start from the campaign file's folder.

    Parameters
    ----------
    url
        as in the campaign file
    directory
        folder of the campaign file
    environment
        variables; default: those of this process

    Raises
    ------
    ConfigError
        if a variable is not set
    """
    variables = os.environ if environment is None else environment

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in variables:
            raise ConfigError(f"the environment variable {name} is not set: export it before starting alflow")
        return variables[name]

    filled = _VARIABLE.sub(value, url)
    if not filled.startswith(_SQLITE) or filled.startswith(_SQLITE + ":memory:"):
        return filled
    path, mark, query = filled.removeprefix(_SQLITE).partition("?")
    return f"{_SQLITE}{(directory / Path(path).expanduser()).resolve()}{mark}{query}"
