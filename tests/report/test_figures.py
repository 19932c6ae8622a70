"""Figures: what they count is right, and odd data does not break them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from scipy import stats

from alflow.ledger import Ledger
from alflow.potentials import Kind
from alflow.report._data import Fate, ReportData, SourceFlow
from alflow.report._flow import flow_figure, rounds_figure
from alflow.report._gather import gather
from alflow.report._learning import (
    calibration_figure,
    coverage_bounds,
    coverage_lines,
    hits_of,
    learning_figure,
    parity_figure,
)
from alflow.report._phases import hull_figure
from alflow.report._style import pretty_formula


@pytest.fixture(scope="module")
def data(ledger: Ledger) -> ReportData:
    return gather(ledger, "ni-pt")


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (7, 10)])
def test_coverage_bounds_invert_the_binomial_test(hits: int, n: int) -> None:
    low, high = coverage_bounds(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    if hits > 0:
        assert stats.binom.sf(hits - 1, n, low) == pytest.approx(0.05)
    if hits < n:
        assert stats.binom.cdf(hits, n, high) == pytest.approx(0.05)


def test_hits_count_rows_that_have_the_kind(data: ReportData) -> None:
    assert hits_of(data.judged, Kind.ENERGY)[1] == 20
    assert hits_of(data.judged, Kind.STRESS) == (0, 0)


def test_the_title_states_the_coverage_that_is_drawn(data: ReportData) -> None:
    text = calibration_figure(data)
    assert text is not None
    hits, n = hits_of(data.judged, Kind.ENERGY)
    assert f"Energy: {hits}/{n} inside" in text
    assert "Stress" not in text  # never labelled here


def test_what_vanishes_by_symmetry_counts_neither_in_the_figure_nor_in_the_table(data: ReportData) -> None:
    """σ = 0 promises no interval; a label there differs from zero by rounding alone."""
    zero = replace(data.judged[0], sigma={Kind.FORCE: 0.0}, interval={Kind.FORCE: 0.0}, error={Kind.FORCE: 0.004})
    before = coverage_lines(data)
    more = replace(data, judged=(*data.judged, zero))
    assert coverage_lines(more) == before
    text = calibration_figure(more)
    assert text is not None
    for name, (_, hits, n, _) in zip(("Energy", "Largest force"), before, strict=True):
        assert f"{name}: {hits}/{n} inside" in text
    only = replace(data, judged=(zero,))
    assert (coverage_lines(only), calibration_figure(only)) == ([], None)
    assert learning_figure(only) is not None  # the error itself is one


def test_hull_names_its_compounds_and_counts_its_points(data: ReportData) -> None:
    assert data.hull is not None
    text = hull_figure(data.hull)
    assert text is not None
    assert re.search(r">Ni₃Pt<", text)
    labelled = sum(p.has_label for p in data.hull.points)
    assert len(re.findall(r"\(label\)", text)) == labelled - sum(
        p.has_label and p.formation > 0.12 for p in data.hull.points
    )


def test_a_ternary_is_a_triangle(data: ReportData) -> None:
    assert data.hull is not None
    three = replace(
        data.hull,
        elements=("Cu", "Ni", "Pt"),
        points=tuple(replace(p, fractions=(0.0, *p.fractions)) for p in data.hull.points),
        compounds=tuple(replace(c, fractions=(0.0, *c.fractions)) for c in data.hull.compounds),
    )
    text = hull_figure(three)
    assert text is not None
    assert "Ternary phase diagram" in text
    assert "energy above hull" in text


def test_flow_gathers_rare_sources(data: ReportData) -> None:
    many = tuple(SourceFlow(source=f"source {i}", fates={Fate.POOLED: i + 1}) for i in range(20))
    text = flow_figure(replace(data, flows=many))
    assert text is not None
    assert "other sources" in text
    assert ">210<" in text  # all


def test_nothing_to_draw(data: ReportData) -> None:
    nothing = replace(data, judged=(), parity=(), flows=(), rounds=())
    for make in (learning_figure, calibration_figure, parity_figure, flow_figure, rounds_figure):
        assert make(nothing) is None


def test_the_same_data_gives_the_same_figure(data: ReportData) -> None:
    assert parity_figure(data) == parity_figure(data)


def test_thousands_of_points_become_an_image(data: ReportData) -> None:
    text = parity_figure(replace(data, parity=data.parity * 200))
    assert text is not None
    assert "data:image/png" in text
    assert len(text) < 400_000


def test_pretty_formula() -> None:
    assert pretty_formula("Ni3Pt12") == "Ni₃Pt₁₂"
