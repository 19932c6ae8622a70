"""Labels from a file of known labels: retrospective campaigns pay with look-ups instead of calculations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from alflow.errors import ConfigError, FailureKind, LabelFailure, StructureError
from alflow.labelers._in_process import InProcessLabeler
from alflow.labelers._result import RawOutcome
from alflow.labelers._theory import Capabilities, Moments, TheorySpec, file_hash
from alflow.structures import (
    DuplicateIndex,
    DuplicatePolicy,
    Isometry,
    LabelledStructure,
    Structure,
    read_structures,
    transfer_properties,
)

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from alflow.labelers._worker import WorkerConfig

MAX_FRAMES = 1_000_000
_KBAR = 1e8 / 1.602176634e11
"""eV/Å³ per kbar: 1 kbar = 1e8 Pa and 1 eV/Å³ = 1.602176634e11 Pa."""


class ReplaySettings(BaseModel):
    """Settings of the labeler `replay`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path = Field(description="known labels: extxyz (also .gz) or ASE database, relative to the campaign file")
    level: str = Field(default="", description="what computed the labels, for people, e.g. `PBE, VASP 5.4, 520 eV`")
    energy_key: str | None = Field(
        default=None, description="entry that holds the energy, eV per cell; default: `REF_energy`, else `energy`"
    )
    forces_key: str | None = Field(
        default=None, description="column that holds the forces, eV/Å; default: `REF_forces`, else `forces`"
    )
    stress_key: str | None = Field(
        default=None, description="entry that holds the stress; default: `REF_stress`, else `stress`"
    )
    stress_convention: Literal["ase", "vasp"] = Field(
        default="ase",
        description="`ase`: eV/Å³, positive where the cell wants to shrink, xx yy zz yz xz xy or 3×3; `vasp`: kbar "
        "with the opposite sign, xx yy zz xy yz zx, as OUTCAR prints it",
    )
    net_force_limit: float | None = Field(
        default=None,
        gt=0,
        description="refuse labels with a larger net force per atom, eV/Å; default: take them as given",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    frame: int
    isometry: Isometry | None


class ReplayLabeler(InProcessLabeler):
    """Finds the label of the requested structure in a file, by content hash, else through an isometry.

    Only identical structures share labels: a rotated, mirrored, translated, permuted or re-celled copy is found and its
    forces and stress are rotated; anything else is refused. The theory is the content of the file.

    Parameters
    ----------
    settings
        the file and how it names its labels
    directory
        folder that a relative path starts from

    Raises
    ------
    ConfigError
        if the file does not exist or a frame carries no label
    """

    name = "replay"
    settings_model: type[BaseModel] = ReplaySettings

    def __init__(self, settings: ReplaySettings, *, directory: Path | None = None) -> None:
        path = (Path() if directory is None else directory) / settings.path.expanduser()
        if not path.is_file():
            raise ConfigError(f"the file of known labels {path} does not exist: correct `path`")
        self.settings = settings
        self._path = path.resolve()
        self._looked_up: dict[str, _Found | None] = {}

    @classmethod
    def create(cls, settings: BaseModel, *, worker: WorkerConfig, directory: Path) -> Self:  # noqa: ARG003  uniform
        """Make it from validated settings."""
        assert isinstance(settings, ReplaySettings)
        return cls(settings, directory=directory)

    @cached_property
    def capabilities(self) -> Capabilities:
        """What the file holds: its elements, and forces or stress where every frame has them."""
        frames = self.frames
        crystals = [f for f in frames if f.structure.pbc.all()]
        return Capabilities(
            elements=frozenset(element for f in frames for element in f.structure.elements),
            forces=all(f.properties.forces is not None for f in frames),
            stress=bool(crystals) and all(f.properties.stress is not None for f in crystals),
            charge=any(f.structure.charge for f in frames),
            moments=Moments.NONCOLLINEAR if any(f.structure.moments is not None for f in frames) else Moments.NONE,
            net_force_limit=self.settings.net_force_limit,
        )

    def theory(self) -> TheorySpec:
        """Return the hash of the file and how its labels are read; where it lies does not count."""
        return self._theory

    @cached_property
    def _theory(self) -> TheorySpec:
        settings = self.settings.model_dump(mode="json", exclude={"net_force_limit"}) | {"path": str(self._path)}
        return TheorySpec(
            labeler=self.name,
            settings=settings,
            code="known labels",
            files={"labels": file_hash(self._path)},
            not_physics=("path", "level"),
        )

    @cached_property
    def frames(self) -> tuple[LabelledStructure, ...]:
        """Every labelled structure of the file, in its order; read once."""
        try:
            read = read_structures(self._path, max_structures=MAX_FRAMES)
            return tuple(self._labelled(atoms, index) for index, atoms in enumerate(read))
        except StructureError as error:
            raise ConfigError(str(error)) from error

    def refuses(self, structure: Structure) -> str | None:
        """Return why there is no label: another element, or no identical structure in the file."""
        reason = self.capabilities.refuses(structure)
        if reason is None and self._find(structure) is None:
            reason = f"none of the {len(self.frames)} structures in {self._path.name} is identical to it"
        return reason

    def compute(self, structure: Structure, directory: Path | None) -> RawOutcome:  # noqa: ARG002  needs no files
        """Look the label up."""
        found = self._find(structure)
        if found is None:
            raise LabelFailure(FailureKind.REFUSED, f"no known label of {structure.formula} in {self._path.name}")
        frame = self.frames[found.frame]
        properties = frame.properties
        where = f"frame {found.frame} of {self._path.name}"
        evidence: dict[str, Any] = {"converged": True, "convergence": f"known label, {where}", "frame": found.frame}
        if found.isometry is not None:
            try:
                properties = transfer_properties(properties, found.isometry, frame.structure, structure)
            except StructureError as error:
                raise LabelFailure(FailureKind.INCONSISTENT, f"the known label, {where}: {error}") from error
            evidence["isometry"] = found.isometry.to_dict()
        return RawOutcome(
            structure=structure, properties=properties, evidence=evidence, warnings=self._disagreement(found.frame)
        )

    # -- look-up -------------------------------------------------------------------------------------------------

    @cached_property
    def _by_hash(self) -> dict[str, list[int]]:
        by_hash: dict[str, list[int]] = {}
        for index, frame in enumerate(self.frames):
            by_hash.setdefault(frame.structure.content_hash, []).append(index)
        return by_hash

    @cached_property
    def _index(self) -> DuplicateIndex:
        """For structures in other clothes; made at the first one that no hash finds."""
        index = DuplicateIndex(DuplicatePolicy.identical())
        for indices in self._by_hash.values():
            index.add(indices[0], self.frames[indices[0]].structure)
        return index

    def _find(self, structure: Structure) -> _Found | None:
        key = structure.content_hash
        if key not in self._looked_up:
            self._looked_up[key] = self._search(structure)
        return self._looked_up[key]

    def _search(self, structure: Structure) -> _Found | None:
        indices = self._by_hash.get(structure.content_hash)
        if indices is not None:
            return _Found(frame=indices[0], isometry=None)
        match = self._index.find(structure)
        if match is None:
            return None
        assert isinstance(match.key, int)
        return _Found(frame=match.key, isometry=match.isometry)

    def _disagreement(self, frame: int) -> tuple[str, ...]:
        """Warn where the file labels one structure several times and not alike; the first label is used."""
        repeated = self._by_hash[self.frames[frame].structure.content_hash]
        energies = [self.frames[i].properties.energy for i in repeated]
        spread = (max(energies) - min(energies)) / self.frames[frame].structure.n_atoms
        if spread < 1e-6:
            return ()
        return (f"frames {repeated} are one structure with energies that differ by {1000 * spread:.3g} meV/atom",)

    # -- reading -------------------------------------------------------------------------------------------------

    def _labelled(self, atoms: Atoms, index: int) -> LabelledStructure:
        settings = self.settings
        try:
            if settings.energy_key is not None:
                atoms.info["REF_energy"] = _entry(atoms, settings.energy_key)
            elif "REF_energy" not in atoms.info and atoms.calc is not None and "energy" in atoms.calc.results:
                atoms.info["REF_energy"] = atoms.calc.results.get("free_energy", atoms.calc.results["energy"])
            forces = _entry(atoms, settings.forces_key or "forces", optional=settings.forces_key is None)
            if forces is not None and (settings.forces_key is not None or "REF_forces" not in atoms.arrays):
                atoms.arrays["REF_forces"] = np.asarray(forces)
            stress = _entry(atoms, settings.stress_key or "stress", optional=settings.stress_key is None)
            if stress is not None and (settings.stress_key is not None or "REF_stress" not in atoms.info):
                atoms.info["REF_stress"] = self._stress(stress)
            return LabelledStructure.from_atoms(atoms)
        except StructureError as error:
            raise ConfigError(f"{self._path}, frame {index}: {error}") from error

    def _stress(self, value: Any) -> NDArray[np.float64]:
        stress = np.asarray(value, dtype=np.float64).reshape(-1)
        if self.settings.stress_convention == "ase":
            return stress
        if stress.shape != (6,):
            raise StructureError(f"a stress of VASP has six components, not {stress.size}")
        xx, yy, zz, xy, yz, zx = -_KBAR * stress
        return np.array([xx, yy, zz, yz, zx, xy])


def _entry(atoms: Atoms, key: str, *, optional: bool = False) -> Any:
    """Value of an entry, wherever ASE's reader puts it."""
    results = {} if atoms.calc is None else atoms.calc.results
    for holder in (atoms.info, atoms.arrays, results):
        if key in holder:
            return holder[key]
    if optional:
        return None
    raise StructureError(f"there is no entry {key!r}")
