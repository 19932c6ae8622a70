"""What is wrong in a settings file, as messages that say where and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from alflow.errors import ConfigError
from alflow.settings._models import key_paths, kind_of, models_at
from alflow.settings._yaml import Document, KeyPath

_SECTION = "a section of `key: value` lines"
_EXPECTED = {
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "dict_type": _SECTION,
    "mapping_type": _SECTION,
    "list_type": "a list",
    "tuple_type": "a list",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
}
_VALUE_SHOWN = 60
_MISSING = "this key is missing"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: at which key, what, and what to do; ``meant`` is the key that was probably meant."""

    path: KeyPath
    message: str
    remedy: str = ""
    meant: str | None = None

    def render(self, document: Document) -> str:
        """Return ``file:line:column: key: message; remedy``."""
        place = document.place(self.path)
        return f"{document.name}:{place.line}:{place.column}: {self.text()}"

    def text(self) -> str:
        """Return ``key: message; remedy``."""
        key = dotted(self.path)
        text = f"{key}: {self.message}" if key else self.message
        return f"{text}; {self.remedy}" if self.remedy else text


def dotted(path: KeyPath) -> str:
    """Key path as text, e.g. ``sources[0].max_atoms``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def raise_problems(document: Document, problems: Sequence[Problem]) -> NoReturn:
    """Raise one ConfigError that lists every problem in the order of the file."""
    ordered = sorted(problems, key=lambda p: (document.place(p.path).line, document.place(p.path).column))
    lines = list(dict.fromkeys(problem.render(document) for problem in ordered))
    if len(lines) == 1:
        raise ConfigError(lines[0])
    raise ConfigError("\n".join([f"{document.name} has {len(lines)} problems:", *(f"  {line}" for line in lines)]))


def problems_of(
    error: ValidationError, model: type[BaseModel], document: Document, *, secret: frozenset[str] = frozenset()
) -> list[Problem]:
    """Translate pydantic's errors; values of the top-level keys in ``secret`` are never shown."""
    details = error.errors(include_url=False)
    places = [d["loc"] for d in details]
    problems = [
        _translate(detail, model, document.content, secret)
        for detail in details
        # A list whose only entry is wrong is not too short.
        if not (detail["type"] == "too_short" and any(p[: len(detail["loc"])] == detail["loc"] != p for p in places))
    ]
    by_path: dict[KeyPath, Problem] = {}
    for problem in problems:
        # Every member of a union complains about the same value: one sentence for all of them.
        first = by_path.setdefault(problem.path, problem)
        if problem.message not in first.message:
            by_path[problem.path] = replace(first, message=f"{first.message}, or {problem.message}")
    return _without_misspelt(by_path)


def nearest(word: str, valid: Sequence[str]) -> str | None:
    """The valid word that was probably meant."""
    folded = {v.lower().replace("-", "_"): v for v in valid}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def _without_misspelt(by_path: dict[KeyPath, Problem]) -> list[Problem]:
    """Leave out a missing key that is there, but misspelt: one mistake, one message."""
    meant = {(*p.path[:-1], p.meant) for p in by_path.values() if p.meant is not None}
    return [p for p in by_path.values() if not (p.path in meant and p.message.startswith(_MISSING))]


def _translate(detail: Any, model: type[BaseModel], content: Mapping[str, Any], secret: frozenset[str]) -> Problem:
    path = _yaml_path(detail["loc"], content)
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path, model, content)
    if kind == "missing":
        return Problem(path=path, message=_MISSING + _description(path, model, content))
    if kind == "union_tag_invalid":
        tags = [tag for m in models_at(model, content, path) if (tag := kind_of(m))]
        given = str(detail["ctx"]["tag"])
        return Problem(path=(*path, "kind"), message=f"there is no kind {given!r}", remedy=_choices(given, tags))
    if kind == "union_tag_not_found":
        tags = [tag for m in models_at(model, content, path) if (tag := kind_of(m))]
        return Problem(path=path, message="`kind` is missing", remedy=f"add one of {', '.join(tags)}")
    if kind in {"literal_error", "enum"} and isinstance(detail["input"], str):
        expected = str(detail["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        given = detail["input"]
        return Problem(path=path, message=f"{given!r} is not known", remedy=_choices(given, expected))
    if kind in {"value_error", "assertion_error"}:
        cause = detail.get("ctx", {}).get("error")
        return Problem(path=path, message=str(cause) if cause is not None else detail["msg"])
    message = _plain_message(detail)
    if not (path and path[0] in secret):
        message += f", found {_shown(detail['input'])}"
    return Problem(path=path, message=message + _description(path, model, content))


def _plain_message(detail: Any) -> str:
    """Say in words of the file what pydantic says in words of Python."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}"
    if kind == "too_short":
        return f"needs at least {context['min_length']} entries" if context["min_length"] > 1 else "must not be empty"
    for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
        if name in context:
            return f"must be {sign} {context[name]:g}"
    return str(detail["msg"][0].lower() + detail["msg"][1:])


def _unknown_key(path: KeyPath, model: type[BaseModel], content: Mapping[str, Any]) -> Problem:
    word = str(path[-1])
    valid = sorted({name for m in models_at(model, content, path[:-1]) for name in m.model_fields})
    message = "this key is not known"
    near = nearest(word, valid)
    if near is not None:
        return Problem(path=path, message=message, remedy=f"did you mean `{near}`?", meant=near)
    others = [m for m in models_at(model, {}, path[:-1]) if word in m.model_fields]
    if others and kind_of(others[0]):
        return Problem(path=path, message=message, remedy=f"it belongs to `kind: {kind_of(others[0])}`")
    elsewhere = [key for key in dict.fromkeys(key_paths(model)) if key.rpartition(".")[2] == word]
    if elsewhere:
        return Problem(path=path, message=message, remedy=f"did you mean `{elsewhere[0]}`?")
    section = dotted(path[:-1]) or "the top"
    return Problem(path=path, message=message, remedy=f"valid in {section}: {', '.join(valid)}")


def _choices(given: str, valid: Sequence[str]) -> str:
    near = nearest(given, valid)
    listed = f"valid: {', '.join(valid)}"
    return f"did you mean {near!r}? ({listed})" if near else listed


def _description(path: KeyPath, model: type[BaseModel], content: Mapping[str, Any]) -> str:
    names = [part for part in path if isinstance(part, str)]
    if not names:
        return ""
    position = len(path) - 1 - list(reversed(path)).index(names[-1])
    for candidate in models_at(model, content, path[:position]):
        field = candidate.model_fields.get(names[-1])
        if field is not None and field.description:
            return f" ({field.description})"
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_SHOWN else text[: _VALUE_SHOWN - 1] + "…"


def _yaml_path(location: Sequence[str | int], content: Any) -> KeyPath:
    """Drop what pydantic adds to a location and the file does not hold: tags and names of union members."""
    path: list[str | int] = []
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(content, Mapping):
            is_tag = content.get("kind") == part and not last and not (path and path[-1] == "kind")
            if isinstance(part, str) and part in content and not is_tag:
                path.append(part)
                content = content[part]
            elif last and isinstance(part, str) and not is_tag:
                path.append(part)
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            path.append(part)
            content = content[part]
    return tuple(path)
