"""Write the page: one HTML file without scripts and without anything from outside."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from alflow.errors import UserError
from alflow.report._data import Fate, ReportData
from alflow.report._findings import with_findings
from alflow.report._flow import flow_figure, rounds_figure
from alflow.report._gather import gather
from alflow.report._learning import calibration_figure, coverage_lines, learning_figure, parity_figure
from alflow.report._numbers import amount, milli, spent
from alflow.report._phases import ceiling, hull_figure
from alflow.report._style import FATE_COLOURS, VARIABLES, pretty_formula

if TYPE_CHECKING:
    from alflow.ledger import Ledger

_MAX_REASONS = 12
_GENERATOR = b'<meta name="generator" content="alflow '
_HEAD = 1024
"""Bytes at the beginning of a page in which its generator stands: before the title and the style."""


def write_report(ledger: Ledger, campaign: str | int, path: Path | str) -> Path:
    """Write one self-contained HTML page about a campaign.

    Parameters
    ----------
    ledger
        where the campaign lives; nothing else is read
    campaign
        name or id
    path
        the file to write; a folder gets ``<campaign>.html``. An older report is replaced at once, never half; no other
        file is

    Returns
    -------
    the file that was written

    Raises
    ------
    NotFoundError
        if the ledger holds no such campaign
    UserError
        if there is something at the path that is no report of alflow
    """
    row = ledger.campaigns.get(campaign)
    target = Path(path)
    if target.is_dir():
        safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in row.name)
        target = target / f"{safe}.html"
    _require_own(target)
    data = with_findings(gather(ledger, row.id))
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_text(render(data), encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def _require_own(path: Path) -> None:
    """Refuse to replace what this module has not written; an empty file loses nothing."""
    if not path.exists():
        return
    if not path.is_file():
        raise UserError(f"{path} is no file: name the file to write the report to")
    with path.open("rb") as file:
        beginning = file.read(_HEAD)
    if beginning and not (beginning.startswith(b"<!doctype html>") and _GENERATOR in beginning):
        raise UserError(f"{path} exists already and is no report of alflow: give the report another name, or move it")


def render(data: ReportData) -> str:
    """Turn the data into the text of the page."""
    environment = Environment(
        loader=PackageLoader("alflow.report"),
        autoescape=select_autoescape(enabled_extensions=("html", "html.j2"), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "milli": milli,
        "pretty": pretty_formula,
        "amount": amount,
        "percent": lambda share: f"{100 * share:.0f} %",
        "prose": prose,
        "spent": spent,
    }
    loader = environment.loader
    assert loader is not None
    style = Markup(loader.get_source(environment, "report.css")[0])  # noqa: S704  our own file
    return environment.get_template("report.html.j2").render(
        data=data,
        style=style,
        figures={
            "hull": None if data.hull is None else hull_figure(data.hull),
            "learning": learning_figure(data),
            "parity": parity_figure(data),
            "calibration": calibration_figure(data),
            "flow": flow_figure(data),
            "rounds": rounds_figure(data),
        },
        confirmed=[] if data.hull is None else [c for c in data.hull.compounds if c.confirmed and max(c.fractions) < 1],
        avoided=sum(flow.fates.get(Fate.DUPLICATE, 0) for flow in data.flows),
        fates={fate: VARIABLES[FATE_COLOURS[fate]] for fate in Fate},
        totals={fate: sum(flow.fates.get(fate, 0) for flow in data.flows) for fate in Fate},
        reasons=data.reasons[:_MAX_REASONS],
        n_reasons_left=max(0, len(data.reasons) - _MAX_REASONS),
        above=0 if data.hull is None else sum(1 for p in data.hull.points if p.formation > ceiling(data.hull)),
        parity=parity_numbers(data),
        coverage=coverage_lines(data),
    )


def prose(text: str) -> Markup:
    """Escape a sentence, and set what stands between backticks as code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # an odd number of backticks marks nothing
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if i % 2 else escape(piece) for i, piece in enumerate(pieces)
    )


def parity_numbers(data: ReportData) -> dict[str, float] | None:
    """Mean, root-mean-square and largest error of the predictions made before labelling, eV/atom."""
    errors = [p.predicted - p.labelled for p in data.parity]
    if not errors:
        return None
    inside = [abs(e) <= p.interval for e, p in zip(errors, data.parity, strict=True) if math.isfinite(p.interval)]
    return {
        "n": len(errors),
        "mae": sum(map(abs, errors)) / len(errors),
        "rmse": math.sqrt(sum(e * e for e in errors) / len(errors)),
        "bias": sum(errors) / len(errors),
        "largest": max(map(abs, errors)),
        "inside": sum(inside) / len(inside) if inside else math.nan,
    }
