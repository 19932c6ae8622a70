"""The report in short: Markdown and one image, for places that show no page, such as the artifacts of a flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alflow.ledger import CampaignState
from alflow.report._data import Compound, Fate, ReportData
from alflow.report._findings import with_findings
from alflow.report._gather import gather
from alflow.report._learning import coverage_lines, learning_png
from alflow.report._numbers import milli, spent
from alflow.report._style import pretty_formula

if TYPE_CHECKING:
    from alflow.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class CampaignSummary:
    """A campaign in short.

    ``findings`` is Markdown; ``learning_curve`` a PNG image, None before predictions could be compared with labels.
    """

    findings: str
    learning_curve: bytes | None


def summarise(ledger: Ledger, campaign: str | int) -> CampaignSummary:
    """Summarise a campaign from its ledger alone.

    Raises
    ------
    NotFoundError
        if the ledger holds no such campaign
    """
    data = with_findings(gather(ledger, campaign))
    return CampaignSummary(findings="\n".join(_markdown(data)) + "\n", learning_curve=learning_png(data))


def _markdown(data: ReportData) -> Iterator[str]:
    yield f"# {_plain(data.name)}: {data.state}"
    yield ""
    if data.goal:
        yield f"*{_plain(data.goal)}*"
        yield ""
    if data.reason and data.state != CampaignState.ACTIVE:
        yield f"{_plain(data.reason)}"
        yield ""
    yield from _compounds(data)
    yield "## What it cost"
    yield ""
    avoided = sum(flow.fates.get(Fate.DUPLICATE, 0) for flow in data.flows)
    yield from _table(
        ("spent on", "spent", "limit"),
        [
            *(
                (
                    line.name,
                    spent(line.spent, line.unit),
                    "none" if line.limit is None else spent(line.limit, line.unit),
                )
                for line in data.budget
            ),
            ("duplicates avoided", str(avoided), ""),
            ("labels reused", str(data.n_reused), ""),
        ],
    )
    coverage = coverage_lines(data)
    if coverage:
        yield "## Are its intervals honest?"
        yield ""
        yield from _table(
            ("kind", "inside the 90 % interval", "share"),
            [(kind, f"{hits} of {n}", f"{100 * share:.0f} %") for kind, hits, n, share in coverage],
        )
    if data.findings:
        yield "## Worth your attention"
        yield ""
        for finding in data.findings:
            yield f"- **{_plain(finding.title)}.** {_plain(finding.text)} {_plain(finding.suggestion)}"
        yield ""
    yield f"Written {data.written} by alflow {data.version}. `alflow report` draws all of it."


def _compounds(data: ReportData) -> Iterator[str]:
    if data.hull is None:
        return
    shown: Sequence[Compound] = [c for c in data.hull.compounds if c.confirmed and max(c.fractions) < 1]
    yield "## Stable compounds"
    yield ""
    if not shown:
        yield "None is confirmed yet: a compound counts with a label at its relaxed geometry."
        yield ""
        return
    yield from _table(
        ("compound", "space group", "formation energy, meV/atom", "P(stable)", "candidate"),
        [
            (
                pretty_formula(c.formula),
                c.space_group,
                milli(c.formation),
                "–" if c.p_stable is None else f"{c.p_stable:.2f}",
                "–" if c.candidate_id is None else str(c.candidate_id),
            )
            for c in shown
        ],
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(_plain(cell) for cell in row)} |"
    yield ""


_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\*_[]<>|#"})


def _plain(text: str) -> str:
    """Escape what Markdown or HTML would take as its own; code between backticks stays."""
    parts = " ".join(text.split()).split("`")
    return "`".join(part.translate(_MARKS) if i % 2 == 0 else part for i, part in enumerate(parts))
