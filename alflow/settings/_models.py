"""Walk through the types of pydantic models: which keys are valid at a place, and where a key would have been valid."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from alflow.settings._yaml import KeyPath

Models = tuple[type[BaseModel], ...]


def models_at(model: type[BaseModel], content: Any, path: KeyPath) -> Models:
    """Models that describe the mapping at a key path; several where it is a union that the content does not decide."""
    annotations: list[Any] = [model]
    for part in path:
        content = _descend(content, part)
        annotations = [below for annotation in annotations for below in _below(annotation, part)]
        annotations = _decide(annotations, content)
    return tuple(dict.fromkeys(a for a in annotations if _is_model(a)))


def members(annotation: Any) -> list[Any]:
    """Alternatives of a type: the members of a union, without the wrapping of Annotated."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for argument in get_args(annotation) for member in members(argument)]
    return [annotation]


def key_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key path of a model, e.g. ``selection.batch`` or ``sources[].max_atoms``."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        yield path
        for suffix, child in nested_models(field.annotation):
            yield from key_paths(child, f"{path}{suffix}.")


def nested_models(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Models inside a type, each with how to get there: nothing, ``[]`` for a list, ``.NAME`` for a mapping."""
    for member in members(annotation):
        origin, arguments = get_origin(member), get_args(member)
        if _is_model(member):
            yield "", member
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            yield from ((f".NAME{suffix}", child) for suffix, child in nested_models(arguments[1]))
        elif isinstance(origin, type) and issubclass(origin, Sequence):
            yield from ((f"[]{suffix}", child) for suffix, child in nested_models(arguments[0]))


def kind_of(model: type[BaseModel]) -> str | None:
    """Value of a literal ``kind`` that marks a member of a union."""
    field = model.model_fields.get("kind")
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    return str(get_args(field.annotation)[0])


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel)


def _below(annotation: Any, part: str | int) -> list[Any]:
    """Types of what stands below a key or index."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return [] if field is None else members(field.annotation)
    if not isinstance(origin, type):
        return []
    if issubclass(origin, Mapping):
        return members(arguments[1])
    return members(arguments[0]) if issubclass(origin, Sequence) and isinstance(part, int) else []


def _decide(annotations: list[Any], content: Any) -> list[Any]:
    """Keep the member of a union that the content's ``kind`` names."""
    if isinstance(content, Mapping) and "kind" in content and len(annotations) > 1:
        decided = [a for a in annotations if _is_model(a) and kind_of(a) == content["kind"]]
        return decided or annotations
    return annotations


def _descend(content: Any, part: str | int) -> Any:
    if isinstance(content, Mapping):
        return content.get(part)
    if isinstance(content, list) and isinstance(part, int) and part < len(content):
        return content[part]
    return None
