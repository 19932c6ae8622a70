"""YAML that remembers where every key stands.

PyYAML composes a tree of nodes with their marks; values and places are taken from it in one walk. Nothing is ever
constructed but text, numbers, booleans, null, lists and mappings, whatever tags a file holds.

Plain scalars follow YAML 1.2, because 1.1 surprises in our field: ``No`` (nobelium) would be false, ``1e-3`` would be
text and ``1:30`` would be ninety.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from alflow.errors import ConfigError

KeyPath = tuple[str | int, ...]
MAX_CHARACTERS = 1_000_000

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)(_[0-9]+)*")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {"": None, "~": None, "null": None, "true": True, "false": False}
_INFINITE = re.compile(r"[-+]?\.inf|\.nan", re.IGNORECASE)
_PREFIX = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_PREFIX + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")}

_COLLECTION_TAGS = {_PREFIX + "map", _PREFIX + "seq"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where something stands in a file; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, kw_only=True)
class Document:
    """The content of one YAML file with the place of every key and list item.

    Parameters
    ----------
    name
        file name for messages
    content
        plain values
    places
        place of each key path; the empty path is the document itself
    """

    name: str
    content: Mapping[str, Any]
    places: Mapping[KeyPath, Place]

    def place(self, path: KeyPath) -> Place:
        """Place of a key path, or of the nearest enclosing key that is there."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places[path]


def parse_yaml(text: str, *, name: str) -> Document:
    """Parse one YAML mapping.

    Raises
    ------
    ConfigError
        naming file, line and column, if the text is not YAML, no mapping, repeats a key, or uses anchors or tags
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{name} has {len(text)} characters; a settings file has at most {MAX_CHARACTERS}")
    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
                raise _error(name, token.start_mark, "anchors and aliases are not read: write the value out")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces, not tabs" if "\\t" in (error.problem or "") else ""
        raise _error(name, mark, f"this is not YAML: {problem}{hint}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: this is not YAML: {error}") from error
    if root is None:
        raise ConfigError(f"{name}: the file is empty")
    if not isinstance(root, yaml.MappingNode):
        raise _error(name, root.start_mark, "expected `key: value` lines at the top")
    places: dict[KeyPath, Place] = {(): _place(root.start_mark)}
    content = _value(root, (), places, name)
    return Document(name=name, content=content, places=places)


def _value(node: yaml.Node, path: KeyPath, places: dict[KeyPath, Place], name: str) -> Any:
    if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTION_TAGS:
        raise _error(name, node.start_mark, f"the tag {node.tag!r} is not read: write a plain value")
    if isinstance(node, yaml.MappingNode):
        return dict(_items(node, path, places, name))
    if isinstance(node, yaml.SequenceNode):
        values = []
        for index, item in enumerate(node.value):
            places[(*path, index)] = _place(item.start_mark)
            values.append(_value(item, (*path, index), places, name))
        return values
    if node.tag not in _PLAIN_TAGS:
        raise _error(name, node.start_mark, f"the tag {node.tag!r} is not read: write a plain value")
    assert isinstance(node, yaml.ScalarNode)
    plain = node.style is None and not node.tag.startswith("!")
    return _scalar(str(node.value)) if plain else str(node.value)


def _items(node: yaml.MappingNode, path: KeyPath, places: dict[KeyPath, Place], name: str) -> Iterator[tuple[str, Any]]:
    seen: dict[str, Place] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _error(name, key_node.start_mark, "a key must be a word")
        key = str(key_node.value)
        place = _place(key_node.start_mark)
        if key in seen:
            where = ".".join(str(part) for part in (*path, key))
            raise _error(name, key_node.start_mark, f"`{where}` stands here and in line {seen[key].line}: keep one")
        seen[key] = places[(*path, key)] = place
        yield key, _value(value_node, (*path, key), places, name)


def _scalar(text: str) -> Any:
    lowered = text.lower()
    if lowered in _SPECIAL:
        return _SPECIAL[lowered]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return math.nan if "nan" in lowered else math.copysign(math.inf, -1 if text.startswith("-") else 1)
    return text


def _place(mark: yaml.Mark) -> Place:
    return Place(line=mark.line + 1, column=mark.column + 1)


def _error(name: str, mark: yaml.Mark | None, message: str) -> ConfigError:
    where = name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"
    return ConfigError(f"{where}: {message}")
