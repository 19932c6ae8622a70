"""What a labeler can do and which physics it computes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from alflow.structures import Structure

_FINGERPRINT_VERSION = "alflow-theory-1"
_FULL_VERSION = re.compile(r"(?<![\w.])v?(\d+\.\d+)(?:\.\w+)+(?:[+-][\w.]+)?")


class Moments(StrEnum):
    """How a labeler treats initial magnetic moments.

    ``none``: it would silently ignore them, so such structures are refused. ``independent``: its energy cannot depend
    on them, as that of a classical potential. ``collinear``, ``noncollinear``: they start the calculation.
    """

    NONE = "none"
    INDEPENDENT = "independent"
    COLLINEAR = "collinear"
    NONCOLLINEAR = "noncollinear"


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a labeler can compute; anything else is refused before it costs a calculation.

    Parameters
    ----------
    elements
        element symbols it knows; None: any
    periodic_directions
        numbers of periodic directions it handles, e.g. ``{0, 3}``
    forces
        forces come with the energy
    stress
        the stress comes with the energy where all three directions are periodic
    charge
        charged structures are computed as charged
    moments
        which initial magnetic moments enter the calculation
    net_force_limit
        eV/Å: largest accepted |Σ F| / n_atoms; the net force vanishes in every code that is invariant under
        translation. None: the code is not (an external potential, an egg-box on a real-space grid)
    """

    elements: frozenset[str] | None = None
    periodic_directions: frozenset[int] = frozenset({0, 1, 2, 3})
    forces: bool = True
    stress: bool = True
    charge: bool = False
    moments: Moments = Moments.NONE
    net_force_limit: float | None = 0.01

    def refuses(self, structure: Structure) -> str | None:
        """Return the reason why the structure cannot be computed, or None."""
        if self.elements is not None:
            unknown = [element for element in structure.elements if element not in self.elements]
            if unknown:
                return f"no parameters for {', '.join(unknown)}, only for {', '.join(sorted(self.elements))}"
        if structure.n_periodic not in self.periodic_directions:
            known = ", ".join(str(n) for n in sorted(self.periodic_directions))
            return f"{structure.n_periodic} periodic directions; it handles {known}"
        if structure.charge and not self.charge:
            return f"a charge of {structure.charge:+g} e, which it would ignore"
        if structure.moments is not None:
            if self.moments is Moments.NONE:
                return "initial magnetic moments, which it would ignore"
            if structure.moments.ndim == 2 and self.moments is Moments.COLLINEAR:
                return "non-collinear magnetic moments; it handles collinear ones only"
        return None


@dataclass(frozen=True, kw_only=True)
class TheorySpec:
    """A labeler with every setting that changes the physics. Labels of two theories never mix.

    Parameters
    ----------
    labeler
        registered name of the labeler
    settings
        resolved settings as JSON values: no ``auto``, no defaults left open. With them the same labeler can be built
        again: ``get_labeler(spec.labeler, spec.settings)``
    code
        what computes, with major and minor version: ``ase 3.29 emt``
    files
        SHA-256 of every file that defines the physics (pseudopotentials, fitted potentials, known labels) by its role
    not_physics
        keys of ``settings`` that only say where things lie; they stay out of the fingerprint
    """

    labeler: str
    settings: Mapping[str, Any]
    code: str
    files: Mapping[str, str] = field(default_factory=dict)
    not_physics: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 over labeler, physics settings, code up to major.minor, and the hashes of the files."""
        physics = {key: value for key, value in self.settings.items() if key not in self.not_physics}
        content = [
            _FINGERPRINT_VERSION,
            self.labeler,
            physics,
            _FULL_VERSION.sub(r"\1", self.code),
            sorted(self.files.items()),
        ]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def code_version(distribution: str) -> str:
    """Major and minor version of an installed distribution, e.g. ``3.29``."""
    return ".".join(importlib.metadata.version(distribution).split(".")[:2])


def file_hash(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
