r"""Turn the spread of a committee into an honest error.

**Model.** For each kind the expected error of a structure with spread s is :math:`\sigma^2 = a^2 s^2 + c^2`: members
share data and architecture, so they miss a common error (a > 1) and never know it is there (c > 0).
Errors are magnitudes (largest atom, Frobenius norm), for which a Gaussian is wrong in shape. They are taken as
Nakagami distributed: :math:`e^2 \sim \mathrm{Gamma}(m, \sigma^2/m)`, which is the half-normal for m = 1/2 (a scalar
error such as the energy), the Maxwell distribution for m = 3/2 (one force vector) and narrower for a largest of many.
Because the Gamma family is a linear exponential one, the likelihood of (a, c) does not depend on m, and it is
consistent for :math:`E[e^2\,|\,s]` whatever the true shape (Gourieroux, Monfort and Trognon,
Econometrica 52, 681, 1984).

**Far from the data** members may agree on the same wrong answer. A structure further from the training atoms
(distance D, :mod:`alflow.potentials._distance`) than 95 % of the rows has an error of at least
:math:`b\,(D^2 - D_{95}^2) / D_{95}`, with b the error per distance over all rows,
:math:`b^2 = \langle e^2 / D^2 \rangle`: the larger of the two counts. Among the data, where spreads rank errors better
than distances do, it changes nothing.

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
from alflow.potentials._uncertainty import FORCE_ZERO, STRESS_ZERO, WITHIN, Errors, Spreads

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

VERSION = 2
"""Of the stored form; version 1 knew no distances."""
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
    b
        error per distance, in the kind's unit; 0: distances are not used
    reach
        distance up to which spreads are trusted
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
    b: float = 0.0
    reach: float = 1.0

    @property
    def interval_factor(self) -> float:
        """Half-width of the 90 % interval in units of σ: conformal where there is one, else from the model."""
        if self.q90 is not None:
            return self.q90
        quantile = math.sqrt(stats.gamma.ppf(INTERVAL, self.shape, scale=1.0 / self.shape))
        level = 0.5 * (1.0 + INTERVAL)
        return float(quantile * stats.t.ppf(level, self.n_fit + PRIOR_ROWS) / stats.norm.ppf(level))

    def sigma(self, spread: ArrayLike, distance: ArrayLike = np.nan) -> NDArray[np.float64]:
        """Expected error for spreads and distances of any shape, in the kind's unit; an unknown distance is nan."""
        sigma: NDArray[np.float64] = np.hypot(self.a * np.asarray(spread, dtype=np.float64), self.c)
        # not fmax: what was not predicted stays nan, also far from the data
        return np.maximum(sigma, self.b * _beyond(np.asarray(distance, dtype=np.float64), self.reach))


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
                values[kind.value] = np.where(s < _ZERO_SPREAD[kind], 0.0, found.sigma(s, spread.distances))
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
        return {
            "version": VERSION,
            **{kind.value: None if (k := self.of(kind)) is None else asdict(k) for kind in Kind},
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Calibration:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        ValueError
            if the content was written by a newer alflow
        """
        if content.get("version") not in range(1, VERSION + 1):
            raise ValueError(
                f"calibration of version {content.get('version')}; "
                f"this alflow reads versions up to {VERSION}: upgrade it"
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
        usable = np.isfinite(spread.of(kind)) & np.isfinite(error.of(kind))
        if kind not in kinds if kinds is not None else not usable.any():
            result[kind.value] = None
            continue
        before = previous.of(kind) if previous is not None else None
        centre = PRIOR_A if before is None else float(np.clip(before.a, 1.0, 5.0))
        rows = _Rows(
            spread=spread.of(kind)[usable],
            error=error.of(kind)[usable],
            distance=spread.distances[usable],
            stream=in_stream[usable],
            groups=groups[usable],
        )
        result[kind.value] = _fit_kind(kind, rows, centre)
    return Calibration(**result)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """Usable rows of one kind."""

    spread: NDArray[np.float64]
    error: NDArray[np.float64]
    distance: NDArray[np.float64]
    stream: NDArray[np.bool_]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.error)


def _fit_kind(kind: Kind, rows: _Rows, prior_a: float) -> KindCalibration:
    floor = _SMALLEST[kind]
    if len(rows) == 0:
        return KindCalibration(a=prior_a, c=floor, shape=_PRIOR_SHAPE[kind], q90=None, n_fit=0, n_conformal=0)
    a, c = _fit_affine(rows.spread, rows.error, prior_a, floor)
    b, reach = _fit_distance(rows.distance, rows.error, floor)
    far = b * _beyond(rows.distance, reach)
    q90, n_blocks = _conformal_factor(rows, far, prior_a, floor, (a, c))
    sigma = np.maximum(np.hypot(a * rows.spread, c), far)
    shape = _fit_shape(np.square(rows.error / sigma), _PRIOR_SHAPE[kind])
    return KindCalibration(a=a, c=c, shape=shape, q90=q90, n_fit=len(rows), n_conformal=n_blocks, b=b, reach=reach)


def _beyond(distance: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """(D² - reach²) / reach, zero within the reach and where the distance is not known.

    Quadratic, for errors grow faster than distances: 4, 5 and 70 times for energies, forces and stresses at three times
    the distance (89 elements, crystals under a megabar, a committee that has seen none).
    """
    beyond: NDArray[np.float64] = np.fmax(np.square(distance) - reach**2, 0.0) / reach
    return beyond


def _fit_distance(distance: NDArray[np.float64], e: NDArray[np.float64], floor: float) -> tuple[float, float]:
    """Error per distance b, and the distance up to which spreads are trusted: at least that of the training set."""
    known = np.isfinite(distance)
    if not known.any():
        return 0.0, 1.0
    d = np.maximum(distance[known], 0.5)  # nearer than half of the training set there is nothing to gain
    slope = math.sqrt(float(np.mean(np.square(e[known] / d))))
    return max(slope, floor), max(1.0, float(np.quantile(distance[known], WITHIN)))


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
    rows: _Rows, far: NDArray[np.float64], prior_a: float, floor: float, whole: tuple[float, float]
) -> tuple[float | None, int]:
    """Quantile of e/σ over the stream, every block weighing the same, with one more at infinity.

    Blocks: Lee, Barber and Willett, "Distribution-free inference with hierarchical data" (2023). The spread's part of σ
    of a row comes from a fit without its block (cross-conformal), else the few stream rows would be judged by
    themselves; `far` is the part of the distance.
    """
    s, e, groups = rows.spread, rows.error, rows.groups
    own = np.unique(groups[rows.stream])
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
        score[left_out] = e[left_out] / np.maximum(np.hypot(a * s[left_out], c), far[left_out])
    chosen = np.flatnonzero(rows.stream)
    _, inverse, counts = np.unique(groups[chosen], return_inverse=True, return_counts=True)
    weights = 1.0 / counts[inverse.reshape(-1)]
    order = np.argsort(score[chosen])
    reached = np.cumsum(weights[order]) / (n_blocks + 1)
    return float(score[chosen][order][np.searchsorted(reached, INTERVAL - 1e-12)]), n_blocks
