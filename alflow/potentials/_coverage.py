"""How well a calibration did on structures it had not seen, and when its intervals stopped holding."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special, stats

from alflow.potentials._calibration import INTERVAL, Calibration, KindCalibration
from alflow.potentials._targets import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._uncertainty import Errors, Spreads


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How well a calibration did on rows that it had not seen; None where there are too few rows.

    Parameters
    ----------
    n
        rows with a label
    coverage90
        share of errors inside the 90 % interval
    ence
        expected normalised calibration error over equally filled bins: mean of ``|rms σ - rms e| / rms σ``
    spearman
        rank correlation of σ and error
    nll
        mean negative log-likelihood per row
    nll_constant
        the same for the best constant σ, chosen with hindsight on these very rows
    """

    n: int
    coverage90: float | None
    ence: float | None
    spearman: float | None
    nll: float | None
    nll_constant: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return asdict(self)


def coverage(
    calibration: Calibration, spread: Spreads, error: Errors, *, n_bins: int = 10, min_rows: int = 5
) -> dict[Kind, Coverage]:
    """Judge a calibration per kind on n rows it has not seen; kinds without calibration are left out.

    Parameters
    ----------
    n_bins
        bins of the ENCE (Levi et al., Sensors 22, 5540, 2022); it needs two rows per bin
    min_rows
        fewer usable rows give None for everything but the number
    """
    judged = {}
    for kind in Kind:
        found = calibration.of(kind)
        if found is None:
            continue
        s, e = spread.of(kind), error.of(kind)
        usable = np.isfinite(s) & np.isfinite(e)
        judged[kind] = _judge(found, found.sigma(s[usable], spread.distances[usable]), e[usable], n_bins, min_rows)
    return judged


def _judge(
    found: KindCalibration, sigma: NDArray[np.float64], e: NDArray[np.float64], n_bins: int, min_rows: int
) -> Coverage:
    n = len(e)
    if n < max(min_rows, 1):
        return Coverage(n=n, coverage90=None, ence=None, spearman=None, nll=None, nll_constant=None)
    ence = None
    if n >= 2 * n_bins:
        bins = np.array_split(np.argsort(sigma, kind="stable"), n_bins)
        rms_sigma = np.array([math.sqrt(np.square(sigma[b]).mean()) for b in bins])
        rms_error = np.array([math.sqrt(np.square(e[b]).mean()) for b in bins])
        ence = float(np.mean(np.abs(rms_sigma - rms_error) / rms_sigma))
    constant = np.full(n, math.sqrt(np.square(e).mean()) or np.finfo(float).tiny)
    return Coverage(
        n=n,
        coverage90=float(np.mean(e <= found.interval_factor * sigma)),
        ence=ence,
        spearman=rank_correlation(sigma, e),
        nll=_nakagami_nll(sigma, e, found.shape),
        nll_constant=_nakagami_nll(constant, e, found.shape),
    )


def rank_correlation(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation of expected and found errors; None where it has no meaning."""
    if len(found) < 3 or np.ptp(expected) == 0 or np.ptp(found) == 0:
        return None
    return float(stats.spearmanr(expected, found).statistic)


def _nakagami_nll(sigma: NDArray[np.float64], e: NDArray[np.float64], m: float) -> float:
    magnitude = np.maximum(e, 1e-12)
    density = (
        math.log(2.0)
        + m * math.log(m)
        - float(special.gammaln(m))
        + (2.0 * m - 1.0) * np.log(magnitude)
        - 2.0 * m * np.log(sigma)
        - m * np.square(e / sigma)
    )
    return float(-density.mean())


def drift_warning(judged: dict[Kind, Coverage], *, level: float = 0.01) -> str | None:
    """Say in a sentence that intervals stopped covering what they promise, or None.

    A two-sided exact binomial test of the covered rows against 90 %, split over the kinds (Bonferroni).

    Parameters
    ----------
    judged
        coverage on prospective rows of the random stream
    level
        rate of false warnings
    """
    complaints = []
    for kind, found in judged.items():
        if found.coverage90 is None:
            continue
        covered = round(found.coverage90 * found.n)
        if stats.binomtest(covered, found.n, INTERVAL).pvalue < level / len(judged):
            which = "too narrow" if found.coverage90 < INTERVAL else "too wide"
            complaints.append(f"{kind} intervals are {which}: {covered} of {found.n} errors inside, expected 90 %")
    return "; ".join(complaints) or None
