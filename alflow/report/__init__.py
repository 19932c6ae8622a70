"""The report: one self-contained page about a campaign, read from the ledger alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alflow.report._open import OpenPhase, open_phases
    from alflow.report._page import write_report
    from alflow.report._summary import CampaignSummary, summarise

__all__ = ["CampaignSummary", "OpenPhase", "open_phases", "summarise", "write_report"]


def __getattr__(name: str) -> Any:
    # matplotlib is loaded when a report is written, not when the command line starts
    if name == "write_report":
        from alflow.report._page import write_report

        return write_report
    if name in {"OpenPhase", "open_phases"}:
        from alflow.report import _open

        return getattr(_open, name)
    if name in {"CampaignSummary", "summarise"}:
        from alflow.report import _summary

        return getattr(_summary, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
