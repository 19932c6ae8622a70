"""One look for every figure: inline SVG in a colour-blind safe palette that follows the page's light or dark scheme."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from alflow.ledger import Stream
from alflow.report._data import Fate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Figures are drawn with the light colours; in the page each of them is replaced by the style sheet's variable of that
# name, so that one SVG reads in light and dark. The hues are Okabe and Ito's.
INK, MUTED, GRID = "#1c2430", "#64707f", "#dfe3e8"
LABELLED, STABLE, RANDOM, REJECTED = "#0072b2", "#009e73", "#e69f00", "#d55e00"
DUPLICATE, REUSED, POOLED, FAILED, QUEUED = "#cc79a7", "#56b4e9", "#a3adb8", "#7a5230", "#5d6bb8"
PAPER = "#fefefe"

VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        INK: "ink",
        MUTED: "muted",
        GRID: "grid",
        LABELLED: "labelled",
        STABLE: "stable",
        RANDOM: "random",
        REJECTED: "rejected",
        DUPLICATE: "duplicate",
        REUSED: "reused",
        POOLED: "pooled",
        FAILED: "failed",
        QUEUED: "queued",
        PAPER: "paper",
    }
)
FATE_COLOURS: Mapping[Fate, str] = MappingProxyType(
    {
        Fate.LABELLED: LABELLED,
        Fate.REUSED: REUSED,
        Fate.DUPLICATE: DUPLICATE,
        Fate.REJECTED: REJECTED,
        Fate.POOLED: POOLED,
        Fate.QUEUED: QUEUED,
        Fate.FAILED: FAILED,
    }
)
STREAM_COLOURS: Mapping[Stream, str] = MappingProxyType(
    {
        Stream.DESIGN: POOLED,
        Stream.ACTIVE: LABELLED,
        Stream.RANDOM: RANDOM,
        Stream.CONFIRM: STABLE,
        Stream.DELIBERATE: QUEUED,
        Stream.IMPORTED: REUSED,
        Stream.MANUAL: DUPLICATE,
    }
)
_ENLARGED = 1.34
_DOTS_PER_INCH = 130
"""Pixels per point: a page is read at arm's length, and shows 10 points as 13 pixels."""
MANY_POINTS = 3000
"""Above this a scatter is stored as an image within the SVG: a browser would crawl."""

_RC: Any = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9.0,
    "axes.labelsize": 9.5,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.9,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """Give a figure of that size in inches with the report's look; nothing of pyplot's global state is touched."""
    with mpl.rc_context(_RC):
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(made)
        yield made


def to_svg(made: Figure, name: str, *, label: str, titles: Mapping[str, Sequence[str]] | None = None) -> Markup:
    """Turn a figure into SVG to stand within the page.

    Parameters
    ----------
    made
        the figure, drawn inside :func:`figure`
    name
        unique within the page; every id in the SVG begins with it
    label
        what a screen reader says
    titles
        per scatter (its ``gid``), one text per point that appears when the pointer rests on it
    """
    buffer = io.StringIO()
    with mpl.rc_context({**_RC, "svg.hashsalt": name}):
        made.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for gid, texts in (titles or {}).items():
        text = _add_titles(text, gid, texts)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    width = re.search(r'viewBox="0 0 ([\d.]+) ', text)
    assert width is not None, "matplotlib writes a viewBox"
    style = f"max-width: {_ENLARGED * float(width[1]):.0f}px"
    head = f'<svg role="img" aria-label="{html.escape(label, quote=True)}" style="{style}" '
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    return Markup(text.replace("<svg ", head, 1))  # noqa: S704  matplotlib escapes its texts, and titles are escaped above


def to_png(made: Figure) -> bytes:
    """Turn a figure into an image on light paper."""
    buffer = io.BytesIO()
    with mpl.rc_context(_RC):
        made.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor=PAPER)
    return buffer.getvalue()


def _add_titles(svg: str, gid: str, titles: Sequence[str]) -> str:
    """Give the points of one scatter a text each; matplotlib writes one ``use`` element per point, in order."""
    start = svg.find(f'<g id="{gid}">')
    if start < 0:
        return svg
    end = _end_of_group(svg, start)
    remaining = iter(titles)

    def add(match: re.Match[str]) -> str:
        title = next(remaining, None)
        return match[0] if title is None else f"{match[1]}><title>{html.escape(title)}</title></use>"

    return svg[:start] + re.sub(r"(<use [^>]*?)/>", add, svg[start:end]) + svg[end:]


def _end_of_group(svg: str, start: int) -> int:
    depth = 0
    for match in re.finditer(r"<g[ >]|</g>", svg[start:]):
        depth += -1 if match[0] == "</g>" else 1
        if depth == 0:
            return start + match.end()
    return len(svg)


def plain_log(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Logarithmic axes with plain numbers (0.1, 1, 10) in place of powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for wanted, axis, scale, limits in (
        (x, axes.xaxis, axes.set_xscale, axes.get_xlim),
        (y, axes.yaxis, axes.set_yscale, axes.get_ylim),
    ):
        if wanted:
            scale("log")
            low, high = limits()
            ratio = high / max(low, 1e-300)
            subs = (1.0, 2.0, 5.0) if ratio < 30 else (1.0, 3.0) if ratio < 300 else (1.0,)
            axis.set_major_locator(LogLocator(base=10, subs=subs))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def pretty_formula(formula: str) -> str:
    """Formula with subscripts, ``Ni3Pt`` → ``Ni₃Pt``."""
    return formula.translate(_SUBSCRIPTS)
