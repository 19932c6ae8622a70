"""Effective medium theory: a fast, smooth potential for eleven elements, for demonstrations and tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from alflow.labelers._in_process import InProcessLabeler
from alflow.labelers._result import RawOutcome
from alflow.labelers._theory import Capabilities, Moments, TheorySpec, code_version
from alflow.structures import Properties, Structure

if TYPE_CHECKING:
    from alflow.labelers._worker import WorkerConfig

EMT_ELEMENTS = frozenset({"Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt", "H", "C", "N", "O"})


class EmtSettings(BaseModel):
    """Settings of the labeler `emt`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asap_cutoff: bool = Field(
        default=False,
        description="choose the cutoff from the elements present, as ASAP does, and not from the whole table; "
        "changes the energies",
    )


class EmtLabeler(InProcessLabeler):
    """ASE's effective medium theory (Jacobsen, Stoltze, Nørskov, Surf. Sci. 366, 394 (1996)).

    The parameters of H, C, N and O describe nothing real. Energies follow ASAP's convention: they count from the
    metals in their fcc crystals, not from isolated atoms.
    """

    name = "emt"
    settings_model: type[BaseModel] = EmtSettings

    def __init__(self, settings: EmtSettings | None = None) -> None:
        self.settings = EmtSettings() if settings is None else settings

    @classmethod
    def create(cls, settings: BaseModel, *, worker: WorkerConfig, directory: Path) -> Self:  # noqa: ARG003  uniform
        """Make it from validated settings."""
        assert isinstance(settings, EmtSettings)
        return cls(settings)

    @property
    def capabilities(self) -> Capabilities:
        """Eleven elements, any periodicity, no charge; the energy does not depend on magnetic moments."""
        return Capabilities(elements=EMT_ELEMENTS, moments=Moments.INDEPENDENT, net_force_limit=1e-6)

    def theory(self) -> TheorySpec:
        """Return the cutoff convention and ASE's version."""
        return TheorySpec(labeler=self.name, settings=self.settings.model_dump(), code=f"ase {code_version('ase')} emt")

    def compute(self, structure: Structure, directory: Path | None) -> RawOutcome:  # noqa: ARG002  needs no files
        """Evaluate the potential; it is a closed expression, so there is nothing to converge."""
        from ase.calculators.emt import EMT

        atoms = structure.to_atoms()
        atoms.calc = EMT(asap_cutoff=self.settings.asap_cutoff)
        with np.errstate(all="ignore"):  # atoms on top of each other give NaN, which the gates name
            forces = atoms.get_forces()
            stress = atoms.get_stress(voigt=False) if structure.pbc.all() else None
        return RawOutcome(
            structure=Structure.from_atoms(atoms.calc.atoms),
            properties=Properties(energy=float(atoms.get_potential_energy()), forces=forces, stress=stress),
            evidence={"converged": True, "convergence": "analytic potential, nothing to converge"},
        )
