"""GPAW: plane-wave density-functional theory with the projector-augmented-wave method, run as a program of its own."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from ase.data import chemical_symbols
from ase.units import Bohr, GPa, Hartree

from alflow.errors import ConfigError, FailureKind, LabelFailure
from alflow.labelers import _gpaw_run as script
from alflow.labelers._cell import box_with_vacuum, k_mesh
from alflow.labelers._expand import expand_path
from alflow.labelers._gpaw_installation import SCRIPT, Installation, describe
from alflow.labelers._gpaw_settings import GpawSettings
from alflow.labelers._program import Ended, Invocation, ProgramLabeler, tail
from alflow.labelers._result import RawOutcome
from alflow.labelers._theory import Capabilities, Moments, TheorySpec
from alflow.labelers._worker import ProgramSettings
from alflow.structures import Properties, Structure

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydantic import BaseModel

    from alflow.labelers._worker import WorkerConfig

JOB, RESULT = "job.json", "result.json"

PULAY_LIMIT = 1.0
"""GPa: GPAW's estimate of the Pulay stress is good to about as much (measured on MgO and Ni)."""


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """One rung of the ladder: how GPAW looks for the solution. None of it changes the solution.

    Parameters
    ----------
    max_steps
        self-consistency steps before GPAW gives up
    keywords
        mixer and eigensolver, where they are not GPAW's own
    """

    max_steps: int
    keywords: Mapping[str, Any]


LADDER = (
    Numerics(max_steps=120, keywords={}),
    Numerics(max_steps=300, keywords={"mixer": {"name": "pulay", "beta": 0.05, "nmaxold": 8, "weight": 50.0}}),
    Numerics(
        max_steps=800,
        keywords={
            "mixer": {"name": "pulay", "beta": 0.02, "nmaxold": 5, "weight": 100.0},
            "eigensolver": {"name": "davidson", "niter": 4},
        },
    ),
)


class GpawLabeler(ProgramLabeler):
    """Runs a Python with GPAW beside alflow, by a script that stands alone.

    Without an entry ``programs: gpaw`` in the worker's file it is alflow's own Python, where GPAW is installed there.

    Parameters
    ----------
    settings
        the physics
    program
        command of a Python with GPAW, its limits, and ``potentials``: a folder of PAW datasets that goes before GPAW's
    """

    name = "gpaw"
    settings_model: type[BaseModel] = GpawSettings

    def __init__(self, settings: GpawSettings, program: ProgramSettings) -> None:
        self.settings = settings
        if program.potentials is not None:
            folder = expand_path(program.potentials, f"programs.{settings.program}.potentials")
            if not folder.is_dir():
                raise ConfigError(f"programs.{settings.program}.potentials: {folder} is not a folder: correct the path")
            environment = {**program.environment, "GPAW_SETUP_PATH": str(folder.resolve())}
            program = program.model_copy(update={"environment": environment})
        super().__init__(program)

    @classmethod
    def create(cls, settings: BaseModel, *, worker: WorkerConfig, directory: Path) -> Self:  # noqa: ARG003  uniform
        """Make it from validated settings; raises ConfigError where no GPAW is known."""
        assert isinstance(settings, GpawSettings)
        program = worker.programs.get(settings.program)
        if program is None:
            if settings.program != cls.name or importlib.util.find_spec("gpaw") is None:
                raise ConfigError(
                    f"no GPAW is known here: write `programs: {settings.program}: command: [/path/to/python]` in "
                    "alflow-worker.yaml, a Python with `pip install gpaw`; docs/labelers.md says how to install it"
                )
            program = ProgramSettings(command=(sys.executable,))
        return cls(settings, program)

    @property
    def capabilities(self) -> Capabilities:
        """Elements with a dataset; crystals, and with ``vacuum`` everything else; charge for molecules."""
        settings = self.settings
        return Capabilities(
            elements=frozenset(settings.setups),
            periodic_directions=frozenset({3} if settings.vacuum is None else {0, 1, 2, 3}),
            charge=settings.vacuum is not None,
            moments=Moments.NONE if settings.spin == "none" else Moments.COLLINEAR,
        )

    def refuses(self, structure: Structure) -> str | None:
        """Return the reason why this structure cannot be labelled, or None."""
        if self.settings.vacuum is None and structure.n_periodic < 3:
            return f"{structure.n_periodic} periodic directions, and no `vacuum` is set for the others"
        if structure.charge and structure.n_periodic:
            return f"a charge of {structure.charge:+g} e in a periodic structure: its energy depends on the background"
        return super().refuses(structure)

    @property
    def n_rungs(self) -> int:
        """Three: GPAW's own numerics, then slower mixing, then slower still."""
        return len(LADDER)

    # -- the theory --------------------------------------------------------------------------------------------------

    def theory(self) -> TheorySpec:
        """Return the settings, GPAW's version and the content of the PAW datasets; GPAW is asked once."""
        return self._theory

    @cached_property
    def _theory(self) -> TheorySpec:
        installation = self._installation
        return TheorySpec(
            labeler=self.name,
            settings=self.settings.model_dump(mode="json"),
            code=f"gpaw {'.'.join(installation.version.split('.')[:2])}",
            files=installation.files,
            not_physics=("program",),
        )

    @cached_property
    def _installation(self) -> Installation:
        settings, program = self.settings, self.program
        installation = describe(
            program.command, tuple(program.environment.items()), settings.xc, tuple(sorted(settings.setups.items()))
        )
        stated = program.version
        if stated is not None and not f"{installation.version}.".startswith(f"{stated}."):
            raise ConfigError(
                f"programs.{settings.program}: version is {stated}, but {program.command[0]} runs GPAW "
                f"{installation.version}: correct the version or the command"
            )
        return installation

    # -- inputs ------------------------------------------------------------------------------------------------------

    def write_inputs(self, structure: Structure, folder: Path, rung: int) -> Invocation:
        """Write the job and the script that computes it."""
        cell, shift = self._cell_and_shift(structure)
        boxed = structure.with_geometry(cell=cell, positions=structure.positions + shift)
        job = {
            "numbers": boxed.numbers.tolist(),
            "pbc": boxed.pbc.tolist(),
            "cell": boxed.cell.tolist(),
            "positions": boxed.positions.tolist(),
            "moments": self._moments(structure),
            "stress": bool(structure.pbc.all()),
            "parameters": self._parameters(boxed, LADDER[rung]),
        }
        (folder / JOB).write_text(json.dumps(job, indent=1) + "\n", encoding="utf-8")
        shutil.copyfile(script.__file__, folder / SCRIPT)
        return Invocation(arguments=(SCRIPT, JOB, RESULT))

    def _parameters(self, structure: Structure, numerics: Numerics) -> dict[str, Any]:
        settings = self.settings
        return {
            "mode": {"name": "pw", "ecut": settings.cutoff},
            "h": settings.grid * np.pi * Bohr / np.sqrt(8 * settings.cutoff / Hartree),
            "xc": settings.xc,
            "setups": {element: settings.setups[element] for element in structure.elements},
            "kpts": {"size": k_mesh(structure, settings.k_spacing), "gamma": True},
            "occupations": {"name": "fermi-dirac", "width": settings.width},
            "spinpol": settings.spin == "collinear",
            "charge": structure.charge,
            "convergence": {"energy": settings.energy_tolerance, "density": settings.density_tolerance},
            "maxiter": numerics.max_steps,
            **numerics.keywords,
        }

    def _moments(self, structure: Structure) -> list[float] | None:
        """Starting moments of a spin-polarised calculation; None without spin."""
        if self.settings.spin == "none":
            return None
        if structure.moments is not None:
            return [float(moment) for moment in structure.moments]
        return [self.settings.starting_moments[chemical_symbols[number]] for number in structure.numbers]

    def _cell_and_shift(self, structure: Structure) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The cell for GPAW, with vectors of its own where it is not periodic, and what moves the atoms into it."""
        if structure.pbc.all():
            return structure.cell, np.zeros(3)
        assert self.settings.vacuum is not None
        return box_with_vacuum(structure, self.settings.vacuum)

    # -- outputs -----------------------------------------------------------------------------------------------------

    def explain(self, folder: Path, ended: Ended) -> LabelFailure | None:  # noqa: ARG002
        """What GPAW raised, where the script could write it down."""
        try:
            failure = _read_result(folder)["failure"]
        except (LabelFailure, KeyError):
            return None
        kind = _failure_kind(failure)
        said = str(failure["message"]).strip().partition("\n")[0]
        message = f"GPAW: {failure['types'][0]}: {said}" if said else f"GPAW: {failure['types'][0]}"
        if kind is FailureKind.NOT_CONVERGED:
            rung = json.loads((folder / JOB).read_text(encoding="utf-8"))["parameters"]
            message = f"GPAW did not converge within {rung['maxiter']} steps; {folder / script.TEXT} shows them"
        return LabelFailure(kind, message)

    def read_outputs(self, structure: Structure, folder: Path, ended: Ended) -> RawOutcome:  # noqa: ARG002
        """Read the result; converged is what GPAW's own text says to be."""
        result = _read_result(folder)
        try:
            return self._read(structure, folder, result)
        except FileNotFoundError as error:
            raise LabelFailure(FailureKind.MISSING_FILE, f"{error.filename} is gone: compute it again") from error
        except (KeyError, TypeError, ValueError) as error:
            raise LabelFailure(FailureKind.TRUNCATED, f"{folder / RESULT} is damaged: {error!r}") from error

    def _read(self, structure: Structure, folder: Path, result: Mapping[str, Any]) -> RawOutcome:
        self._check_installation(structure, result)
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
        steps, allowed = int(result["iterations"]), int(job["parameters"]["maxiter"])
        said = f"Converged in {steps} steps"
        converged = said in (folder / script.TEXT).read_text(encoding="utf-8", errors="replace").splitlines()
        pulay = None if result["pulay_estimate"] is None else float(result["pulay_estimate"]) / GPa
        evidence = {
            "converged": converged,
            "convergence": f"GPAW: {said}" if converged else f"{script.TEXT} does not say: {said}",
            "steps": steps,
            "steps_allowed": allowed,
            "version": result["gpaw"],
            "libxc": result["libxc"],
            "kpoints": job["parameters"]["kpts"]["size"],
            "irreducible_kpoints": result["irreducible_kpoints"],
            "grid": result["grid"],
            "bands": result["bands"],
            "width": self.settings.width,
            "charge": structure.charge,
            "starting_moments": job["moments"],
            "box": None if structure.pbc.all() else job["cell"],
            "pulay_estimate": result["pulay_estimate"],
        }
        return RawOutcome(
            structure=self._computed(structure, result),
            properties=_properties(result),
            evidence=evidence,
            warnings=self._warnings(pulay),
        )

    def _computed(self, structure: Structure, result: Mapping[str, Any]) -> Structure:
        """The geometry that GPAW holds, in the frame of the structure that was asked for."""
        cell, shift = self._cell_and_shift(structure)
        got = np.asarray(result["cell"], dtype=float)
        if not structure.pbc.all() and np.allclose(got, cell, rtol=0, atol=1e-9):
            got = np.where(structure.pbc[:, None], got, structure.cell)
        return Structure(
            cell=got,
            pbc=np.asarray(result["pbc"]),
            numbers=np.asarray(result["numbers"]),
            positions=np.asarray(result["positions"], dtype=float) - shift,
            charge=structure.charge,
            moments=structure.moments,
        )

    def _check_installation(self, structure: Structure, result: Mapping[str, Any]) -> None:
        """What computed must be what the theory names; an upgrade may have come between."""
        known = self._installation
        used = {element: result["datasets"][element]["sha256"] for element in structure.elements}
        changed = sorted(element for element, content in used.items() if content != known.files[element])
        if result["gpaw"] != known.version or changed:
            what = (
                f"GPAW {result['gpaw']}" if result["gpaw"] != known.version else f"other data for {', '.join(changed)}"
            )
            raise LabelFailure(
                FailureKind.INCONSISTENT,
                f"computed with {what}, but the theory was made for GPAW {known.version}: start the worker again",
            )

    def _warnings(self, pulay: float | None) -> tuple[str, ...]:
        if pulay is None or abs(pulay) <= PULAY_LIMIT:
            return ()
        message = (
            f"the cutoff of {self.settings.cutoff:g} eV is low for the stress: GPAW estimates a Pulay stress of "
            f"{pulay:.1f} GPa; raise it until this warning is gone"
        )
        return (message,)


def _properties(result: Mapping[str, Any]) -> Properties:
    total = result.get("total_moment")
    return Properties(
        energy=float(result["free_energy"]),
        energy_extrapolated=float(result["energy"]),
        forces=result["forces"],
        stress=result["stress"],
        moments=result.get("moments"),
        total_moment=None if total is None else float(total),
    )


def _read_result(folder: Path) -> dict[str, Any]:
    path = folder / RESULT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        last = (tail(folder / "stderr.txt").strip() or "it said nothing").splitlines()[-1][:300]
        raise LabelFailure(FailureKind.TRUNCATED, f"{path} was not written: {last}") from error
    except ValueError as error:
        raise LabelFailure(FailureKind.TRUNCATED, f"{path} is not complete JSON: {error}") from error
    if not isinstance(content, dict):
        raise LabelFailure(FailureKind.TRUNCATED, f"{path} is not what the script writes")
    return content


_TYPES = (
    (FailureKind.NOT_CONVERGED, {"ConvergenceError"}),
    (FailureKind.MEMORY, {"MemoryError"}),
    (FailureKind.MISSING_FILE, {"FileNotFoundError"}),
    (FailureKind.UNAVAILABLE, {"ImportError"}),
    (FailureKind.REFUSED, {"AtomsTooClose", "NotImplementedError"}),
)
_DISK_FULL = {28, 122}  # ENOSPC, EDQUOT of Linux, where the program ran


def _failure_kind(failure: Mapping[str, Any]) -> FailureKind:
    """The typed cause behind an exception, by the names of its class and the classes above it."""
    if failure.get("errno") in _DISK_FULL:
        return FailureKind.DISK_FULL
    names = set(failure["types"])
    return next((kind for kind, known in _TYPES if known & names), FailureKind.CRASHED)
