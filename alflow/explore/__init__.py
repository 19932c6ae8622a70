"""Exploration: sources that propose candidates, batched relaxation and dynamics with a committee, physical filters.

A source takes a committee and structures to start from and gives structures; nothing here knows the ledger.
"""

from alflow.explore._settings import (
    AnySourceSettings,
    DynamicsSettings,
    EnumerateSettings,
    ExploreSettings,
    FilesSettings,
    FilterSettings,
    PerturbSettings,
    RelaxSettings,
    Round0Settings,
    SourceSettings,
)
from alflow.explore._source import ExploreContext, Progress, Proposal, Source

__all__ = [
    "AnySourceSettings",
    "DynamicsSettings",
    "EnumerateSettings",
    "ExploreContext",
    "ExploreSettings",
    "FilesSettings",
    "FilterSettings",
    "PerturbSettings",
    "Progress",
    "Proposal",
    "RelaxSettings",
    "Round0Settings",
    "Source",
    "SourceSettings",
]
