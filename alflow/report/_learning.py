"""Figures about the committee: what it learnt, how well it predicts, and whether its errors are honest."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from scipy import stats

from alflow.ledger import Stream
from alflow.potentials import Kind
from alflow.report._data import Judged, ReportData
from alflow.report._style import (
    GRID,
    INK,
    LABELLED,
    MANY_POINTS,
    MUTED,
    RANDOM,
    REJECTED,
    STREAM_COLOURS,
    figure,
    plain_log,
    pretty_formula,
    to_png,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOMINAL = 0.9
POOLED_ROUNDS = 3
"""The random stream gives about one label a round: a single one says nothing, so neighbours are taken together."""
_TITLES = {Kind.ENERGY: "Energy", Kind.FORCE: "Largest force", Kind.STRESS: "Stress"}
_UNITS = {Kind.ENERGY: "meV/atom", Kind.FORCE: "meV/Å", Kind.STRESS: "meV/Å³"}
_SCALE = 1e3
_PANEL = 3.47


def coverage_bounds(hits: int, n: int, level: float = 0.9) -> tuple[float, float]:
    """Clopper-Pearson interval of a fraction: ``hits`` of ``n``, two-sided at ``level``."""
    tail = 0.5 * (1 - level)
    low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(stats.beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def errors_of(rows: Sequence[Judged], kind: Kind) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Actual errors of one kind, in its unit; rows without one left out."""
    return np.array([row.error[kind] for row in rows if kind in row.error], dtype=np.float64)


def judged_of(rows: Sequence[Judged], kind: Kind) -> list[Judged]:
    """Rows that say whether stated errors of one kind are honest: those with an actual error and a stated one above 0.

    σ = 0 is stated where the quantity vanishes by symmetry: there is no interval to lie inside of, only rounding.
    """
    return [row for row in rows if kind in row.error and kind in row.interval and row.sigma.get(kind, 0.0) > 0]


def hits_of(rows: Sequence[Judged], kind: Kind) -> tuple[int, int]:
    """How many actual errors lie inside their 90 % interval, and of how many; see :func:`judged_of`."""
    inside = [row.error[kind] <= row.interval[kind] for row in judged_of(rows, kind)]
    return sum(inside), len(inside)


def coverage_lines(data: ReportData) -> list[tuple[str, int, int, float]]:
    """Per kind: its name, how many labels lay inside their 90 % interval, of how many, and the share."""
    lines = []
    for kind in Kind:
        hits, n = hits_of(data.judged, kind)
        if n:
            lines.append((str(kind), hits, n, hits / n))
    return lines


def judged_kinds(data: ReportData) -> list[Kind]:
    """Kinds for which a prediction was compared with a label; a theory need not have all of them."""
    return [kind for kind in Kind if any(kind in row.error for row in data.judged)]


def learning_figure(data: ReportData) -> Markup | None:
    """Errors of predictions made before the label was known, and coverage of their intervals, against labels."""
    kinds = judged_kinds(data)
    if not kinds:
        return None
    with figure(_PANEL * len(kinds), 5.0) as made:
        _draw_learning(made, data, kinds)
        return to_svg(made, "learning", label="Prospective errors and coverage against the number of labels")


def learning_png(data: ReportData) -> bytes | None:
    """Draw the same as an image, for places that show no SVG."""
    kinds = judged_kinds(data)
    if not kinds:
        return None
    with figure(_PANEL * len(kinds), 5.0) as made:
        _draw_learning(made, data, kinds)
        return to_png(made)


def _draw_learning(made: Figure, data: ReportData, kinds: Sequence[Kind]) -> None:
    rounds: dict[int, list[Judged]] = defaultdict(list)
    for row in data.judged:
        rounds[row.round_index].append(row)
    panels = made.subplots(2, len(kinds), sharex=True, height_ratios=(1.6, 1), squeeze=False)
    for column, kind in enumerate(kinds):
        top, bottom = panels[0, column], panels[1, column]
        top.set_title(_TITLES[kind])
        _learning_panel(top, rounds, kind, data.targets[kind])
        _coverage_panel(bottom, rounds, kind)
        bottom.set_xlabel("labels before the prediction")
        bottom.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        top.set_ylabel(f"rms error, {_UNITS[kind]}")
    panels[1, 0].set_ylabel("inside the 90 % interval")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    if handles:
        made.legend(handles, labels, loc="outside upper right", ncols=3)


def _learning_panel(axes: Axes, rounds: dict[int, list[Judged]], kind: Kind, target: float) -> None:
    groups = (
        ("whole batch", LABELLED, "o", None, 1),
        (f"random stream, last {POOLED_ROUNDS} rounds together", RANDOM, "s", Stream.RANDOM, POOLED_ROUNDS),
    )
    indices = sorted(rounds)
    for label, colour, marker, stream, window in groups:
        x, y = [], []
        for position, index in enumerate(indices):
            recent = [row for i in indices[max(0, position + 1 - window) : position + 1] for row in rounds[i]]
            errors = errors_of([row for row in recent if stream in (None, row.stream)], kind)
            if len(errors):
                x.append(rounds[index][0].n_labels)
                y.append(_SCALE * math.sqrt(float(np.square(errors).mean())))
        if x:
            axes.plot(x, y, color=colour, marker=marker, label=label, linewidth=1.7 if stream is None else 1.0)
    axes.axhline(_SCALE * target, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.1, label="target")
    axes.margins(y=0.15)
    plain_log(axes, y=True)


def _coverage_panel(axes: Axes, rounds: dict[int, list[Judged]], kind: Kind) -> None:
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 0.5, 0.9], ["0", "50 %", "90 %"])
    axes.axhline(NOMINAL, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)))
    for rows in (rounds[index] for index in sorted(rounds)):
        hits, n = hits_of(rows, kind)
        if n:
            low, high = coverage_bounds(hits, n)
            x = rows[0].n_labels
            axes.plot([x, x], [low, high], color=LABELLED, linewidth=4, alpha=0.28, solid_capstyle="round")
            axes.plot([x], [hits / n], color=LABELLED, marker="o", linestyle="none")


def parity_figure(data: ReportData) -> Markup | None:
    """Formation energy predicted before labelling against the label."""
    points = data.parity
    if len(points) < 2:
        return None
    x = _SCALE * np.array([p.labelled for p in points])
    y = _SCALE * np.array([p.predicted for p in points])
    half = _SCALE * np.array([p.interval for p in points])
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    pad = 0.06 * (high - low or 1.0)
    with figure(5.0, 4.7) as made:
        axes = made.subplots()
        axes.plot([low - pad, high + pad], [low - pad, high + pad], color=MUTED, linewidth=1.0)
        shown = np.isfinite(half)
        rasterized = len(points) > MANY_POINTS
        axes.vlines(
            x[shown], (y - half)[shown], (y + half)[shown], color=MUTED, linewidth=0.7, alpha=0.5, rasterized=rasterized
        )
        titles = {}
        for stream in Stream:
            chosen = [i for i, p in enumerate(points) if p.stream is stream]
            if not chosen:
                continue
            gid = f"parity-{stream}"
            axes.scatter(
                x[chosen],
                y[chosen],
                s=26,
                color=STREAM_COLOURS[stream],
                edgecolors="none",
                alpha=0.85,
                label=str(stream),
                gid=gid,
                zorder=3,
                rasterized=rasterized,
            )
            titles[gid] = [_parity_title(points[i].candidate_id, points[i].formula, x[i], y[i]) for i in chosen]
        axes.set_xlim(low - pad, high + pad)
        axes.set_ylim(low - pad, high + pad)
        axes.set_aspect("equal")
        axes.set_xlabel("formation energy of the label, meV/atom")
        axes.set_ylabel("predicted before labelling, meV/atom")
        axes.legend(loc="upper left", handletextpad=0.2)
        return to_svg(made, "parity", label="Predicted against labelled formation energies", titles=titles)


def _parity_title(candidate: int, formula: str, labelled: float, predicted: float) -> str:
    return f"{candidate}: {pretty_formula(formula)}, predicted {predicted:.1f}, label {labelled:.1f} meV/atom"


def calibration_figure(data: ReportData) -> Markup | None:
    """Calibrated σ against actual |error|, per kind, with the line under which 90 % should lie."""
    kinds = [kind for kind in Kind if judged_of(data.judged, kind)]
    if not kinds:
        return None
    with figure(_PANEL * len(kinds), 3.7) as made:
        for axes, kind in zip(made.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
            _calibration_panel(axes, data, kind)
        return to_svg(made, "calibration", label="Calibrated error against actual error")


def _calibration_panel(axes: Axes, data: ReportData, kind: Kind) -> None:
    rows = judged_of(data.judged, kind)
    sigma = _SCALE * np.array([r.sigma[kind] for r in rows])
    error = _SCALE * np.array([r.error[kind] for r in rows])
    inside = np.array([r.error[kind] <= r.interval[kind] for r in rows])
    floor = max(1e-3 * float(np.median(sigma)), 1e-6)  # an error of exactly zero has no place on a logarithmic axis
    error = np.maximum(error, floor)
    rasterized = len(rows) > MANY_POINTS
    for chosen, colour, marker in ((inside, LABELLED, "o"), (~inside, REJECTED, "D")):
        axes.scatter(
            sigma[chosen],
            error[chosen],
            s=16,
            marker=marker,
            color=colour,
            alpha=0.75,
            edgecolors="none",
            zorder=3,
            rasterized=rasterized,
        )
    low, high = float(sigma.min()) / 1.5, float(sigma.max()) * 1.5
    line = np.array([low, high])
    latest = max(rows, key=lambda r: r.round_index)
    axes.plot(line, line, color=INK, linewidth=1.2)
    axes.plot(line, line * latest.interval[kind] / latest.sigma[kind], color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.fill_between(
        line, floor, line * latest.interval[kind] / latest.sigma[kind], color=GRID, alpha=0.45, linewidth=0
    )
    axes.axvline(_SCALE * data.targets[kind], color=MUTED, linewidth=0.9, linestyle=":")
    axes.set_xlim(low, high)
    axes.set_ylim(max(floor, float(np.quantile(error, 0.02)) / 2), max(float(error.max()), high) * 1.6)
    plain_log(axes, x=True, y=True)
    hits, n = hits_of(rows, kind)
    axes.set_title(f"{_TITLES[kind]}: {hits}/{n} inside ({100 * hits / n:.0f} %)")
    axes.set_xlabel(f"stated error σ, {_UNITS[kind]}")
    axes.set_ylabel(f"actual |error|, {_UNITS[kind]}")
