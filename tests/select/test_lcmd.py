import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alflow.select import lcmd, standardise

Float = NDArray[np.float64]


def naive(points: Float, centres: Float, n: int) -> list[int]:
    """The definition, written with loops."""
    all_centres = list(centres)
    chosen: list[int] = []
    for _ in range(n):
        free = [i for i in range(len(points)) if i not in chosen]
        clusters: dict[int, list[tuple[float, int]]] = {}
        for i in free:
            distances = [float(np.sum((points[i] - c) ** 2)) for c in all_centres]
            nearest = int(np.argmin(distances))
            clusters.setdefault(nearest, []).append((distances[nearest], i))
        largest = max(clusters.values(), key=lambda members: sum(d for d, _ in members))
        distance, pick = max(largest, key=lambda member: (member[0], -member[1]))
        if distance <= 0:
            break
        chosen.append(pick)
        all_centres.append(points[pick])
    return chosen


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_it_is_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, centres = rng.normal(size=(30, 3)), rng.normal(size=(4, 3))
    assert lcmd(points, centres, 8).tolist() == naive(points, centres, 8)


def test_what_is_labelled_already_or_chosen_twice_is_never_chosen() -> None:
    centres = np.array([[0.0, 0.0]])
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    assert lcmd(points, centres, 4).tolist() == [3, 1]


def test_without_centres_it_begins_at_the_farthest_from_the_mean() -> None:
    points = np.array([[0.0], [0.1], [5.0], [0.2]])
    assert lcmd(points, None, 2).tolist() == [2, 0]


def test_dense_regions_get_more_than_one_and_far_ones_at_least_one() -> None:
    rng = np.random.default_rng(0)
    dense, far = rng.normal(0, 0.5, (300, 2)), rng.normal([20.0, 0.0], 0.05, (5, 2))
    chosen = lcmd(np.vstack([dense, far]), np.zeros((1, 2)), 10)
    assert (chosen < 300).sum() >= 6
    assert (chosen >= 300).sum() >= 1


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (3, 3), (99, 5)])
def test_it_gives_no_more_than_there_are(n: int, expected: int) -> None:
    assert len(lcmd(np.random.default_rng(0).normal(size=(5, 2)), None, n)) == expected
    assert len(lcmd(np.zeros((0, 2)), None, n)) == 0


def test_columns_are_scaled_but_rounding_noise_is_not_blown_up() -> None:
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(7, 100, 500), rng.normal(0, 60, 500), 3 + 1e-7 * rng.normal(size=500)])
    points, centres = standardise(features[:400], features[400:])
    joined = np.vstack([points, centres])
    np.testing.assert_allclose(joined.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(joined[:, :2].std(axis=0), 1, atol=1e-9)
    assert joined[:, 2].std() < 1e-6


def test_constant_features_are_no_division_by_zero() -> None:
    points, _ = standardise(np.ones((4, 2)))
    assert points.tolist() == [[0.0, 0.0]] * 4
