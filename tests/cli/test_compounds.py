"""The compounds on a terminal, and the line for what is not proven."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from alflow.cli._compounds import open_text, print_compounds
from alflow.report import OpenPhase

if TYPE_CHECKING:
    from tests.cli.conftest import Run, WriteTiny


def phase(formula: str, candidate: int | None, label: int | None) -> OpenPhase:
    return OpenPhase(
        formula=formula, candidate_id=candidate, label_id=label, formation_energy=-0.1, e_hull=0.0, remark="open"
    )


def test_what_is_open_is_one_line() -> None:
    open_ = [phase("Ni", 167, 3), phase("NiPt", None, 12), phase("NiPt3", 137, None)]
    assert open_text(open_) == (
        "on the hull, not yet confirmed: Ni (candidate 167), NiPt (label 12); "
        "predicted below the hull: NiPt3 (candidate 137); see `alflow report`"
    )
    many = open_text([phase(f"NiPt{k}", k, k) for k in range(2, 12)])
    assert many.startswith("on the hull, not yet confirmed: NiPt2 (candidate 2), ")
    assert many.endswith("NiPt7 (candidate 7) and 4 more; see `alflow report`")


def test_the_line_is_there_without_any_stable_compound(capsys: pytest.CaptureFixture[str]) -> None:
    print_compounds([], [phase("NiPt", 1, 2)])
    assert capsys.readouterr().out == "on the hull, not yet confirmed: NiPt (candidate 1); see `alflow report`\n"
    print_compounds([], [])
    assert capsys.readouterr().out == ""


def test_status_and_the_end_of_a_run_say_what_is_open(alflow: Run, write_tiny: WriteTiny) -> None:
    write_tiny(labels=6)
    ran = alflow("run", code=3)
    open_ = alflow("status", "--json").json()["open"]
    assert {row["formula"] for row in open_} >= {"Au", "Cu"}  # the designed round labels prototypes as they come
    line = next(text for text in ran.stdout.splitlines() if text.startswith("on the hull, not yet confirmed: "))
    assert all(f"{row['formula']} (candidate {row['candidate_id']})" in line for row in open_)
    assert line in alflow("status").stdout.splitlines()
