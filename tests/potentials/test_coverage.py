import numpy as np
import pytest
from numpy.typing import NDArray

from alflow.potentials import (
    Calibration,
    Errors,
    Kind,
    KindCalibration,
    Spreads,
    coverage,
    drift_warning,
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


def test_in_distribution_the_bars_are_met() -> None:
    rng = np.random.default_rng(7)
    found = fit_calibration(*rows(*draw(rng, 300, 1.8, 0.2, shape=1.5)), stream=np.ones(300, bool))
    judged = coverage(found, *rows(*draw(rng, 2000, 1.8, 0.2, shape=1.5)))
    for row in judged.values():
        assert row.n == 2000
        assert row.coverage90 is not None
        assert 0.86 < row.coverage90 < 0.94
        assert row.ence is not None
        assert row.ence < 0.15
        assert row.spearman is not None
        assert row.spearman > 0.6
        assert row.nll is not None
        assert row.nll_constant is not None
        assert row.nll < row.nll_constant


def test_raw_spreads_that_are_too_small_show_in_every_figure() -> None:
    raw = KindCalibration(a=1.0, c=1e-6, shape=0.5, q90=None, n_fit=10**6, n_conformal=0)
    s, e = draw(np.random.default_rng(7), 1000, 3.0, 0.2)
    judged = coverage(Calibration(energy=raw), *rows(s, e))
    assert list(judged) == [Kind.ENERGY]
    row = judged[Kind.ENERGY]
    assert row.coverage90 is not None
    assert row.coverage90 < 0.6
    assert row.ence is not None
    assert row.ence > 1.5
    warning = drift_warning(judged)
    assert warning is not None
    assert "energy intervals are too narrow" in warning


def test_the_likelihood_is_the_nakagami_density() -> None:
    known = KindCalibration(a=2.0, c=0.5, shape=1.3, q90=None, n_fit=9, n_conformal=0)
    s, e = draw(np.random.default_rng(1), 50, 2.0, 0.5)
    from scipy.stats import nakagami

    expected = -np.mean(nakagami.logpdf(e, 1.3, scale=known.sigma(s)))
    assert coverage(Calibration(energy=known), *rows(s, e))[Kind.ENERGY].nll == pytest.approx(expected)


def test_few_rows_are_not_judged() -> None:
    known = KindCalibration(a=2.0, c=0.5, shape=0.5, q90=None, n_fit=9, n_conformal=0)
    judged = coverage(Calibration(energy=known), *rows(np.ones(4), np.ones(4)))
    assert judged[Kind.ENERGY].to_dict() == {
        "n": 4,
        "coverage90": None,
        "ence": None,
        "spearman": None,
        "nll": None,
        "nll_constant": None,
    }
    assert drift_warning(judged) is None


def test_honest_intervals_rarely_raise_a_drift_warning() -> None:
    known = KindCalibration(a=1.0, c=0.3, shape=0.5, q90=1.645, n_fit=100, n_conformal=50)
    rng = np.random.default_rng(11)
    calibration = Calibration(energy=known)
    warned = [drift_warning(coverage(calibration, *rows(*draw(rng, 60, 1.0, 0.3)))) is not None for _ in range(300)]
    assert np.mean(warned) < 0.02
    wide = coverage(Calibration(energy=known), *rows(*draw(rng, 100, 0.1, 0.03)))
    assert "too wide" in (drift_warning(wide) or "")
