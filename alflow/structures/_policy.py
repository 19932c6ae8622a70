"""What counts as the same: the tolerances of the three relations between structures."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Relation(StrEnum):
    """How much alike two structures are; the three are never mixed."""

    IDENTICAL = "identical"
    REDUNDANT = "redundant"
    SAME_PHASE = "same_phase"


class DuplicatePolicy(BaseModel):
    """Tolerances under which an isometry counts as a match.

    Displacements are what remains after the best isometry and the homogeneous strain are taken out. Charge always has
    to agree (per formula unit for anything periodic).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    relation: Relation = Field(description="which of the three relations the tolerances describe")
    max_displacement: float = Field(gt=0.0, le=0.3, description="largest displacement of any atom, Å")
    rms_displacement: float = Field(gt=0.0, le=0.3, description="root mean square displacement over the atoms, Å")
    max_strain: float = Field(gt=0.0, le=0.05, description="largest principal logarithmic strain of the lattice")
    moments: float | None = Field(
        default=1e-3,
        gt=0.0,
        description="tolerance of the initial magnetic moments, µB; null: moments are not compared",
    )
    mirror: bool = Field(default=True, description="mirror images count as the same")
    any_volume: bool = Field(
        default=False, description="crystals are scaled to a common volume before they are compared"
    )

    @classmethod
    def identical(cls, *, mirror: bool = True) -> DuplicatePolicy:
        """One structure in another cell, orientation, order or origin: labels may be shared."""
        return cls(
            relation=Relation.IDENTICAL, max_displacement=1e-4, rms_displacement=1e-4, max_strain=1e-5, mirror=mirror
        )

    @classmethod
    def redundant(
        cls, displacement: float = 0.015, strain: float = 0.002, *, moments: float = 1e-3, mirror: bool = True
    ) -> DuplicatePolicy:
        """So close that a second calculation would teach nothing; the label is not shared."""
        return cls(
            relation=Relation.REDUNDANT,
            max_displacement=displacement,
            rms_displacement=displacement,
            max_strain=strain,
            moments=moments,
            mirror=mirror,
        )

    @classmethod
    def same_phase(cls, any_volume: bool = False, *, mirror: bool = True) -> DuplicatePolicy:
        """The same phase for reports and novelty: moments are not compared."""
        return cls(
            relation=Relation.SAME_PHASE,
            max_displacement=0.18,
            rms_displacement=0.06,
            max_strain=0.01,
            moments=None,
            mirror=mirror,
            any_volume=any_volume,
        )
