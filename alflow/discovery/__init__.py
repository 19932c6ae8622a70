"""Which compounds are stable, and how sure that is: convex hulls over labelled and predicted energies."""

from alflow.discovery._lower_hull import hull_energies, lower_envelope
from alflow.discovery._snapshot import HullSnapshot, build_hull, phase_diagram
from alflow.discovery._stability import (
    DiscoverySettings,
    RelaxedLabel,
    StabilityReport,
    StableCompound,
    confirmation_order,
    report_stable,
)

__all__ = [
    "DiscoverySettings",
    "HullSnapshot",
    "RelaxedLabel",
    "StabilityReport",
    "StableCompound",
    "build_hull",
    "confirmation_order",
    "hull_energies",
    "lower_envelope",
    "phase_diagram",
    "report_stable",
]
