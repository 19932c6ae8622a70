from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from alflow.errors import ConfigError
from alflow.settings import Place, parse_yaml


def content(text: str) -> Any:
    return parse_yaml(text, name="f.yaml").content


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("No", "No"),
        ("Y", "Y"),
        ("on", "on"),
        ("1e-3", 1e-3),
        ("1.5E+2", 150.0),
        ("-3", -3),
        ("1:30", "1:30"),
        ("010", 10.0),
        ("2026-11-23", "2026-11-23"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"true"', "true"),
        ("-.inf", -math.inf),
        ("1.", 1.0),
        (".5", 0.5),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    read = content(f"x: {text}")["x"]
    assert read == value
    assert type(read) is type(value)


def test_every_key_and_item_has_its_place() -> None:
    document = parse_yaml("a: 1\nb:\n  - c: 2\n    d: 3\n  - [4, 5]\n", name="f.yaml")
    assert document.content == {"a": 1, "b": [{"c": 2, "d": 3}, [4, 5]]}
    assert document.place(("b", 0, "d")) == Place(line=4, column=5)
    assert document.place(("b", 1, 1)) == Place(line=5, column=9)
    assert document.place(("b", 7, "x")) == Place(line=2, column=1)
    assert document.place(()) == Place(line=1, column=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2", r"f\.yaml:4:3: `b\.c` stands here and in line 3"),
        ("a: &x 1\nb: *x", "anchors and aliases"),
        ("a: !!python/object/apply:os.system ['true']", "tag"),
        ("!!python/object:os.system {}", "tag"),
        ("a: [1,", "f.yaml:1:.*not YAML"),
        ("a:\n\tb: 1", "spaces, not tabs"),
        ("- 1", "expected `key: value`"),
        ("text", "expected `key: value`"),
        ("", "empty"),
        ("# only a remark", "empty"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("? [a, b]\n: 1", "a key must be a word"),
        ("a: \x00", "not YAML"),
    ],
)
def test_what_is_refused_says_where_and_why(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        content(text)


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most"):
        content("a: " + "x" * 1_000_001)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("abcdefghij_ xyz:#-", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcdef", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcdef", min_size=1), values, max_size=4))
def test_what_pyyaml_writes_is_read_back(value: dict[str, Any]) -> None:
    if value:
        assert content(yaml.safe_dump(value)) == value
