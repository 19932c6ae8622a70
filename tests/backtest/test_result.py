import math

import pytest

from alflow.backtest import BacktestResult, Curve, Point


def curve(strategy: str, seed: int, energies: list[float], forces: list[float | None] | None = None) -> Curve:
    points = tuple(
        Point(
            n_labels=10 * (i + 1),
            energy_mae=e,
            force_mae=None if forces is None else forces[i],
            coverage={},
            cpu_seconds=0.0,
        )
        for i, e in enumerate(energies)
    )
    return Curve(strategy=strategy, seed=seed, points=points)


def result(*curves: Curve) -> BacktestResult:
    return BacktestResult(curves=curves, settings={}, pool={"pool": 100, "leaders": 90, "test": 20})


def test_labels_to_reach_an_error_are_interpolated_on_the_logarithm() -> None:
    falling = curve("random", 0, [1.0, 0.1, 0.01])
    assert falling.labels_to_reach("energy", 0.1) == pytest.approx(20.0)
    assert falling.labels_to_reach("energy", math.sqrt(0.001)) == pytest.approx(25.0)
    assert falling.labels_to_reach("energy", 5.0) == 10.0
    assert falling.labels_to_reach("energy", 0.001) is None
    assert falling.labels_to_reach("force", 0.1) is None


def test_one_lucky_point_is_no_arrival() -> None:
    lucky = curve("default", 0, [1.0, 0.1, 0.9, 0.9, 0.5])
    reached = lucky.labels_to_reach("energy", 0.11)
    assert reached is None


def test_savings_are_relative_to_the_same_seed_of_random() -> None:
    found = result(
        curve("default", 0, [1.0, 0.1, 0.01, 0.01]),
        curve("default", 1, [1.0, 0.5, 0.25, 0.125]),
        curve("random", 0, [1.0, 0.5, 0.2, 0.1]),
        curve("random", 1, [1.0, 0.8, 0.6, 0.5]),
    )
    saving = found.saving("default", "energy")
    assert saving is not None
    assert saving.ratios == pytest.approx((0.5, 0.5))
    assert saving.median == pytest.approx(0.5)
    assert saving.reached == 2
    itself = found.saving("random", "energy")
    assert itself is not None
    assert itself.median == pytest.approx(1.0)
    assert found.saving("default", "force") is None


def test_what_is_never_reached_counts_against_a_strategy() -> None:
    found = result(curve("default", 0, [1.0, 0.9]), curve("random", 0, [1.0, 0.1]))
    saving = found.saving("default", "energy")
    assert saving is not None
    assert math.isinf(saving.median)
    assert "not reached (0/1)" in found.summary()


def test_summary_and_json() -> None:
    found = result(
        curve("default", 0, [0.1, 0.01], [0.2, 0.1]),
        curve("default", 1, [0.1, 0.02], [0.2, 0.1]),
        curve("random", 0, [0.1, 0.05], [0.2, 0.15]),
        curve("random", 1, [0.1, 0.05], [0.2, 0.15]),
    )
    text = found.summary()
    assert "15.0 ± 7.1" in text
    assert "100 structures to choose from (90 not redundant), tested on 20; 2 seeds" in text
    assert BacktestResult.from_json(found.to_json()) == found
    assert found.mean_curve("default", "energy")[1] == pytest.approx((20, 0.015, 0.005))
