import numpy as np
import pytest
from scipy.stats import binom, binomtest

from alflow.select import clean_labels_needed, look_level, upper_bound
from alflow.select._looks import best_window, window_lengths


@pytest.mark.parametrize(("failures", "n"), [(0, 14), (1, 30), (5, 20), (14, 14), (0, 0)])
def test_the_bound_is_that_of_clopper_and_pearson(failures: int, n: int) -> None:
    if n == 0:
        assert upper_bound(failures, n, 0.05) == 1.0
        return
    reference = binomtest(failures, n, alternative="less").proportion_ci(0.95, method="exact").high
    assert upper_bound(failures, n, 0.05) == pytest.approx(reference)


def test_the_numbers_of_clean_labels_that_everybody_quotes() -> None:
    assert clean_labels_needed(0.05, 0.05) == 59
    assert clean_labels_needed(0.20, 0.05) == 14
    assert upper_bound(0, 14, 0.05) < 0.2 < upper_bound(0, 13, 0.05)


def test_windows_shrink_to_the_shortest() -> None:
    assert window_lengths(20, 14) == (20, 18, 17, 15, 14)
    assert window_lengths(14, 14) == (14,)


def test_a_single_possible_look_needs_no_correction() -> None:
    assert clean_labels_needed(0.2, look_level(0.2, 0.05, (14,), 14, 14)) == 14


def test_more_looks_need_more_evidence() -> None:
    lengths = window_lengths(56, 14)
    levels = [look_level(0.2, 0.05, lengths, horizon, horizon) for horizon in (14, 30, 60, 200)]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] < 0.005
    assert look_level(0.2, 0.05, lengths, 30, 31) < levels[1], "beyond the plan little of alpha is left"


@pytest.mark.parametrize(("tolerance", "horizon"), [(0.2, 40), (0.2, 200), (0.05, 200)])
def test_ever_stopping_a_stream_at_the_tolerance_is_as_rare_as_promised(tolerance: float, horizon: int) -> None:
    """Other random numbers than those of the level; looks after every label, and beyond the plan."""
    n_streams, length = 5_000, 2 * horizon
    lengths = window_lengths(4 * clean_labels_needed(tolerance, 0.05), clean_labels_needed(tolerance, 0.05))
    failed = np.random.default_rng(99).random((n_streams, length)) < tolerance
    levels = np.array([look_level(tolerance, 0.05, lengths, horizon, n + 1) for n in range(length)])
    sums = np.concatenate([np.zeros((n_streams, 1), dtype=int), np.cumsum(failed, axis=1)], axis=1)
    ends = np.arange(1, length + 1)
    stops = np.zeros((n_streams, length), dtype=bool)
    for window in lengths:
        size = np.minimum(ends, window)
        stops |= (
            binom.cdf(np.arange(window + 1)[None, :], np.arange(window + 1)[:, None], tolerance)[
                size, sums[:, ends] - sums[:, ends - size]
            ]
            <= levels
        )
    stopped = stops.any(axis=1).mean()
    assert stopped <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_streams)
    assert stopped > 0.02, "the level wastes most of what it may spend"


def test_the_most_telling_window_forgets_early_failures() -> None:
    stream = np.array([True] * 20 + [False] * 25)
    size, failures, p_value = best_window(stream, 0.2, (42, 30, 21, 14))
    assert (size, failures) == (21, 0)
    assert p_value == pytest.approx(0.8**21)
