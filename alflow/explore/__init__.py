"""Exploration: sources that propose candidates, batched relaxation and dynamics with a committee, physical filters.

A source takes a committee and structures to start from and gives structures; nothing here knows the ledger.
"""

from alflow.explore._derivative import Orderings, Parent, enumerate_orderings
from alflow.explore._enumerate import EnumerateSource
from alflow.explore._perturb import PerturbSource
from alflow.explore._prototypes import PROTOTYPES, Lattice, elemental_volume, prototype
from alflow.explore._round0 import round0
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
    "PROTOTYPES",
    "AnySourceSettings",
    "DynamicsSettings",
    "EnumerateSettings",
    "EnumerateSource",
    "ExploreContext",
    "ExploreSettings",
    "FilesSettings",
    "FilterSettings",
    "Lattice",
    "Orderings",
    "Parent",
    "PerturbSettings",
    "PerturbSource",
    "Progress",
    "Proposal",
    "RelaxSettings",
    "Round0Settings",
    "Source",
    "SourceSettings",
    "elemental_volume",
    "enumerate_orderings",
    "prototype",
    "round0",
]
