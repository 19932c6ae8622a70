"""Exploration: sources that propose candidates, batched relaxation and dynamics with a committee, physical filters.

A source takes a committee and structures to start from and gives structures; nothing here knows the ledger.
"""

from alflow.explore._derivative import Orderings, Parent, enumerate_orderings
from alflow.explore._dynamics import Frame, Walk, WalkStop, run_dynamics
from alflow.explore._enumerate import EnumerateSource
from alflow.explore._files import FilesSource
from alflow.explore._filters import check_filters, check_filters_batch
from alflow.explore._perturb import PerturbSource
from alflow.explore._prototypes import PROTOTYPES, Lattice, elemental_volume, prototype
from alflow.explore._registry import check_source, make_source, source_names, source_settings_types
from alflow.explore._relax import Relaxed, RelaxStop, relax_batch
from alflow.explore._relaxation import RelaxSource
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
from alflow.explore._trajectories import DynamicsSource

__all__ = [
    "PROTOTYPES",
    "AnySourceSettings",
    "DynamicsSettings",
    "DynamicsSource",
    "EnumerateSettings",
    "EnumerateSource",
    "ExploreContext",
    "ExploreSettings",
    "FilesSettings",
    "FilesSource",
    "FilterSettings",
    "Frame",
    "Lattice",
    "Orderings",
    "Parent",
    "PerturbSettings",
    "PerturbSource",
    "Progress",
    "Proposal",
    "RelaxSettings",
    "RelaxSource",
    "RelaxStop",
    "Relaxed",
    "Round0Settings",
    "Source",
    "SourceSettings",
    "Walk",
    "WalkStop",
    "check_filters",
    "check_filters_batch",
    "check_source",
    "elemental_volume",
    "enumerate_orderings",
    "make_source",
    "prototype",
    "relax_batch",
    "round0",
    "run_dynamics",
    "source_names",
    "source_settings_types",
]
