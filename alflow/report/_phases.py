"""Figures of the phase diagram: formation energy against composition for two elements, a triangle for three."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap

from alflow.ledger import CandidateState
from alflow.report._data import Compound, Hull, HullPoint
from alflow.report._style import (
    FAILED,
    GRID,
    INK,
    LABELLED,
    MANY_POINTS,
    MUTED,
    PAPER,
    POOLED,
    QUEUED,
    STABLE,
    figure,
    pretty_formula,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DEPTH = LinearSegmentedColormap.from_list("depth", ["#0073b3", "#56b4e8", "#f0e442"])
"""Distance to the hull: blue on it, yellow far above; no end vanishes on a dark or a light page."""
_SCALE = 1e3
_ON_LINE = 1e-6
"""eV/atom: the line is the hull itself, whatever tolerance a compound is granted."""
_CEILING = 0.12
"""eV/atom above the end members up to which the figure always looks; what lies higher is counted in the caption."""


def ceiling(hull: Hull) -> float:
    """Formation energy in eV/atom at which the binary figure ends: deep hulls get proportionally more air."""
    depth = -min((c.formation for c in hull.compounds), default=0.0)
    return max(_CEILING, 0.6 * depth)


def hull_figure(hull: Hull) -> Markup | None:
    """Draw the phase diagram; None for one element or more than three."""
    if len(hull.elements) == 2:
        return _binary(hull)
    if len(hull.elements) == 3:
        return _ternary(hull)
    return None


def _title(point: HullPoint) -> str:
    formation = f"{_SCALE * point.formation:.1f}"
    how = "label" if point.has_label else f"predicted ± {_SCALE * point.error:.1f}"
    return f"{point.candidate_id}: {pretty_formula(point.formula)}, {formation} meV/atom ({how}), {point.state}"


def _compound_title(compound: Compound) -> str:
    remark = "confirmed" if compound.confirmed else compound.remark
    name = f"{pretty_formula(compound.formula)} {compound.space_group}"
    return f"{name}, {_SCALE * compound.formation:.1f} meV/atom, {remark}"


def _binary(hull: Hull) -> Markup:
    top = ceiling(hull)
    points = [p for p in hull.points if p.formation <= top]
    predicted = [p for p in points if not p.has_label and p.state is CandidateState.POOLED]
    waiting = [p for p in points if not p.has_label and p.state in {CandidateState.SELECTED, CandidateState.QUEUED}]
    failed = [p for p in points if p.state in {CandidateState.FAILED, CandidateState.QUARANTINED}]
    labelled = [p for p in points if p.has_label]
    with figure(10.4, 5.2) as made:
        axes = made.subplots()
        axes.axhline(0, color=MUTED, linewidth=0.8)
        titles = {}
        for name, group, colour, size, marker, order in (
            ("in the pool, predicted", predicted, POOLED, 9, "o", 2),
            ("selected or queued", waiting, QUEUED, 16, "o", 2.5),
            ("failed", failed, FAILED, 26, "x", 2.6),
            ("labelled", labelled, LABELLED, 20, "o", 3),
        ):
            if not group:
                continue
            gid = f"hull-{name.split()[0].rstrip(',')}"
            style: dict[str, Any] = {"linewidths": 1.2} if marker == "x" else {"edgecolors": "none"}
            axes.scatter(
                [p.fractions[1] for p in group],
                [_SCALE * p.formation for p in group],
                s=size,
                marker=marker,
                color=colour,
                alpha=0.8,
                label=f"{name} ({len(group)})",
                gid=gid,
                zorder=order,
                rasterized=len(group) > MANY_POINTS,
                **style,
            )
            titles[gid] = [_title(p) for p in group]
        _draw_vertices(axes, hull, titles)
        lowest = _SCALE * min([p.formation for p in points] + [c.formation for c in hull.compounds] + [0.0])
        room = 0.1 * (_SCALE * top - lowest)  # for the name below the deepest compound
        axes.set_ylim(lowest - max(0.16 * abs(lowest), room), _SCALE * top)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], [hull.elements[0], "0.25", "0.5", "0.75", hull.elements[1]])
        axes.set_xlabel(f"atomic fraction of {hull.elements[1]}")
        axes.set_ylabel("formation energy, meV/atom")
        made.legend(loc="outside upper right", ncols=6, handletextpad=0.2, columnspacing=1.2)
        return to_svg(made, "hull", label="Formation energies and the convex hull", titles=titles)


def _draw_vertices(axes: Axes, hull: Hull, titles: dict[str, list[str]]) -> None:
    vertices = sorted(hull.compounds, key=lambda c: c.fractions[1])
    hull_line = [(c.fractions[1], _SCALE * c.formation) for c in vertices if c.e_hull < _ON_LINE]
    axes.plot([x for x, _ in hull_line], [y for _, y in hull_line], color=STABLE, linewidth=1.6, zorder=3.5)
    for name, confirmed in (("stable", True), ("unconfirmed", False)):
        group = [c for c in vertices if c.confirmed is confirmed]
        if not group:
            continue
        gid = f"hull-{name}"
        axes.scatter(
            [c.fractions[1] for c in group],
            [_SCALE * c.formation for c in group],
            s=62,
            marker="D",
            facecolors=STABLE if confirmed else PAPER,
            edgecolors=STABLE if not confirmed else PAPER,
            linewidths=1.3,
            zorder=5,
            gid=gid,
            label="stable" if confirmed else "on the hull, not confirmed",
        )
        titles[gid] = [_compound_title(c) for c in group]
    for compound in vertices:
        if 0 < compound.fractions[1] < 1:
            axes.annotate(
                pretty_formula(compound.formula),
                (compound.fractions[1], _SCALE * compound.formation),
                xytext=(0, -11),
                textcoords="offset points",
                ha="center",
                va="top",
                fontweight="bold",
                fontsize=10.5,
            )


def _ternary(hull: Hull) -> Markup:
    def place(fractions: tuple[float, ...]) -> tuple[float, float]:
        _, b, c = fractions
        return b + 0.5 * c, 0.5 * math.sqrt(3) * c

    labelled = [p for p in hull.points if p.has_label and p.e_hull <= ceiling(hull)]
    with figure(8.0, 6.4) as made:
        axes = made.subplots()
        corners = np.array([place(f) for f in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))])
        axes.plot(corners[:, 0], corners[:, 1], color=MUTED, linewidth=1.1)
        for step in (0.25, 0.5, 0.75):
            for a, b in (
                ((step, 1 - step, 0.0), (step, 0.0, 1 - step)),
                ((1 - step, step, 0.0), (0.0, step, 1 - step)),
                ((1 - step, 0.0, step), (0.0, 1 - step, step)),
            ):
                ends = np.array([place(a), place(b)])
                axes.plot(ends[:, 0], ends[:, 1], color=GRID, linewidth=0.7)
        titles = {}
        if labelled:
            at = np.array([place(p.fractions) for p in labelled])
            depth = _SCALE * np.array([p.e_hull for p in labelled])
            drawn = axes.scatter(
                at[:, 0], at[:, 1], c=depth, cmap=_DEPTH, s=26, edgecolors="none", zorder=3, gid="hull-labelled"
            )
            titles["hull-labelled"] = [_title(p) for p in labelled]
            made.colorbar(drawn, ax=axes, shrink=0.6, label="energy above hull, meV/atom").outline.set_visible(False)
        for compound in hull.compounds:
            x, y = place(compound.fractions)
            axes.scatter(
                [x], [y], s=70, marker="D", zorder=5,
                facecolors=STABLE if compound.confirmed else PAPER, edgecolors=STABLE, linewidths=1.3,
            )  # fmt: skip
            below = y < 1e-6
            axes.annotate(
                pretty_formula(compound.formula),
                (x, y),
                xytext=(0, -11 if below else 8),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                fontweight="bold",
                color=INK,
            )
        axes.set_aspect("equal")
        axes.axis("off")
        return to_svg(made, "hull", label="Ternary phase diagram", titles=titles)
