"""What the user wants to know, and how well."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Kind(StrEnum):
    """The three quantities whose errors are judged."""

    ENERGY = "energy"
    FORCE = "force"
    STRESS = "stress"

    @property
    def unit(self) -> str:
        """Unit of the error of this quantity."""
        return {"energy": "eV/atom", "force": "eV/Å", "stress": "eV/Å³"}[self.value]


PLAUSIBLE = {Kind.ENERGY: (1e-5, 0.1), Kind.FORCE: (1e-3, 2.0), Kind.STRESS: (1e-5, 0.1)}
"""Targets that people set, in :attr:`Kind.unit`; others are asked about, not refused."""


class Targets(BaseModel):
    """The errors (1σ) a user is content with; ``u`` is the largest error in units of them.

    ``u > 1`` means *not known well enough*; ``u > u_max`` means *implausible*: set aside, looked at again next round.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    energy: float = Field(default=0.005, gt=0, description="wanted error of the energy, eV/atom")
    force: float = Field(default=0.1, gt=0, description="wanted error of the force on the worst atom, eV/Å")
    stress: float = Field(
        default=0.01, gt=0, description="wanted error of the stress (Frobenius norm), eV/Å³ (0.01 eV/Å³ = 1.6 GPa)"
    )
    u_max: float = Field(default=10.0, gt=1, description="candidates above this u are implausible and set aside")

    def of(self, kind: Kind) -> float:
        """Target of one kind, in :attr:`Kind.unit`."""
        return float(getattr(self, kind.value))

    def doubts(self) -> list[str]:
        """Say which targets are so large or so small that another unit may have been meant."""
        found = []
        for kind, (least, most) in PLAUSIBLE.items():
            target = self.of(kind)
            if not least <= target <= most:
                what = "large" if target > most else "small"
                found.append(
                    f"targets.{kind} is {target:g} {kind.unit}, which is very {what} (usual: {least:g} to {most:g}): "
                    f"is it in {kind.unit}?"
                )
        return found
