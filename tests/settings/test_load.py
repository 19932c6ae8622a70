from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

import alflow.settings
from alflow.errors import ConfigError
from alflow.settings import load_settings, parse_settings


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class One(Strict):
    kind: Literal["one"] = "one"
    size: int = 1


class Two(Strict):
    kind: Literal["two"] = "two"
    width: float


class Inner(Strict):
    batch: int = Field(default=3, ge=1, description="things per turn")
    colour: Colour = Colour.RED


class Outer(Strict):
    inner: Inner = Inner()
    parts: tuple[Annotated[One | Two, Field(discriminator="kind")], ...] = ()
    named: dict[str, Inner] = Field(default_factory=dict)
    password: str = "x"
    either: tuple[float, float] | None = None

    @field_validator("password")
    @classmethod
    def _no_digits(cls, value: str) -> str:
        if value.isdigit():
            raise ValueError("letters only")
        return value


def message(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, Outer, name="f.yaml", secret=frozenset({"password"}))
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iner: {}", "f.yaml:1:1: iner: this key is not known; did you mean `inner`?"),
        ("inner:\n  Batch: 1", "f.yaml:2:3: inner.Batch: this key is not known; did you mean `batch`?"),
        ("batch: 1", "f.yaml:1:1: batch: this key is not known; did you mean `inner.batch`?"),
        ("width: 1", "f.yaml:1:1: width: this key is not known; did you mean `parts[].width`?"),
        (
            "inner: {qqq: 1}",
            "f.yaml:1:9: inner.qqq: this key is not known; valid in inner: batch, colour",
        ),
        ("inner: {batch: 0}", "f.yaml:1:9: inner.batch: must be ≥ 1, found 0 (things per turn)"),
        ("inner: {batch: two}", "f.yaml:1:9: inner.batch: expected an integer, found 'two' (things per turn)"),
        ("inner: 3", "f.yaml:1:1: inner: expected a section of `key: value` lines, found 3"),
        (
            "inner: {colour: gren}",
            "f.yaml:1:9: inner.colour: 'gren' is not known; did you mean 'green'? (valid: red, green)",
        ),
        (
            "parts: [{kind: tow}]",
            "f.yaml:1:10: parts[0].kind: there is no kind 'tow'; did you mean 'two'? (valid: one, two)",
        ),
        ("parts:\n  - size: 3", "f.yaml:2:5: parts[0]: `kind` is missing; add one of one, two"),
        ("parts:\n  - kind: two", "f.yaml:2:5: parts[0].width: this key is missing"),
        (
            "parts:\n  - kind: two\n    widht: 3",
            "f.yaml:3:5: parts[0].widht: this key is not known; did you mean `width`?",
        ),
        (
            "parts:\n  - kind: one\n    sise: 3",
            "f.yaml:3:5: parts[0].sise: this key is not known; did you mean `size`?",
        ),
        ("named: {a: {bach: 1}}", "f.yaml:1:13: named.a.bach: this key is not known; did you mean `batch`?"),
        ("either: [1, x]", "f.yaml:1:13: either[1]: expected a number, found 'x'"),
    ],
)
def test_one_mistake_is_one_message(text: str, expected: str) -> None:
    assert message(text) == expected


def test_several_mistakes_are_listed_in_the_order_of_the_file() -> None:
    lines = message("password: '12'\ninner: {batch: 0}\niner: 1").splitlines()
    assert lines[0] == "f.yaml has 3 problems:"
    assert [line.split(":")[1] for line in lines[1:]] == ["1", "2", "3"]


def test_a_secret_is_never_shown() -> None:
    assert "hunter2" not in message("password: [hunter2]")
    assert "letters only" in message("password: '12'")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("inner: {batch: 5}\nparts: [{kind: two, width: 1e-3}]")
    loaded = load_settings(path, Outer)
    assert loaded.settings.inner.batch == 5
    assert loaded.settings.parts == (Two(width=1e-3),)
    assert loaded.document.name == str(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "binary"])
def test_a_file_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "f.yaml"
    expected = {"missing": "does not exist: write it", "folder": "is a folder", "binary": "cannot be read"}
    if kind == "folder":
        path.mkdir()
    if kind == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=expected[kind]):
        load_settings(path, Outer, missing="write it")


def test_the_face_is_exactly_all() -> None:
    public: set[Any] = {name for name in vars(alflow.settings) if not name.startswith("_")}
    assert public == set(alflow.settings.__all__)
