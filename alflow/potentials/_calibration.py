r"""Turn the spread of a committee into an honest error.

**Model.** For each kind the expected error of a structure with spread s is :math:`\sigma^2 = a^2 s^2 + c^2`: members
share data and architecture, so they miss a common error (a > 1) and never know it is there (c > 0).
Errors are magnitudes (largest atom, Frobenius norm), for which a Gaussian is wrong in shape. They are taken as
Nakagami distributed: :math:`e^2 \sim \mathrm{Gamma}(m, \sigma^2/m)`, which is the half-normal for m = 1/2 (a scalar
error such as the energy), the Maxwell distribution for m = 3/2 (one force vector) and narrower for a largest of many.
Because the Gamma family is a linear exponential one, the likelihood of (a, c) does not depend on m, and it is
consistent for :math:`E[e^2\,|\,s]` whatever the true shape (Gourieroux, Monfort and Trognon,
Econometrica 52, 681, 1984).

**Few rows.** log a and log c carry Gaussian priors of width 1/2, each worth about two rows: a around 1.5 (spreads are
too small far more often than too large), c around half the rms error. σ therefore stays positive when a handful of
rows happens to agree with the committee.

**Intervals.** A conformal factor from the random stream, one score per row made with (a, c) fitted without that row's
block, gives 90 % intervals without trusting the model. It holds for structures drawn like the stream and promises
nothing elsewhere. Until the stream has nine blocks there is none and the model's own quantile is used, widened like
Student's t for the number of rows.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize, special, stats

from alflow.potentials._targets import Kind
from alflow.potentials._uncertainty import FORCE_ZERO, STRESS_ZERO, Errors, Spreads

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

INTERVAL = 0.9
"""Nominal coverage of every interval."""
PRIOR_A = 1.5
"""Centre of the prior of a: raw spreads of small committees cover 66 % where 90 % is meant (BARS 2), a factor 1.6."""
PRIOR_WIDTH = 0.5
"""Width of the priors of log a and log c. The likelihood of log σ has width 1/sqrt(2 n): half is worth two rows."""
PRIOR_ROWS = 2.0 / (4.0 * PRIOR_WIDTH**2)
_PRIOR_SHAPE = {Kind.ENERGY: 0.5, Kind.FORCE: 1.5, Kind.STRESS: 1.5}
_ZERO_SPREAD = {Kind.ENERGY: 0.0, Kind.FORCE: FORCE_ZERO, Kind.STRESS: STRESS_ZERO}
_SMALLEST = {Kind.ENERGY: 1e-5, Kind.FORCE: 1e-3, Kind.STRESS: 1e-5}
_FOLDS = 10


@dataclass(frozen=True, kw_only=True)
class KindCalibration:
    """Calibration of one kind.

    Parameters
    ----------
    a
        factor on the spread, dimensionless
    c
        error that no spread shows, in the kind's unit
    shape
        m of the Nakagami distribution of the errors
    q90
        conformal factor: e ≤ q90·σ for 90 % of structures drawn like the random stream; None while too few
    n_fit
        rows behind a, c and the shape
    n_conformal
        blocks behind q90
    """

    a: float
    c: float
    shape: float
    q90: float | None
    n_fit: int
    n_conformal: int

    @property
    def interval_factor(self) -> float:
        """Half-width of the 90 % interval in units of σ: conformal where there is one, else from the model."""
        if self.q90 is not None:
            return self.q90
        quantile = math.sqrt(stats.gamma.ppf(INTERVAL, self.shape, scale=1.0 / self.shape))
        level = 0.5 * (1.0 + INTERVAL)
        return float(quantile * stats.t.ppf(level, self.n_fit + PRIOR_ROWS) / stats.norm.ppf(level))

    def sigma(self, spread: ArrayLike) -> NDArray[np.float64]:
        """Expected error sqrt(a² s² + c²) for spreads of any shape, in the kind's unit."""
        sigma: NDArray[np.float64] = np.hypot(self.a * np.asarray(spread, dtype=np.float64), self.c)
        return sigma


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration per kind; None for a kind that has no labels, which is then left out of ``u``."""

    energy: KindCalibration | None = None
    force: KindCalibration | None = None
    stress: KindCalibration | None = None

    def of(self, kind: Kind) -> KindCalibration | None:
        """Calibration of one kind."""
        found: KindCalibration | None = getattr(self, kind.value)
        return found

    def apply(self, spread: Spreads) -> Errors:
        """Calibrated errors (1σ) for spreads; nan for kinds without labels.

        Where the members agree to rounding because the quantity vanishes by symmetry, the error is zero: symmetry
        holds for the truth as well, and c must not lift a perfect crystal above its target.
        """
        values = {}
        for kind in Kind:
            found, s = self.of(kind), spread.of(kind)
            if found is None:
                values[kind.value] = np.full(len(s), np.nan)
            else:
                values[kind.value] = np.where(s < _ZERO_SPREAD[kind], 0.0, found.sigma(s))
        return Errors(**values)

    def intervals(self, errors: Errors) -> Errors:
        """Half-widths of the 90 % intervals belonging to calibrated errors; nan for kinds without labels."""
        values = {}
        for kind in Kind:
            found = self.of(kind)
            values[kind.value] = errors.of(kind) * (np.nan if found is None else found.interval_factor)
        return Errors(**values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return {"version": 1, **{kind.value: None if (k := self.of(kind)) is None else asdict(k) for kind in Kind}}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Calibration:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        ValueError
            if the content was written by a newer alflow
        """
        if content.get("version") != 1:
            raise ValueError(
                f"calibration of version {content.get('version')}; this alflow reads version 1: upgrade it"
            )
        return cls(**{k.value: None if content[k.value] is None else KindCalibration(**content[k.value]) for k in Kind})


def fit_calibration(
    spread: Spreads,
    error: Errors,
    *,
    stream: ArrayLike,
    blocks: ArrayLike | None = None,
    previous: Calibration | None = None,
    kinds: Collection[Kind] | None = None,
) -> Calibration:
    """Fit σ² = a² s² + c² per kind, and the conformal factor on the random stream.

    Parameters
    ----------
    spread, error
        n rows: predictions of a committee made **before** it trained on these labels, and how wrong they were.
        Rows whose error is nan (no label, or zero by symmetry) are left out of their kind.
    stream
        (n,) boolean: rows drawn at random before any filter; the only ones that the conformal factor may use
    blocks
        (n,) labels; rows of one block (the same structure again, frames of one trajectory) are not independent and
        count once. None: every row is its own block
    previous
        the last calibration: its a replaces the centre of the prior (kept between 1 and 5), since how much members
        share changes slowly; c follows the errors, which shrink from round to round
    kinds
        kinds that the theory labels, whether or not a usable row exists yet; None: those with a usable row
    """
    in_stream = np.asarray(stream, dtype=bool).reshape(-1)
    n = len(spread)
    groups = np.arange(n) if blocks is None else np.unique(np.asarray(blocks), return_inverse=True)[1].reshape(-1)
    if not len(error) == len(in_stream) == len(groups) == n:
        raise ValueError(f"spread, error, stream and blocks need one row each per structure; spread has {n}")
    result: dict[str, KindCalibration | None] = {}
    for kind in Kind:
        s, e = spread.of(kind), error.of(kind)
        usable = np.isfinite(s) & np.isfinite(e)
        if kind not in kinds if kinds is not None else not usable.any():
            result[kind.value] = None
            continue
        before = previous.of(kind) if previous is not None else None
        centre = PRIOR_A if before is None else float(np.clip(before.a, 1.0, 5.0))
        result[kind.value] = _fit_kind(kind, s[usable], e[usable], in_stream[usable], groups[usable], centre)
    return Calibration(**result)


def _fit_kind(
    kind: Kind,
    s: NDArray[np.float64],
    e: NDArray[np.float64],
    stream: NDArray[np.bool_],
    groups: NDArray[np.int64],
    prior_a: float,
) -> KindCalibration:
    floor = _SMALLEST[kind]
    if len(e) == 0:
        return KindCalibration(a=prior_a, c=floor, shape=_PRIOR_SHAPE[kind], q90=None, n_fit=0, n_conformal=0)
    a, c = _fit_affine(s, e, prior_a, floor)
    q90, n_blocks = _conformal_factor(s, e, stream, groups, prior_a, floor, (a, c))
    shape = _fit_shape(np.square(e / np.hypot(a * s, c)), _PRIOR_SHAPE[kind])
    return KindCalibration(a=a, c=c, shape=shape, q90=q90, n_fit=len(e), n_conformal=n_blocks)


def _fit_affine(
    s: NDArray[np.float64],
    e: NDArray[np.float64],
    prior_a: float,
    floor: float,
    near: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Maximise the penalised likelihood of (a, c); half-normal, see the module for why that serves every shape."""
    s2, e2 = np.square(s), np.square(e)
    scale = max(math.sqrt(e2.mean()), floor)
    centre = np.array([math.log(prior_a), math.log(0.5 * scale)])

    def objective(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        a2, c2 = np.exp(2.0 * x)
        variance = a2 * s2 + c2
        away = (x - centre) / PRIOR_WIDTH
        value = 0.5 * float(np.sum(np.log(variance) + e2 / variance)) + 0.5 * float(away @ away)
        slope = (1.0 - e2 / variance) / variance
        return value, np.array([a2 * (slope @ s2), c2 * slope.sum()]) + away / PRIOR_WIDTH

    # the likelihood can have two maxima; a fit to nearly the same rows starts at theirs
    starts = centre + np.array([[0.0, 0.0], [1.0, -2.0], [-1.0, 0.7]]) if near is None else np.log([near])
    bounds = [(math.log(1e-2), math.log(1e2)), (math.log(floor), math.log(max(10.0 * scale, 2.0 * floor)))]
    lows, highs = np.array(bounds).T
    fits = [
        optimize.minimize(objective, np.clip(start, lows, highs), jac=True, method="L-BFGS-B", bounds=bounds)
        for start in starts
    ]
    best = min(fits, key=lambda fit: float(fit.fun))
    return float(np.exp(best.x[0])), float(np.exp(best.x[1]))


def _fit_shape(squared: NDArray[np.float64], prior: float) -> float:
    """Shape m of Gamma(m, 1/m) for squared standardised errors, by penalised likelihood."""
    n = len(squared)
    mean, log_mean = float(squared.mean()), float(np.log(np.maximum(squared, 1e-12)).mean())

    def objective(log_m: float) -> float:
        m = math.exp(log_m)
        likelihood = n * (m * log_m - float(special.gammaln(m)) + (m - 1.0) * log_mean - m * mean)
        return -likelihood + 0.5 * ((log_m - math.log(prior)) / PRIOR_WIDTH) ** 2

    found = optimize.minimize_scalar(objective, bounds=(math.log(0.1), math.log(50.0)), method="bounded")
    return math.exp(float(found.x))


def _conformal_factor(
    s: NDArray[np.float64],
    e: NDArray[np.float64],
    stream: NDArray[np.bool_],
    groups: NDArray[np.int64],
    prior_a: float,
    floor: float,
    whole: tuple[float, float],
) -> tuple[float | None, int]:
    """Quantile of e/σ over the stream, every block weighing the same, with one more at infinity.

    Blocks: Lee, Barber and Willett, "Distribution-free inference with hierarchical data" (2023). σ of a row comes
    from a fit without its block (cross-conformal), else the few stream rows would be judged by themselves.
    """
    own = np.unique(groups[stream])
    n_blocks = len(own)
    if math.ceil(INTERVAL * (n_blocks + 1)) > n_blocks:
        return None, n_blocks
    score = np.full(len(e), np.nan)
    fold_of = np.full(int(groups.max()) + 1, -1)
    fold_of[own] = np.arange(n_blocks) % _FOLDS
    folds = fold_of[groups]
    for fold in range(min(_FOLDS, n_blocks)):
        left_out = folds == fold
        a, c = _fit_affine(s[~left_out], e[~left_out], prior_a, floor, whole)
        score[left_out] = e[left_out] / np.hypot(a * s[left_out], c)
    rows = np.flatnonzero(stream)
    _, inverse, counts = np.unique(groups[rows], return_inverse=True, return_counts=True)
    weights = 1.0 / counts[inverse.reshape(-1)]
    order = np.argsort(score[rows])
    reached = np.cumsum(weights[order]) / (n_blocks + 1)
    return float(score[rows][order][np.searchsorted(reached, INTERVAL - 1e-12)]), n_blocks
