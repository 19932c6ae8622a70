from __future__ import annotations

import pytest
from ase.db.core import parse_selection as parse_with_ase
from hypothesis import given
from hypothesis import strategies as st

from alflow.errors import SelectionError
from alflow.ledger import CandidateColumn
from alflow.ledger._columns import ColumnKind
from alflow.ledger._selection import (
    AgeCondition,
    ColumnCondition,
    ElementCondition,
    KeyCondition,
    find_column,
    parse_selection,
)

SELECTIONS = [
    "",
    "Ni",
    "Ni,Pt",
    "Ni, Pt , u>1",
    "Cu2",
    "Cu3Au",
    "H2O",
    "(CH3)2",
    "Cu>2",
    "Cu>=2",
    "Cu<2",
    "Cu=0",
    "Cu!=1",
    "2<Cu<5",
    "1<=Cu<=3",
    "formula=Ni3Pt",
    "formula=Pt",
    "id=3",
    "id<10,id>=2",
    "u>1",
    "u>=1.5",
    "0<e_hull<0.05",
    "1e-3<u<=2",
    "u!=1",
    "state=pooled",
    "state!=rejected,source=perturb",
    "Ni,Pt,u>1,state=pooled,e_hull<0.05",
    "pinned=True",
    "pinned=False",
    "pinned",
    "u",
    "-u",
    "natoms=4",
    "natoms<8",
    "charge=0,volume>12.5",
    ",,Ni,",
]


def as_ase(text: str) -> tuple[list[str], list[tuple[object, str, object]]]:
    """Our conditions in the form of ASE's parser."""
    keys: list[str] = []
    comparisons: list[tuple[object, str, object]] = []
    for condition in parse_selection(text).conditions:
        match condition:
            case ElementCondition(number=number, operator=op, count=count):
                comparisons.append((number, str(op), count))
            case ColumnCondition(column=column, operator=op, value=value):
                comparisons.append(("natoms" if column == CandidateColumn.N_ATOMS else str(column), str(op), value))
            case KeyCondition(column=column, negated=negated):
                keys.append(f"{'-' if negated else ''}{column}")
            case AgeCondition():
                raise AssertionError("ASE turns ages into creation times")
    return keys, comparisons


@pytest.mark.parametrize("text", SELECTIONS)
def test_the_syntax_is_that_of_ase(text: str) -> None:
    keys, comparisons = parse_with_ase(text.replace(" ", ""))
    ours_keys, ours = as_ase(text)
    assert ours_keys == list(keys)
    assert sorted(map(str, ours)) == sorted(map(str, comparisons))


OPERATORS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
ELEMENTS = st.sampled_from(["Ni", "Pt", "Cu", "H", "O"])
NUMBERS = st.sampled_from([c for c in CandidateColumn if c.kind == ColumnKind.NUMBER])
VALUES = st.one_of(st.integers(-5, 50), st.floats(-1e3, 1e3, allow_nan=False)).map(str)
CONDITIONS = st.one_of(
    ELEMENTS,
    st.lists(st.tuples(ELEMENTS, st.integers(1, 4)), min_size=1, max_size=3).map(
        lambda parts: "".join(f"{element}{n}" for element, n in parts)
    ),
    st.tuples(ELEMENTS, OPERATORS, st.integers(0, 9)).map(lambda p: f"{p[0]}{p[1]}{p[2]}"),
    st.tuples(NUMBERS, OPERATORS, VALUES).map(lambda p: f"{p[0]}{p[1]}{p[2]}"),
    st.tuples(VALUES, st.sampled_from(["<", "<="]), NUMBERS, st.sampled_from(["<", "<="]), VALUES).map("".join),
)


@given(st.lists(CONDITIONS, max_size=5).map(",".join))
def test_random_selections_are_read_as_ase_reads_them(text: str) -> None:
    keys, comparisons = parse_with_ase(text)
    ours_keys, ours = as_ase(text)
    assert ours_keys == list(keys)
    named = [("natoms" if key == "n_atoms" else key, op, value) for key, op, value in comparisons]
    assert ours == named


@pytest.mark.parametrize(
    ("text", "position", "told"),
    [
        ("Ni,Pd_,u>1", 4, "no column, element or formula"),
        ("enrgy<0", 1, "did you mean energy"),
        ("Ni, statee=pooled", 5, "did you mean state"),
        ("state=poold", 1, "did you mean pooled"),
        ("state>pooled", 1, "compare it with ="),
        ("stream=lucky", 1, "active, random"),
        ("u>many", 1, "number"),
        ("u>nan", 1, "number"),
        ("u>inf", 1, "number"),
        ("e_hull<x", 1, "eV/atom"),
        ("Cu>2.5", 1, "whole number"),
        ("u>", 1, "a column and a value"),
        (">3", 1, "a column and a value"),
        ("=", 1, "a column and a value"),
        ("u==1", 1, "one = is enough"),
        ("formula>Ni", 1, "formula=Ni3Pt"),
        ("formula=Q9", 1, "formula=Ni3Pt"),
        ("formula=", 1, "a column and a value"),
        ("pinned>True", 1, "pinned=True"),
        ("pinned=maybe", 1, "pinned=True"),
        ("created>2020", 1, "age<2d"),
        ("age<soon", 1, "2d"),
        ("Ni|?", 1, "no column, element or formula"),
        ("X", 1, "X is no element"),
        ("1<u<<2", 1, ""),
        ("u;drop table candidate", 1, "no column"),
    ],
)
def test_mistakes_are_named_with_their_place(text: str, position: int, told: str) -> None:
    with pytest.raises(SelectionError) as caught:
        parse_selection(text)
    assert f"position {position}," in str(caught.value)
    assert told in str(caught.value)


@given(st.text(max_size=20))
def test_anything_else_is_a_selection_error(text: str) -> None:
    try:
        parse_selection(text)
    except SelectionError as error:
        assert str(error)  # noqa: PT017  any text may be right as well


def test_a_number_alone_is_an_id() -> None:
    assert parse_selection(" 17 ").conditions == parse_selection("id=17").conditions


def test_ages_are_durations() -> None:
    [condition] = parse_selection("age<1h+30m").conditions
    assert condition == AgeCondition(operator=condition.operator, seconds=5400.0)  # type: ignore[union-attr]


def test_columns_have_labels_and_units() -> None:
    assert all(column.label for column in CandidateColumn)
    assert CandidateColumn.E_HULL.unit == "eV/atom"
    assert find_column("natoms") == CandidateColumn.N_ATOMS
    with pytest.raises(SelectionError, match="did you mean volume"):
        find_column("volum")
