"""The settings of everything in this room: what a campaign file may say about exploration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PrototypeName = Literal["fcc", "bcc", "hcp", "dhcp", "sc", "diamond", "beta_tin", "simple_hexagonal"]
Factor = Annotated[float, Field(gt=0.1, lt=10.0)]
Volumes = dict[str, Annotated[float, Field(gt=0.5, lt=500.0)]]
_VOLUMES = (
    "volumes of the elements' own crystals at rest in your theory, Å³/atom; elements that are not named come from "
    "measured crystals. Compounds start at the sum of their elements' volumes (Zen's law)"
)


class ExploreSettings(BaseModel):
    """What all settings models here share: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSettings(ExploreSettings):
    """Settings of a source of candidates; ``kind`` names the source."""

    kind: str = Field(description="which source")


class EnumerateSettings(SourceSettings):
    """Every symmetry-distinct ordering of the elements on parent lattices, up to a number of atoms per cell."""

    kind: Literal["enumerate"] = Field(default="enumerate", description="which source")
    parents: tuple[str, ...] = Field(
        default=("fcc",),
        min_length=1,
        description="parent lattices: names of prototypes (fcc, bcc, hcp, …) or paths of structure files, relative to "
        "the campaign file; in a file, sites of other elements than `elements` keep their species",
    )
    max_atoms: int = Field(default=6, ge=1, le=32, description="largest cell, atoms")
    elements: tuple[str, ...] | None = Field(
        default=None, description="species to place on the sites; null: the elements of the campaign"
    )
    pure_elements: bool = Field(default=True, description="propose the orderings of one species only as well")
    volumes: Volumes = Field(default_factory=dict, description=_VOLUMES)
    max_labelings: int = Field(
        default=10_000_000,
        ge=1,
        description="refuse an enumeration that looks at more labelings than this many (before symmetry reduces them)",
    )


class PerturbSettings(SourceSettings):
    """Random displacements and strains of structures that the campaign already knows."""

    kind: Literal["perturb"] = Field(default="perturb", description="which source")
    n: int = Field(default=50, ge=1, le=100_000, description="structures per round")
    rattle: float = Field(
        default=0.08, ge=0.0, le=1.0, description="largest standard deviation of the displacements, Å per coordinate"
    )
    strain: float = Field(
        default=0.04, ge=0.0, le=0.5, description="largest standard deviation of the strain components, dimensionless"
    )
    volume: float = Field(
        default=0.05,
        ge=0.0,
        lt=0.5,
        description="largest relative change of volume on top of the strain, dimensionless",
    )
    min_atoms: int = Field(
        default=1, ge=1, le=1000, description="smaller starts are repeated to at least this many atoms"
    )


class RelaxSettings(SourceSettings):
    """Relaxation of positions and cell with the committee, all structures at once."""

    kind: Literal["relax"] = Field(default="relax", description="which source")
    max_starts: int | None = Field(default=None, ge=1, description="structures relaxed per round; null: all starts")
    max_steps: int = Field(default=80, ge=1, le=10_000, description="evaluations per structure")
    f_max: float = Field(default=0.01, gt=0.0, description="converged below this largest atomic force, eV/Å")
    stress_max: float = Field(default=1e-3, gt=0.0, description="converged below this stress (Frobenius norm), eV/Å³")
    relax_cell: bool = Field(default=True, description="relax the cell as well (crystals only)")
    u_limit: float = Field(
        default=10.0,
        gt=0.0,
        description="stop and propose a geometry whose u (error over target) exceeds this; below it even an uncertain "
        "committee leads closer to the relaxed geometry",
    )
    max_step: float = Field(default=0.15, gt=0.0, le=1.0, description="longest move of an atom in one step, Å")
    max_volume_change: float = Field(
        default=0.5, gt=0.0, le=5.0, description="give up where the volume leaves V₀/(1+x) … V₀·(1+x), dimensionless"
    )
    e_hull_window: float | None = Field(
        default=None,
        ge=0.0,
        description="reject relaxed structures higher than this above the hull of the relaxed ones, eV/atom; "
        "null: keep all",
    )
    propose_unconverged: bool = Field(
        default=False, description="propose geometries that did not converge within max_steps instead of rejecting them"
    )


class DynamicsSettings(SourceSettings):
    """Molecular dynamics at constant volume and temperature with the committee, several walkers at once."""

    kind: Literal["dynamics"] = Field(default="dynamics", description="which source")
    temperatures: tuple[Annotated[float, Field(gt=0.0, le=20_000.0)], ...] = Field(
        default=(300.0, 800.0), min_length=1, description="temperatures given to the walkers in turn, K"
    )
    walkers: int = Field(default=8, ge=1, le=10_000, description="trajectories per round")
    steps: int = Field(default=200, ge=1, description="steps of a trajectory")
    timestep: float = Field(default=2.0, ge=0.05, le=20.0, description="time step, fs")
    friction: float = Field(default=0.02, gt=0.0, le=1.0, description="Langevin friction, 1/fs")
    save_every: int = Field(default=50, ge=1, description="steps between the frames that are proposed")
    u_limit: float = Field(
        default=3.0, gt=0.0, description="end a walker, and propose its frame, when u (error over target) exceeds this"
    )
    volume: float = Field(
        default=0.04,
        ge=0.0,
        lt=0.5,
        description="walkers start at volumes changed by up to this fraction, dimensionless",
    )
    min_atoms: int = Field(
        default=8, ge=2, le=1000, description="smaller starts are repeated to at least this many atoms"
    )


class FilesSettings(SourceSettings):
    """Structures from files: extxyz, CIF, POSCAR/CONTCAR, ASE database."""

    kind: Literal["files"] = Field(default="files", description="which source")
    paths: tuple[str, ...] = Field(
        min_length=1, description="files or glob patterns, relative to the campaign file (extxyz, CIF, POSCAR, ASE db)"
    )
    deliberate: bool = Field(
        default=False,
        description="structures that differ by little on purpose (phonon displacements, elastic strains): "
        "never dropped as redundant",
    )
    max_structures: int = Field(
        default=1_000_000, ge=1, description="refuse a file with more structures than this many"
    )


AnySourceSettings = Annotated[
    EnumerateSettings | PerturbSettings | RelaxSettings | DynamicsSettings | FilesSettings, Field(discriminator="kind")
]
"""The sources that come with alflow, as one type for configuration models."""


class Round0Settings(ExploreSettings):
    """The designed first round: what is labelled before there is a committee."""

    prototypes: tuple[PrototypeName, ...] = Field(
        default=("fcc", "bcc", "hcp", "diamond", "sc"), description="crystals of every element that serve as references"
    )
    reference_volumes: tuple[Factor, ...] = Field(
        default=(1.0,), description="volumes of the references, as factors on the tabulated volume, dimensionless"
    )
    n_spread: int = Field(
        default=20, ge=0, le=10_000, description="small random cells, spread over composition, volume and distortion"
    )
    n_pool: int = Field(
        default=0,
        ge=0,
        description="structures drawn at random from those that files or a person gave (known pools)",
    )
    parents: tuple[PrototypeName, ...] = Field(
        default=("fcc", "bcc", "hcp"), min_length=1, description="lattices of the random cells, taken in turn"
    )
    max_atoms: int = Field(default=6, ge=4, le=64, description="largest random cell, atoms")
    volume: tuple[Factor, Factor] = Field(
        default=(0.88, 1.15), description="range of volumes of the random cells, as factors on Zen's law, dimensionless"
    )
    strain: float = Field(
        default=0.04, ge=0.0, le=0.3, description="largest standard deviation of the strain components, dimensionless"
    )
    rattle: float = Field(
        default=0.12, ge=0.0, le=0.5, description="largest standard deviation of the displacements, Å per coordinate"
    )
    volumes: Volumes = Field(default_factory=dict, description=_VOLUMES)

    @model_validator(mode="after")
    def _range_in_order(self) -> Round0Settings:
        if self.volume[0] > self.volume[1]:
            raise ValueError(f"volume: the range {self.volume} must go from small to large")
        return self

    def size(self, n_elements: int) -> int:
        """Largest number of structures that round 0 proposes for so many elements."""
        return n_elements * len(self.prototypes) * len(self.reference_volumes) + self.n_spread


class FilterSettings(ExploreSettings):
    """Physical limits that a candidate must keep; what breaks one is rejected with the reason."""

    min_distance_factor: float = Field(
        default=0.6, ge=0.0, le=1.5, description="closest approach of two atoms over the sum of their covalent radii"
    )
    min_volume_per_atom: float = Field(default=2.0, ge=0.0, description="smallest volume of a crystal, Å³/atom")
    max_volume_per_atom: float = Field(default=150.0, gt=0.0, description="largest volume of a crystal, Å³/atom")
    max_force: float = Field(default=30.0, gt=0.0, description="largest predicted force on an atom, eV/Å")
    max_atoms: int = Field(default=200, ge=1, description="largest cell, atoms")

    @model_validator(mode="after")
    def _volumes_in_order(self) -> FilterSettings:
        if self.min_volume_per_atom >= self.max_volume_per_atom:
            raise ValueError(
                f"min_volume_per_atom ({self.min_volume_per_atom}) must be below max_volume_per_atom "
                f"({self.max_volume_per_atom})"
            )
        return self
