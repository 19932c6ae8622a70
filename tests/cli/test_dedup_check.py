"""``alflow dedup --cross-check``: the same pairs, asked of StructureMatcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from alflow.cli import _dedup_check
from alflow.cli._dedup_check import ask_matcher
from alflow.structures import DuplicatePolicy, Structure
from tests.cli.dedup_files import mixed, rattled, table
from tests.disguises import disguise

if TYPE_CHECKING:
    from tests.cli.conftest import Run


def test_cross_check_agrees_on_planted_duplicates(alflow: Run) -> None:
    write("all.extxyz", mixed())
    check = alflow("dedup", "all.extxyz", "--cross-check", "--json").json()["cross_check"]
    assert check["disagreements"] == []
    assert check["duplicates"] == check["n_duplicates"] >= 8
    assert check["different"] >= 8
    assert table("unique.cross-check.csv") == []


def test_cross_check_reports_what_the_matcher_does_not_see(alflow: Run) -> None:
    """Moments are ours alone, so that two magnetic orders are a disagreement, with its reason."""
    up, mixed_order = bulk("Fe", "bcc", a=2.87, cubic=True), bulk("Fe", "bcc", a=2.87, cubic=True)
    up.set_initial_magnetic_moments([2.0, 2.0])
    mixed_order.set_initial_magnetic_moments([2.0, -2.0])
    write("all.extxyz", [up, mixed_order])
    check = alflow("dedup", "all.extxyz", "--cross-check", "--json").json()["cross_check"]
    assert (check["duplicates"], check["different"], len(check["disagreements"])) == (0, 1, 1)
    assert "kept apart: 1 disagreement." in alflow("dedup", "all.extxyz", "--cross-check", "--force").stdout
    (row,) = table("unique.cross-check.csv")
    assert (row["alflow"], row["matcher"], row["remark"]) == ("different", "same", "only their moments differ")
    assert {row["one"], row["other"]} == {"all.extxyz#0", "all.extxyz#1"}
    assert float(row["displacement"]) < 1e-6
    assert float(row["matcher_displacement"]) < 1e-6


def test_cross_check_is_bounded(alflow: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    write("all.extxyz", [disguise(rattled(seed=k // 4), rng) for k in range(24)])
    asked: list[Structure] = []

    def observed(a: Structure, b: Structure, policy: DuplicatePolicy) -> _dedup_check.Verdict:
        asked.append(a)
        return ask_matcher(a, b, policy)

    monkeypatch.setattr(_dedup_check, "ask_matcher", observed)
    monkeypatch.setattr(_dedup_check.cross_check, "__kwdefaults__", {"limit": 5})
    check = alflow("dedup", "all.extxyz", "--cross-check", "--json").json()["cross_check"]
    assert check["n_duplicates"] == 18
    assert check["duplicates"] <= 5
    assert check["different"] == 5
    assert len(asked) == check["duplicates"] + check["different"]


@pytest.mark.parametrize(("size", "same"), [(0.012, True), (0.02, False)])
def test_the_matcher_is_asked_with_our_tolerance(size: float, same: bool) -> None:
    """One atom of 32 moved: the mean displacement is small, so that the largest displacement decides."""
    one = rattled(size=(2, 2, 2))
    other = one.copy()
    other.positions[5] += [size, 0.0, 0.0]
    a, b = Structure.from_atoms(one), Structure.from_atoms(other)
    verdict = ask_matcher(a, b, DuplicatePolicy.redundant())
    assert verdict.same is same
    if verdict.displacement is not None:
        assert verdict.displacement == pytest.approx(size * 31 / 32, rel=1e-3)


def test_the_matcher_is_asked_with_our_strain() -> None:
    a = Structure.from_atoms(rattled())
    for strain, same in ((0.0015, True), (0.005, False)):
        stretched = rattled()
        stretched.set_cell(stretched.cell.array * [1.0, 1.0, np.exp(strain)], scale_atoms=True)
        assert ask_matcher(a, Structure.from_atoms(stretched), DuplicatePolicy.redundant()).same is same
