"""Settings of the labeler `espresso`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from alflow.labelers._names import Element

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+-][A-Za-z0-9._+-]*$")]


class EspressoSettings(BaseModel):
    """Settings of the labeler `espresso`: the physics. Energies are in Ry here, as Quantum ESPRESSO has them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str = Field(default="espresso", description="name of an entry under `programs` in the worker's file")
    pseudopotentials: Mapping[Element, FileName] = Field(
        min_length=1,
        description="name of the UPF file of each element, in the folder `potentials` of the worker's file; their "
        "content is hashed into the theory, and all must be made for one functional",
    )
    ecutwfc: float = Field(gt=0, description="kinetic-energy cutoff of the wavefunctions, Ry")
    ecutrho: float | None = Field(
        default=None,
        gt=0,
        description="cutoff of the charge density, Ry; default: 4 `ecutwfc` where every pseudopotential is "
        "norm-conserving, else 8 `ecutwfc`",
    )
    k_spacing: float = Field(
        default=0.2, gt=0, description="largest distance of neighbouring k-points, 1/Å, with the factor 2π; Γ-centred"
    )
    occupations: Literal["smearing", "fixed"] = Field(
        default="smearing", description="`fixed` is for insulators with an even number of electrons"
    )
    smearing: Literal["marzari-vanderbilt", "gaussian", "methfessel-paxton", "fermi-dirac"] = Field(
        default="marzari-vanderbilt", description="form of the smearing"
    )
    degauss: float = Field(default=0.01, gt=0, description="width of the smearing, Ry")
    spin: Literal["none", "collinear"] = Field(
        default="none", description="`none` refuses structures with magnetic moments"
    )
    starting_moments: Mapping[Element, float] = Field(
        default_factory=dict,
        description="starting moment of each element for structures without moments of their own, µB; with "
        "`spin: collinear` every element of such a structure must be listed, 0 included",
    )
    charge: Literal["refuse", "background"] = Field(
        default="refuse", description="`background`: charged cells are computed with a uniform background"
    )
    vacuum: float | None = Field(
        default=None,
        gt=0,
        description="least vacuum along directions that are not periodic, Å, so that slabs and molecules can be "
        "computed in their cell; default: only crystals are labelled",
    )
    input_dft: Literal["pz", "pbe", "pbesol", "revpbe", "pw91", "blyp"] | None = Field(
        default=None, description="functional other than that of the pseudopotentials; default: theirs"
    )
    conv_thr: float = Field(default=1e-9, gt=0, description="accuracy of the self-consistent energy, Ry per atom")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.spin == "collinear" and self.occupations == "fixed":
            raise ValueError("spin: collinear needs occupations: smearing, which finds the moment by itself")
        if self.ecutrho is not None and self.ecutrho < 4 * self.ecutwfc:
            raise ValueError(f"ecutrho: {self.ecutrho:g} must be at least 4 ecutwfc, {4 * self.ecutwfc:g} Ry")
        return self
