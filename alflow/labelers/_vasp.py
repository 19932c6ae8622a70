"""VASP: single points with the datasets and the program of the user."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import BaseModel

from alflow.errors import ConfigError, FailureKind, LabelFailure
from alflow.labelers._cell import k_mesh
from alflow.labelers._expand import expand_path
from alflow.labelers._program import Ended, Invocation, ProgramLabeler, tail
from alflow.labelers._result import RawOutcome
from alflow.labelers._theory import Capabilities, Moments, TheorySpec
from alflow.labelers._vasp_errors import trouble_in, warnings_in
from alflow.labelers._vasp_inputs import Layout, initial_moments, ladder, n_electrons, vacuum_problem
from alflow.labelers._vasp_inputs import write_inputs as write_vasp_inputs
from alflow.labelers._vasp_outputs import read_vasp_run
from alflow.labelers._vasp_potcar import Potcar, read_potcar
from alflow.labelers._vasp_run import VaspRun, VaspStep
from alflow.labelers._vasp_settings import VaspSettings
from alflow.structures import Properties, Structure

if TYPE_CHECKING:
    from alflow.labelers._worker import WorkerConfig

_MAGNETIC = frozenset({"Cr", "Mn", "Fe", "Co", "Ni", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er"})
"""Elements whose oxides or metals are magnetic more often than not."""

_ECHOED = {"ENMAX": 1e-3, "ISMEAR": 0.5, "SIGMA": 1e-6, "ISPIN": 0.5, "NSW": 0.5, "NELECT": 1e-3}
"""What VASP says it understood, with tolerances: an INCAR that was changed, or misread, is no label of this theory."""


class VaspLabeler(ProgramLabeler):
    """Energy, forces, stress and collinear moments from VASP.

    The program, its version and the folder of the PAW datasets stand in the worker's file; the campaign says the
    physics.

    Parameters
    ----------
    settings
        the physics
    worker
        the worker's local configuration

    Raises
    ------
    ConfigError
        if the worker's file has no such program, or not its version and ``potentials``, or a dataset is missing,
        damaged, of another element or for another functional
    """

    name = "vasp"
    settings_model: type[BaseModel] = VaspSettings

    def __init__(self, settings: VaspSettings, *, worker: WorkerConfig) -> None:
        program = worker.program(settings.program)
        where = f"`programs: {settings.program}` of the worker's file"
        if program.version is None or re.match(r"\d+\.\d+", program.version) is None:
            raise ConfigError(
                f"{where}: VASP needs `version`, e.g. 6.4.2 (the first line of any OUTCAR): it is part of the theory"
            )
        if program.potentials is None:
            raise ConfigError(f"{where}: VASP needs `potentials`, the folder with Si/POTCAR, Fe_pv/POTCAR, …")
        super().__init__(program)
        self.settings = settings
        self.version = program.version
        self._folder = expand_path(program.potentials, f"{where}, potentials")
        if not self._folder.is_dir():
            raise ConfigError(f"{where}: the folder {self._folder} does not exist: correct `potentials`")

    @classmethod
    def create(cls, settings: BaseModel, *, worker: WorkerConfig, directory: Path) -> Self:  # noqa: ARG003  uniform
        """Make it from validated settings."""
        assert isinstance(settings, VaspSettings)
        return cls(settings, worker=worker)

    @property
    def capabilities(self) -> Capabilities:
        """The elements of ``potcars``; charge and collinear moments; slabs and molecules with vacuum in their cell."""
        return Capabilities(elements=frozenset(self.settings.potcars), charge=True, moments=Moments.COLLINEAR)

    @property
    def n_rungs(self) -> int:
        """How many rungs the ladder of numerics has."""
        return len(ladder(self.settings))

    def theory(self) -> TheorySpec:
        """All settings, VASP's version, and the content of every PAW dataset."""
        return TheorySpec(
            labeler=self.name,
            settings=self.settings.model_dump(mode="json"),
            code=f"vasp {self.version}",
            files={f"paw {element}": potcar.sha256 for element, potcar in self.potcars.items()},
            not_physics=("program", "parallel"),
        )

    @cached_property
    def potcars(self) -> Mapping[str, Potcar]:
        """The PAW datasets by element."""
        found = {e: read_potcar(self._folder, e, dataset) for e, dataset in self.settings.potcars.items()}
        kinds = sorted({potcar.exchange for potcar in found.values()})
        wanted = self.settings.exchange
        wrong = [p.title for p in found.values() if wanted is not None and p.exchange != wanted]
        if wrong:
            raise ConfigError(
                f"functional {self.settings.functional!r} needs PAW datasets with LEXCH = {wanted}, but "
                f"{', '.join(wrong)} are for another one: correct `potcars`, `functional`, or `potentials` of the "
                "worker's file"
            )
        if len(kinds) > 1:
            raise ConfigError(f"the PAW datasets are for different functionals ({', '.join(kinds)}): mix none")
        return found

    def refuses(self, structure: Structure) -> str | None:
        """Return the reason why this structure cannot be labelled, or None."""
        reason = self.capabilities.refuses(structure) or vacuum_problem(structure)
        if reason is not None:
            return reason
        if structure.charge and not structure.pbc.all():
            return (
                f"a charge of {structure.charge:+g} e with vacuum: the background that VASP adds makes the energy "
                "depend on the size of the vacuum"
            )
        if n_electrons(structure, self.potcars) <= 0:
            return f"a charge of {structure.charge:+g} e leaves no electron"
        mesh = k_mesh(structure, self.settings.kspacing)
        if self.settings.ismear == -5 and np.prod(mesh) < 4:
            return f"tetrahedra (ismear: -5) need more k-points than {mesh}: a smaller kspacing, or another ismear"
        return None

    def write_inputs(self, structure: Structure, folder: Path, rung: int) -> Invocation:
        """Write INCAR, KPOINTS, POSCAR and POTCAR."""
        write_vasp_inputs(structure, self.settings, self.potcars, folder, rung)
        return Invocation()

    def explain(self, folder: Path, ended: Ended) -> LabelFailure | None:  # noqa: ARG002
        """What VASP printed, where it says why it ended; None where its outputs are whole all the same."""
        with contextlib.suppress(LabelFailure):
            _require_whole(read_vasp_run(folder), folder)
            return None
        return trouble_in(_said(folder))

    def read_outputs(self, structure: Structure, folder: Path, ended: Ended) -> RawOutcome:  # noqa: ARG002
        """Read vasprun.xml and OUTCAR; both must be whole and belong to these inputs."""
        layout = Layout.read(folder)
        try:
            run = read_vasp_run(folder)
            _require_whole(run, folder)
        except LabelFailure as failure:
            if failure.kind is not FailureKind.INCONSISTENT and (cause := trouble_in(_said(folder))) is not None:
                raise cause from failure
            raise
        self._require_asked(run, structure)
        step = run.steps[0]
        said = _said(folder)
        return RawOutcome(
            structure=_geometry(structure, layout, step),
            properties=_properties(structure, layout, step),
            evidence=self._evidence(run, step, structure, said),
            warnings=(*self._warnings(run, structure), *warnings_in(said)),
        )

    # -- judging -----------------------------------------------------------------------------------------------------

    def _require_asked(self, run: VaspRun, structure: Structure) -> None:
        """The program, the datasets and the parameters must be those of the theory."""
        if _parts(run.version)[:2] != _parts(self.version)[:2]:
            raise LabelFailure(
                FailureKind.INCONSISTENT,
                f"VASP {run.version} ran, but the worker's file says `version: {self.version}`: correct one of them",
            )
        if len(run.steps) != 1:
            raise LabelFailure(
                FailureKind.INCONSISTENT, f"{len(run.steps)} ionic steps instead of one: was the INCAR changed?"
            )
        titles = {potcar.title for e, potcar in self.potcars.items() if e in structure.composition}
        if set(run.titles) != titles:
            raise LabelFailure(
                FailureKind.INCONSISTENT,
                f"VASP read the datasets {', '.join(run.titles)} instead of {', '.join(sorted(titles))}: was the "
                "POTCAR changed?",
            )
        asked = self._asked(structure)
        for tag, tolerance in _ECHOED.items():
            if tag not in run.values:
                raise LabelFailure(
                    FailureKind.TRUNCATED,
                    f"vasprun.xml does not say which {tag} VASP used: it is damaged or incomplete",
                )
            if abs(float(run.values[tag]) - asked[tag]) > tolerance:
                raise LabelFailure(
                    FailureKind.INCONSISTENT,
                    f"VASP used {tag} = {run.values[tag]:g} instead of {asked[tag]:g}: was the INCAR changed?",
                )

    def _asked(self, structure: Structure) -> Mapping[str, float]:
        moments, _ = initial_moments(structure, self.settings)
        return {
            "ENMAX": self.settings.encut,
            "ISMEAR": self.settings.ismear,
            "SIGMA": self.settings.sigma,
            "ISPIN": 1 if moments is None else 2,
            "NSW": 0,
            "NELECT": n_electrons(structure, self.potcars),
        }

    def _evidence(self, run: VaspRun, step: VaspStep, structure: Structure, said: str) -> dict[str, Any]:
        moments, origin = initial_moments(structure, self.settings)
        bands = "highest band is occupied" in said
        return {
            "converged": step.converged and not bands,
            "convergence": "the highest band is occupied: too few bands" if bands else step.convergence,
            "version": run.version,
            "k_points": list(k_mesh(structure, self.settings.kspacing)),
            "k_points_irreducible": run.n_kpoints,
            "electrons": n_electrons(structure, self.potcars),
            "charge": structure.charge,
            "spin_polarised": moments is not None,
            "initial_moments": origin,
            "ismear": self.settings.ismear,
            "sigma": self.settings.sigma,
            "scf_steps": step.scf_steps,
            "datasets": list(run.titles),
        }

    def _warnings(self, run: VaspRun, structure: Structure) -> Iterator[str]:
        elements = structure.composition
        harder = [p for e, p in self.potcars.items() if e in elements and p.enmax > self.settings.encut + 1e-6]
        for potcar in harder:
            yield f"{potcar.title} asks for a cutoff of {potcar.enmax:.0f} eV, above encut: {self.settings.encut:g}"
        moments, _ = initial_moments(structure, self.settings)
        magnetic = sorted(_MAGNETIC.intersection(elements))
        if magnetic and moments is None:
            yield f"{', '.join(magnetic)} without spin: set `spin_polarised: true`, or give structures initial moments"
        if structure.charge:
            yield (
                f"a charge of {structure.charge:+g} e in a uniform background, not corrected: energy and stress depend "
                "on the size of the cell"
            )
        if self.settings.ismear == -5:
            yield "tetrahedra: forces and stress are wrong if this is a metal"
        if _parts(run.version)[: len(_parts(self.version))] != _parts(self.version):
            yield f"VASP {run.version} ran; the worker's file says {self.version}"


def _require_whole(run: VaspRun, folder: Path) -> None:
    missing = [name for name in ("vasprun.xml", "OUTCAR") if not (folder / name).is_file()]
    if missing:
        raise LabelFailure(FailureKind.MISSING_FILE, f"{folder} holds no {missing[0]}: VASP wrote only the other file")
    if not run.complete or not run.steps:
        raise LabelFailure(
            FailureKind.TRUNCATED, f"vasprun.xml or OUTCAR in {folder} is cut off: VASP was ended, or its disk is full"
        )


def _geometry(asked: Structure, layout: Layout, step: VaspStep) -> Structure:
    """What VASP computed, in the order of the structure; VASP moves atoms by whole cell vectors into its cell."""
    got = step.structure
    if sorted(layout.atoms) != list(range(got.n_atoms)):
        raise LabelFailure(
            FailureKind.INCONSISTENT, f"asked for {asked.formula}, VASP computed {got.n_atoms} atoms: {got.formula}"
        )
    cell = np.empty((3, 3))
    cell[list(layout.axes)] = got.cell
    positions = layout.from_vasp(got.positions)
    away = (asked.positions - positions) @ np.linalg.inv(cell)
    return Structure(
        cell=cell,
        pbc=asked.pbc,
        numbers=layout.from_vasp(got.numbers),
        positions=positions + np.rint(away) @ cell,
        charge=asked.charge,
        moments=asked.moments,
    )


def _properties(asked: Structure, layout: Layout, step: VaspStep) -> Properties:
    given = step.properties
    assert given.forces is not None
    return Properties(
        energy=given.energy,
        energy_extrapolated=given.energy_extrapolated,
        forces=layout.from_vasp(given.forces),
        stress=given.stress if asked.pbc.all() else None,
        moments=None if given.moments is None else layout.from_vasp(given.moments),
        total_moment=given.total_moment,
    )


def _said(folder: Path) -> str:
    """The end of OUTCAR, where VASP writes why it stops, and what it printed; warnings may come early there."""
    return tail(folder / "OUTCAR", 5_000) + tail(folder / "stdout.txt", 500_000) + tail(folder / "stderr.txt")


def _parts(version: str) -> list[str]:
    """``6.4.2`` of ``6.4.2`` or of ``5.4.4.18Apr17-6-g9f103f2a35``."""
    return version.split(".")[:3]
