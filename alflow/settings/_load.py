"""Read a settings file into its model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from alflow.errors import ConfigError
from alflow.settings._problems import problems_of, raise_problems
from alflow.settings._yaml import Document, parse_yaml

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Loaded(Generic[Model]):
    """A settings model together with the document that it was read from."""

    settings: Model
    document: Document


def load_settings(
    path: Path,
    model: type[Model],
    *,
    prepare: Callable[[Document], Document] | None = None,
    secret: frozenset[str] = frozenset(),
    missing: str = "",
) -> Loaded[Model]:
    """Read a YAML file into a settings model.

    Parameters
    ----------
    path
        the file
    model
        what it must describe
    prepare
        called with the parsed document before validation, e.g. to migrate an older version
    secret
        top-level keys whose values never enter a message
    missing
        what to do where the file does not exist

    Raises
    ------
    ConfigError
        listing every problem with file, line, column, key and remedy
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist" + (f": {missing}" if missing else "")) from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder: give the file in it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse_settings(text, model, name=str(path), prepare=prepare, secret=secret)


def parse_settings(
    text: str,
    model: type[Model],
    *,
    name: str,
    prepare: Callable[[Document], Document] | None = None,
    secret: frozenset[str] = frozenset(),
) -> Loaded[Model]:
    """Like :func:`load_settings` for text that was read already; ``name`` stands for the file in messages."""
    document = parse_yaml(text, name=name)
    if prepare is not None:
        document = prepare(document)
    try:
        return Loaded(settings=model.model_validate(document.content), document=document)
    except ValidationError as error:
        raise_problems(document, problems_of(error, model, document, secret=secret))
