"""Tables, JSON and CSV from the same rows."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from pydantic import BaseModel

from alflow.cli._output import Column, cell_text, duration, jsonable, plural, print_rows, size
from alflow.structures import Structure

COLUMNS = (Column(key="id"), Column(key="u", digits=2, unit=""), Column(key="reason", elastic=True))
ROWS: list[dict[str, Any]] = [
    {"id": 1, "u": 1.23456, "reason": "the least known, of many"},
    {"id": 12, "u": math.nan, "reason": 'said "no"'},
    {"id": 3, "u": None, "reason": "[bold]markup[/bold]"},
]


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Pair:
    first: int
    second: float


class Settings(BaseModel):
    path: Path
    colour: Colour


def test_json_values() -> None:
    assert jsonable(Pair(1, math.inf)) == {"first": 1, "second": None}
    assert jsonable(Settings(path=Path("a/b"), colour=Colour.RED)) == {"path": "a/b", "colour": "red"}
    assert jsonable(OrderedDict(a=np.float64(1.5), b=np.array([1, 2]))) == {"a": 1.5, "b": [1, 2]}
    assert jsonable([Colour.RED, True, None, np.bool_(False)]) == ["red", True, None, False]
    assert jsonable(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00+00:00"
    with pytest.raises(TypeError, match="no JSON form for object"):
        jsonable(object())


def test_json_of_a_structure_gives_it_back() -> None:
    structure = Structure.from_atoms(Atoms("NiPt", positions=[[0, 0, 0], [2, 2, 2]], cell=[4, 4, 4], pbc=True))
    found = json.loads(json.dumps(jsonable(structure)))
    names = ("cell", "pbc", "numbers", "positions", "charge", "moments")
    assert Structure(**{name: found[name] for name in names}) == structure
    assert found["content_hash"] == structure.content_hash


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "u", "reason"]
    assert lines[2].split(maxsplit=2) == ["1", "1.23", "the least known, of many"]
    assert lines[3].split(maxsplit=2) == ["12", "–", 'said "no"']
    assert lines[4].endswith("[bold]markup[/bold]")


def test_nothing_is_cut_where_stdout_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_rows(COLUMNS, [{"id": 1, "u": 2.0, "reason": "x" * 300}])
    assert "x" * 300 in capsys.readouterr().out


def test_json_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(COLUMNS, ROWS, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found[0] == ROWS[0]
    assert found[1]["u"] is None


def test_csv_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(COLUMNS, [*ROWS, {"id": 4, "reason": {"a": [1, 2]}}], as_csv=True)
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert float(found[0]["u"]) == ROWS[0]["u"]
    assert found[1] == {"id": "12", "u": "", "reason": 'said "no"'}
    assert json.loads(found[3]["reason"]) == {"a": [1, 2]}


def test_cells() -> None:
    assert cell_text(0.00001) == "1.0e-05"
    assert cell_text(0.0) == "0.000"
    assert cell_text(-5.5, 1) == "-5.5"
    assert cell_text(True) == "yes"
    assert cell_text({"rattle": 0.05, "strain": None}, 2) == "rattle=0.05, strain=–"
    assert cell_text([1, 2]) == "1, 2"
    assert cell_text(Colour.RED) == "red"


def test_durations_and_sizes() -> None:
    assert [duration(s) for s in (0.04, 9.9, 12.3, 119, 200, 7199, 7800)] == [
        "0.0 s",
        "9.9 s",
        "12 s",
        "119 s",
        "3 min 20 s",
        "119 min 59 s",
        "2 h 10 min",
    ]
    assert [size(n) for n in (812, 1400, 2_000_000, 5e12)] == ["812 B", "1.4 kB", "2.0 MB", "5000.0 GB"]
    assert plural(1, "label") == "1 label"
    assert plural(0, "label") == "0 labels"
