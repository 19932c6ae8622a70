"""Settings of the labeler `gpaw`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from alflow.labelers._names import Element


class GpawSettings(BaseModel):
    """Settings of the labeler `gpaw`: what changes the numbers, and nothing that depends on the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str = Field(default="gpaw", description="name of an entry under `programs` in the worker's file")
    setups: Mapping[Element, Annotated[str, Field(pattern=r"^[A-Za-z0-9.]+$")]] = Field(
        min_length=1,
        description="PAW dataset of every element: `paw` is GPAW's usual one, `{Ni: '10'}` the one in `Ni.10.PBE`; "
        "other elements are refused. The content of the files is part of the theory",
    )
    xc: Literal["LDA", "PBE", "RPBE", "revPBE", "PBEsol"] = Field(
        default="PBE", description="exchange and correlation; GPAW computes PBEsol with datasets made for PBE"
    )
    cutoff: float = Field(
        default=600.0,
        ge=100,
        description="plane-wave cutoff, eV, the same for every composition; a warning where it is low for the stress",
    )
    grid: float = Field(
        default=1.15,
        ge=1,
        le=1.5,
        description="spacing of the real-space grid in units of π/√(8 cutoff), where it would hold every plane wave "
        "of the density; GPAW's own 1.4 is faster and leaves noise in the forces",
    )
    k_spacing: float = Field(
        default=0.25, gt=0, description="largest distance of neighbouring k-points, 1/Å, with the factor 2π; Γ-centred"
    )
    width: float = Field(default=0.05, gt=0, description="width of the Fermi-Dirac smearing, eV")
    spin: Literal["none", "collinear"] = Field(
        default="none", description="`none` refuses structures with magnetic moments"
    )
    starting_moments: Mapping[Element, float] = Field(
        default_factory=dict,
        description="starting moment of each element for structures without moments of their own, µB; with "
        "`spin: collinear` every element must be listed, 0 included",
    )
    vacuum: float | None = Field(
        default=None,
        ge=2,
        description="vacuum on either side along directions that are not periodic, Å, whatever cell the structure "
        "brings there; default: only crystals are labelled",
    )
    energy_tolerance: float = Field(
        default=1e-5, gt=0, le=5e-4, description="last change of the energy in a converged calculation, eV per electron"
    )
    density_tolerance: float = Field(
        default=1e-5, gt=0, le=1e-4, description="last change of the density, electrons per electron"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        stray = sorted(set(self.starting_moments) - set(self.setups))
        if stray:
            raise ValueError(f"starting_moments of {', '.join(stray)}: no such element in `setups`")
        missing = sorted(set(self.setups) - set(self.starting_moments))
        if self.spin == "collinear" and missing:
            raise ValueError(f"spin: collinear needs starting_moments of {', '.join(missing)}; 0 is a value, too")
        if self.spin == "none" and self.starting_moments:
            raise ValueError("starting_moments need spin: collinear")
        return self
