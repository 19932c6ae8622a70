"""Learning curves of a replay, and what they say about labels saved."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

_BOOTSTRAP = 2000


@dataclass(frozen=True, kw_only=True)
class Point:
    """The committee after learning from n_labels structures.

    Parameters
    ----------
    n_labels
        structures it learned from
    energy_mae
        on the test set, eV/atom
    force_mae
        of force components on the test set, eV/Å; None without force labels
    coverage
        per kind, how well the calibration did on the test set (``Coverage.to_dict``)
    cpu_seconds
        of this step
    """

    n_labels: int
    energy_mae: float
    force_mae: float | None
    coverage: dict[str, dict[str, Any]]
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Learning curve of one strategy and seed.

    Parameters
    ----------
    points
        in order of labels
    stopped
        why the strategy chose no more before the budget was spent; None otherwise
    """

    strategy: str
    seed: int
    points: tuple[Point, ...]
    stopped: str | None = None

    def labels_to_reach(self, kind: str, error: float) -> float | None:
        """Labels at which the curve first is at or below an error; None where it never is.

        The curve is first made monotone (isotonic regression of log error), which treats noise up and noise down alike,
        then interpolated between its points.
        """
        n, values = self._series(kind)
        if len(n) == 0:
            return None
        smooth = isotonic_regression(np.log(np.maximum(values, 1e-12)), increasing=False).x
        below = np.flatnonzero(smooth <= math.log(max(error, 1e-12)) + 1e-12)
        if len(below) == 0:
            return None
        at = int(below[0])
        if at == 0:
            return float(n[0])
        share = (smooth[at - 1] - math.log(max(error, 1e-12))) / (smooth[at - 1] - smooth[at])
        return float(n[at - 1] + share * (n[at] - n[at - 1]))

    def final(self, kind: str) -> float | None:
        """Error at the end of the monotone curve."""
        _, values = self._series(kind)
        if len(values) == 0:
            return None
        return float(np.exp(isotonic_regression(np.log(np.maximum(values, 1e-12)), increasing=False).x[-1]))

    def _series(self, kind: str) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
        found = [(p.n_labels, getattr(p, f"{kind}_mae")) for p in self.points]
        kept = [(n, value) for n, value in found if value is not None]
        return np.array([n for n, _ in kept], dtype=float), np.array([value for _, value in kept], dtype=float)


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Labels one strategy needs for the error that random choice has at the full budget, relative to that budget.

    Parameters
    ----------
    kind
        energy or force
    ratios
        one per seed, in order of seeds; inf where the error was not reached
    median
        over the seeds
    upper95
        one-sided 95 % bound of the median by bootstrap over the seeds; needs several seeds to mean anything
    reached
        seeds that reached the error
    """

    strategy: str
    kind: str
    ratios: tuple[float, ...]
    median: float
    upper95: float
    reached: int


@dataclass(frozen=True, kw_only=True)
class BacktestResult:
    """All learning curves of a replay.

    Parameters
    ----------
    curves
        one per strategy and seed
    settings
        what was asked for, JSON-ready
    pool
        sizes: structures to choose from, of these not redundant, structures to test on
    """

    curves: tuple[Curve, ...]
    settings: dict[str, Any]
    pool: dict[str, int]

    @property
    def strategies(self) -> tuple[str, ...]:
        """Strategies in the order they were asked for."""
        return tuple(dict.fromkeys(curve.strategy for curve in self.curves))

    def of(self, strategy: str) -> list[Curve]:
        """Curves of one strategy, in order of seeds."""
        return sorted((c for c in self.curves if c.strategy == strategy), key=lambda c: c.seed)

    def mean_curve(self, strategy: str, kind: str) -> list[tuple[int, float, float]]:
        """(labels, mean error, standard deviation over seeds) where at least one seed has a point.

        Errors in eV/atom (energy) or eV/Å (force).
        """
        found: dict[int, list[float]] = {}
        for curve in self.of(strategy):
            for point in curve.points:
                value = getattr(point, f"{kind}_mae")
                if value is not None:
                    found.setdefault(point.n_labels, []).append(value)
        return [(n, float(np.mean(v)), float(np.std(v))) for n, v in sorted(found.items())]

    def saving(self, strategy: str, kind: str, reference: str = "random") -> Saving | None:
        """Labels needed relative to the reference strategy's full budget; None where one of them has no such curve."""
        ratios = []
        for curve in self.of(strategy):
            other = next((c for c in self.of(reference) if c.seed == curve.seed), None)
            if other is None or not other.points or (goal := other.final(kind)) is None:
                continue
            reached = curve.labels_to_reach(kind, goal)
            ratios.append(math.inf if reached is None else reached / other.points[-1].n_labels)
        if not ratios:
            return None
        rng = np.random.default_rng(0)
        values = np.array(ratios)
        # inf - inf has no meaning in interpolated quantiles: take observed values only
        medians = np.quantile(rng.choice(values, (_BOOTSTRAP, len(values))), 0.5, axis=1, method="higher")
        return Saving(
            strategy=strategy,
            kind=kind,
            ratios=tuple(ratios),
            median=float(np.quantile(values, 0.5, method="higher")),
            upper95=float(np.quantile(medians, 0.95, method="higher")),
            reached=int(np.isfinite(values).sum()),
        )

    def summary(self, reference: str = "random") -> str:
        """A table for people: errors at the end, and labels needed relative to random choice."""
        sizes, seeds = self.pool, len({c.seed for c in self.curves})
        title = (
            f"{sizes['pool']} structures to choose from ({sizes['leaders']} not redundant), "
            f"tested on {sizes['test']}; {seeds} seeds"
        )
        needed = f"labels / those of {reference}"
        lines = [
            title,
            "",
            f"{'strategy':24s} {'labels':>6s} {'E MAE':>14s} {'F MAE':>14s} {needed + ', E':>26s} {'F':>20s}",
            f"{'':24s} {'':>6s} {'meV/atom':>14s} {'meV/Å':>14s} {'median (95 %)':>26s} {'median (95 %)':>20s}",
        ]
        for strategy in self.strategies:
            curves = [c for c in self.of(strategy) if c.points]
            if not curves:
                continue
            labels = round(float(np.mean([c.points[-1].n_labels for c in curves])))
            cells = [
                _mean_and_deviation([getattr(c.points[-1], f"{k}_mae") for c in curves]) for k in ("energy", "force")
            ]
            ratios = [_ratio(self.saving(strategy, kind, reference)) for kind in ("energy", "force")]
            lines.append(
                f"{strategy:24s} {labels:6d} {cells[0]:>14s} {cells[1]:>14s} {ratios[0]:>26s} {ratios[1]:>20s}"
            )
        stopped = {(c.strategy, c.stopped) for c in self.curves if c.stopped}
        lines += ["", *(f"{strategy} stopped before the budget was spent: {why}" for strategy, why in sorted(stopped))]
        return "\n".join(lines).rstrip() + "\n"

    def to_json(self, path: Path | None = None) -> str:
        """Everything as JSON text, also written to `path` where one is given."""
        text = json.dumps(asdict(self), indent=1)
        if path is not None:
            path.write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, text: str) -> BacktestResult:
        """Inverse of :meth:`to_json`."""
        content = json.loads(text)
        curves = tuple(
            Curve(**{**curve, "points": tuple(Point(**point) for point in curve["points"])})
            for curve in content["curves"]
        )
        return cls(curves=curves, settings=content["settings"], pool=content["pool"])


def _mean_and_deviation(values: Sequence[float | None]) -> str:
    known = [1000 * v for v in values if v is not None]
    if not known:
        return "–"
    return f"{np.mean(known):.1f}" + (f" ± {np.std(known, ddof=1):.1f}" if len(known) > 1 else "")


def _ratio(saving: Saving | None) -> str:
    if saving is None:
        return "–"
    if not math.isfinite(saving.median):
        return f"not reached ({saving.reached}/{len(saving.ratios)})"
    upper = f"{saving.upper95:.2f}" if math.isfinite(saving.upper95) else "∞"
    return f"{saving.median:.2f} ({upper})"
