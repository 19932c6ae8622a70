import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alflow.potentials import (
    Calibration,
    Errors,
    Kind,
    KindCalibration,
    Spreads,
    fit_calibration,
)

Float = NDArray[np.float64]


def draw(
    rng: np.random.Generator, n: int, a: float, c: float, *, shape: float = 0.5, scale: float = 1.0
) -> tuple[Float, Float]:
    """Spreads over a decade and a half, and errors with E[e²|s] = a² s² + c² from the Nakagami family."""
    s = scale * np.exp(rng.normal(0, 1, n))
    sigma2 = np.square(a * s) + c**2
    return s, np.sqrt(rng.gamma(shape, sigma2 / shape))


def rows(s: Float, e: Float) -> tuple[Spreads, Errors]:
    return Spreads(energy=s, force=s, stress=s), Errors(energy=e, force=e, stress=e)


def fit_one(s: Float, e: Float, stream: NDArray[np.bool_] | None = None, **more: object) -> KindCalibration:
    spread, error = rows(s, e)
    mask = np.zeros(len(s), bool) if stream is None else stream
    found = fit_calibration(spread, error, stream=mask, kinds=[Kind.ENERGY], **more)  # type: ignore[arg-type]
    assert found.energy is not None
    return found.energy


@pytest.mark.parametrize("shape", [0.5, 1.5, 6.0])
@pytest.mark.parametrize(("a", "c"), [(1.0, 0.5), (2.5, 0.3), (0.7, 2.0)])
def test_known_a_and_c_are_recovered_whatever_the_shape_of_the_errors(a: float, c: float, shape: float) -> None:
    s, e = draw(np.random.default_rng(1), 4000, a, c, shape=shape)
    found = fit_one(s, e)
    assert found.a == pytest.approx(a, rel=0.12)
    assert found.c == pytest.approx(c, rel=0.15)
    assert found.shape == pytest.approx(shape, rel=0.15)


@given(st.floats(1e-4, 10.0), st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_another_unit_changes_c_and_nothing_else(unit: float, seed: int) -> None:
    s, e = draw(np.random.default_rng(seed), 100, 1.5, 0.5)
    one, other = fit_one(s * 10, e * 10), fit_one(s * 10 * unit, e * 10 * unit)
    assert other.a == pytest.approx(one.a, rel=1e-2)
    assert other.c == pytest.approx(one.c * unit, rel=2e-2)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_handful_of_lucky_rows_never_makes_the_error_vanish(n: int) -> None:
    s = np.full(n, 0.01)
    found = fit_one(s, np.zeros(n))
    assert found.sigma(0.01) > 0.003
    assert found.sigma(0.0) > 0
    lucky = fit_one(s, np.full(n, 1e-4))
    assert lucky.sigma(0.01) > 0.003


def test_four_rows_are_shrunk_towards_a_spread_that_is_too_small() -> None:
    found = fit_one(np.array([0.01, 0.02, 0.01, 0.03]), np.array([0.02, 0.01, 0.015, 0.03]))
    assert 0.5 < found.a < 2.5
    assert found.q90 is None
    assert found.interval_factor > 1.645, "few rows widen the interval beyond the Gaussian one"


def test_without_rows_the_prior_stands_for_kinds_that_are_labelled_and_nothing_for_others() -> None:
    s, nan = np.array([0.01]), np.array([np.nan])
    found = fit_calibration(
        Spreads(energy=s, force=s, stress=s),
        Errors(energy=s, force=nan, stress=nan),
        stream=[False],
        kinds=[Kind.ENERGY, Kind.FORCE],
    )
    assert found.force is not None
    assert (found.force.a, found.force.n_fit) == (1.5, 0)
    assert found.stress is None
    assert np.isnan(found.apply(Spreads(energy=s, force=s, stress=s)).stress).all()


def test_the_previous_calibration_moves_the_prior_within_reason() -> None:
    s, e = draw(np.random.default_rng(0), 4, 1.0, 0.1)

    def with_previous(a: float) -> float:
        known = KindCalibration(a=a, c=0.1, shape=0.5, q90=None, n_fit=50, n_conformal=0)
        return fit_one(s, e, previous=Calibration(energy=known, force=known, stress=known)).a

    assert with_previous(1.0) < with_previous(3.0)
    assert with_previous(5.0) == with_previous(100.0)


def test_no_conformal_factor_below_nine_blocks() -> None:
    s, e = draw(np.random.default_rng(0), 40, 2.0, 0.2)
    stream = np.arange(40) < 8
    assert fit_one(s, e, stream).q90 is None
    stream[8] = True
    assert fit_one(s, e, stream).q90 is not None
    found = fit_one(s, e, np.ones(40, bool), blocks=np.repeat(np.arange(8), 5))
    assert (found.q90, found.n_conformal) == (None, 8)


@pytest.mark.parametrize("n_stream", [9, 20, 100])
@pytest.mark.parametrize("shape", [0.3, 0.5, 3.0])
def test_conformal_intervals_cover_what_they_promise_on_average(n_stream: int, shape: float) -> None:
    """Marginal coverage over calibrations lies in [0.9, 0.9 + 1/(n+1)], for any shape of the errors."""
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(80):
        s, e = draw(rng, n_stream, 2.0, 0.3, shape=shape)
        found = fit_one(s, e, np.ones(n_stream, bool))
        new_s, new_e = draw(rng, 400, 2.0, 0.3, shape=shape)
        covered.append(np.mean(new_e <= found.interval_factor * found.sigma(new_s)))
    noise = 3 * np.std(covered) / np.sqrt(len(covered))
    assert 0.9 - 0.01 - noise < np.mean(covered) < 0.9 + 1 / (n_stream + 1) + 0.02 + noise


def test_the_conformal_factor_uses_the_random_stream_only() -> None:
    rng = np.random.default_rng(0)
    s, e = draw(rng, 400, 1.0, 0.2)
    active_s, active_e = draw(rng, 400, 1.0, 0.2)
    stream = np.arange(800) < 400
    calm = fit_one(np.concatenate([s, active_s]), np.concatenate([e, active_e]), stream)
    active_e = np.where(rng.random(400) < 0.3, 20 * active_e, active_e)
    wild = fit_one(np.concatenate([s, active_s]), np.concatenate([e, active_e]), stream)
    assert wild.a > calm.a
    assert wild.q90 is not None
    assert np.mean(e <= wild.q90 * wild.sigma(s)) == pytest.approx(0.9, abs=0.03)


def test_rows_of_one_block_count_once() -> None:
    s, e = draw(np.random.default_rng(5), 60, 1.0, 0.2)
    single = fit_one(s, e, np.ones(60, bool))
    copies = fit_one(np.repeat(s, 5), np.repeat(e, 5), np.ones(300, bool), blocks=np.repeat(np.arange(60), 5))
    assert copies.n_conformal == single.n_conformal == 60
    assert copies.q90 == pytest.approx(single.q90, rel=0.1)


def test_a_quantity_that_vanishes_by_symmetry_has_no_error_and_energies_always_have_one() -> None:
    known = KindCalibration(a=1.5, c=0.2, shape=0.5, q90=None, n_fit=20, n_conformal=0)
    calibration = Calibration(energy=known, force=known, stress=known)
    zero = np.array([1e-7])
    errors = calibration.apply(Spreads(energy=zero, force=zero, stress=zero))
    assert errors.force.tolist() == [0.0]
    assert errors.stress.tolist() == [0.0]
    assert errors.energy[0] == pytest.approx(0.2)
    np.testing.assert_allclose(calibration.intervals(errors).energy, known.interval_factor * errors.energy)


def test_json_round_trip() -> None:
    s, e = draw(np.random.default_rng(0), 30, 2.0, 0.2)
    spread, error = rows(s, e)
    found = fit_calibration(spread, error, stream=np.ones(30, bool), kinds=[Kind.ENERGY, Kind.FORCE])
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(ValueError, match="upgrade"):
        Calibration.from_dict({"version": 3})


def test_rows_must_match() -> None:
    spread, error = rows(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="one row each"):
        fit_calibration(spread, error, stream=[True])
