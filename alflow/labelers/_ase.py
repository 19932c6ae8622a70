"""Any ASE calculator, as far as the worker's local configuration allows it to run."""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import json
import os
import tempfile
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from alflow.errors import ConfigError, FailureKind, LabelFailure, TheoryError
from alflow.labelers._expand import expand, expand_path
from alflow.labelers._in_process import InProcessLabeler
from alflow.labelers._names import unknown_name
from alflow.labelers._result import RawOutcome
from alflow.labelers._theory import Capabilities, Moments, TheorySpec, code_version, file_hash
from alflow.structures import Properties, Structure

if TYPE_CHECKING:
    from ase import Atoms

    from alflow.labelers._worker import CalculatorSettings, WorkerConfig

_ANALYTIC = frozenset(
    f"ase.calculators.{module}"
    for module in ("eam", "emt", "harmonic", "lj", "morse", "tersoff", "tip3p", "tip4p", "ff")
)
"""Modules of ASE whose calculators are closed expressions: there is nothing to converge."""


class AseSettings(BaseModel):
    """Settings of the labeler `ase`. A campaign names a calculator; what that is stands in the worker's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calculator: str = Field(description="name of an entry under `labelers` in the worker's file, alflow-worker.yaml")
    import_path: str | None = Field(
        default=None,
        description="class of the calculator, as recorded with the theory; it must agree with the worker's file",
    )
    arguments: Mapping[str, Any] | None = Field(
        default=None,
        description="resolved arguments, as recorded with the theory; they must agree with the worker's file",
    )


class AseLabeler(InProcessLabeler):
    """Runs an ASE calculator in this process, made anew for every structure unless the worker's file says ``reuse``.

    Nothing that runs comes from the campaign or the ledger: import path, arguments and environment stand in the
    worker's local file. Settings recorded with a theory are only compared with it.

    Parameters
    ----------
    settings
        which entry of the worker's file
    worker
        the worker's local configuration

    Raises
    ------
    ConfigError
        if the worker's file has no such entry, or the calculator cannot be imported or made
    TheoryError
        if the entry computes other physics than the settings recorded with the theory
    """

    name = "ase"
    settings_model: type[BaseModel] = AseSettings

    def __init__(self, settings: AseSettings, *, worker: WorkerConfig) -> None:
        entry = worker.labelers.get(settings.calculator)
        if entry is None:
            raise ConfigError(
                unknown_name(
                    "calculator",
                    settings.calculator,
                    worker.labelers,
                    otherwise="describe it under `labelers` in alflow-worker.yaml",
                )
            )
        self.settings = settings
        self._entry: CalculatorSettings = entry
        self._where = f"calculator {settings.calculator!r} of the worker's file"
        self._kept: Any = None
        self._compare_with_recorded()

    @classmethod
    def create(cls, settings: BaseModel, *, worker: WorkerConfig, directory: Path) -> Self:  # noqa: ARG003  uniform
        """Make it from validated settings."""
        assert isinstance(settings, AseSettings)
        return cls(settings, worker=worker)

    @property
    def capabilities(self) -> Capabilities:
        """What the worker's file says about the calculator."""
        entry = self._entry
        analytic = entry.calculator.rpartition(".")[0] in _ANALYTIC
        moments = Moments.INDEPENDENT if analytic and entry.moments is Moments.NONE else entry.moments
        return Capabilities(
            elements=None if entry.elements is None else frozenset(entry.elements),
            periodic_directions=frozenset(entry.periodic_directions),
            stress=entry.stress,
            charge=entry.charge,
            moments=moments,
            net_force_limit=entry.net_force_limit,
        )

    def theory(self) -> TheorySpec:
        """Return the class, its arguments with the class's own defaults resolved, and the hashes of its files."""
        return self._theory

    @cached_property
    def _theory(self) -> TheorySpec:
        return TheorySpec(
            labeler=self.name,
            settings={
                "calculator": self.settings.calculator,
                "import_path": self._entry.calculator,
                "arguments": self._resolved_arguments,
            },
            code=self._code(),
            files={role: file_hash(path) for role, path in self._files.items()},
            not_physics=("calculator",),
        )

    def compute(self, structure: Structure, directory: Path | None) -> RawOutcome:
        """Run the calculator; whatever it raises becomes a LabelFailure with a typed cause."""
        with ExitStack() as stack:
            if directory is None:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alflow-")))
            try:
                calculator = self._calculator()
                if hasattr(calculator, "directory"):
                    calculator.directory = str(directory)
                atoms = structure.to_atoms()
                results = self._run(calculator, atoms, stress=self._entry.stress and bool(structure.pbc.all()))
                return RawOutcome(
                    structure=_computed_geometry(calculator, atoms, structure),
                    properties=properties_of(results),
                    evidence=self._evidence(calculator),
                )
            except LabelFailure:
                raise
            except Exception as error:  # foreign code may raise anything; each becomes a typed cause
                (directory / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
                raise LabelFailure(failure_kind(error), f"{self._where}: {type(error).__name__}: {error}") from error

    # -- the calculator ------------------------------------------------------------------------------------------

    @cached_property
    def _factory(self) -> Callable[..., Any]:
        module_name, _, attribute = self._entry.calculator.rpartition(".")
        try:
            factory = getattr(importlib.import_module(module_name), attribute)
        except ImportError as error:
            raise ConfigError(
                f"{self._where}: {self._entry.calculator} cannot be imported ({error}): correct the path or "
                "install the package"
            ) from error
        except AttributeError as error:
            raise ConfigError(f"{self._where}: {module_name} has no {attribute!r}: correct the path") from error
        if not callable(factory):
            raise ConfigError(f"{self._where}: {self._entry.calculator} is not a class or function")
        return factory  # type: ignore[no-any-return]

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return {k: expand(v, f"{self._where}, argument {k}") for k, v in self._entry.arguments.items()}

    @cached_property
    def _files(self) -> dict[str, Path]:
        files = {role: expand_path(path, f"{self._where}, file {role}") for role, path in self._entry.files.items()}
        for role, path in files.items():
            if not path.is_file():
                raise ConfigError(f"{self._where}: the file {path} ({role}) does not exist: correct `files`")
        return files

    def _calculator(self) -> Any:
        if self._kept is not None:
            self._kept.reset()
            return self._kept
        calculator = self._make()
        if self._entry.reuse:
            self._kept = calculator
        return calculator

    def calculator(self) -> Any:
        """Return a calculator of its own; raises ConfigError if it cannot be imported."""
        return self._make()

    def _make(self) -> Any:
        return self._factory(**self._arguments)

    def _run(self, calculator: Any, atoms: Atoms, *, stress: bool) -> Mapping[str, Any]:
        from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError, all_changes

        wanted = ["energy", "forces", *(["stress"] if stress else [])]
        if isinstance(calculator, BaseCalculator):
            # One call for everything: asked one by one, some codes would run once per property.
            calculator.calculate(atoms, wanted, list(all_changes))
            return dict(calculator.results)
        results = {name: calculator.get_property(name, atoms) for name in wanted}
        try:
            results["free_energy"] = calculator.get_property("free_energy", atoms)
        except (PropertyNotImplementedError, NotImplementedError):
            return results
        return results

    def _evidence(self, calculator: Any) -> dict[str, Any]:
        rule = self._entry.convergence
        if rule == "analytic":
            return {"converged": True, "convergence": "declared analytic in the worker's file"}
        if rule == "auto" and type(calculator).__module__ in _ANALYTIC:
            return {"converged": True, "convergence": "analytic potential, nothing to converge"}
        attribute = "converged" if rule == "auto" else rule
        value: Any = calculator
        for part in attribute.split("."):
            value = getattr(value, part, None)
        if callable(value):
            value = value()
        if value is None:
            message = (
                f"{self._where} gives no evidence of convergence (no `{attribute}`): set `convergence` to the "
                "attribute that is true after convergence, or to `analytic` for a potential without self-consistency"
            )
            return {"converged": False, "convergence": message}
        return {"converged": bool(value), "convergence": f"the calculator's `{attribute}` is {value}"}

    # -- the theory ----------------------------------------------------------------------------------------------

    @cached_property
    def _resolved_arguments(self) -> dict[str, Any]:
        try:
            parameters = getattr(self._make(), "parameters", None)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{self._where} cannot be made: {type(error).__name__}: {error}: correct its arguments"
            ) from error
        resolved = dict(self._arguments)
        if isinstance(parameters, Mapping):
            # Defaults of the class are physics too. Objects among them are made by the class from what is listed.
            resolved = {k: v for k, v in parameters.items() if _is_json(v)} | resolved
        by_path = {str(path): f"file:{role}" for role, path in self._files.items()}
        skipped = self._entry.not_physics
        return {k: _by_content(_plain(v), by_path) for k, v in sorted(resolved.items()) if k not in skipped}

    def _code(self) -> str:
        path = self._entry.calculator
        if self._entry.code is not None:
            return f"{self._entry.code} {path}"
        distribution = _distribution_of(path.partition(".")[0])
        return path if distribution is None else f"{distribution} {code_version(distribution)} {path}"

    def _compare_with_recorded(self) -> None:
        recorded = self.settings
        if recorded.import_path is not None and recorded.import_path != self._entry.calculator:
            raise TheoryError(
                f"{self._where} is {self._entry.calculator}, but the theory was recorded with {recorded.import_path}: "
                "restore the entry, or give the campaign another theory"
            )
        if recorded.arguments is None:
            return
        here, there = self._resolved_arguments, _plain(recorded.arguments)
        different = sorted(k for k in here.keys() | there.keys() if here.get(k) != there.get(k))
        if different:
            raise TheoryError(
                f"{self._where} differs from the recorded theory in {', '.join(different)}: labels of two "
                "theories never mix; restore the entry, or give the campaign another theory"
            )


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Installed distributions by importable package; reading every installation takes a second."""
    return importlib.metadata.packages_distributions()


def _distribution_of(package: str) -> str | None:
    """Name under which an importable package was installed; None for a loose module."""
    try:
        return str(importlib.metadata.distribution(package).metadata["Name"])
    except importlib.metadata.PackageNotFoundError:
        found = _distributions().get(package)
        return found[0] if found else None


def failure_kind(error: BaseException) -> FailureKind:
    """Type the cause behind whatever a calculator raised."""
    from ase.calculators.calculator import (
        BadConfiguration,
        CalculatorSetupError,
        InputError,
        PropertyNotImplementedError,
        ReadError,
        SCFError,
    )

    if isinstance(error, SCFError) or "convergence" in type(error).__name__.lower():
        return FailureKind.NOT_CONVERGED
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return FailureKind.DISK_FULL
    table: tuple[tuple[FailureKind, tuple[type[BaseException], ...]], ...] = (
        (FailureKind.MEMORY, (MemoryError,)),
        (FailureKind.WALL_TIME, (TimeoutError,)),
        (FailureKind.MISSING_FILE, (FileNotFoundError,)),
        (FailureKind.TRUNCATED, (ReadError, EOFError)),
        (FailureKind.UNAVAILABLE, (BadConfiguration, ImportError)),
        (FailureKind.REFUSED, (PropertyNotImplementedError, NotImplementedError, CalculatorSetupError, InputError)),
    )
    return next((kind for kind, types in table if isinstance(error, types)), FailureKind.CRASHED)


def properties_of(results: Mapping[str, Any]) -> Properties:
    """Read the results of an ASE calculator; raises LabelFailure where there is no energy."""
    energy = results.get("energy")
    free = results.get("free_energy")
    if energy is None:
        raise LabelFailure(FailureKind.INCONSISTENT, "the calculator returned no energy")
    smeared = free is not None and float(free) != float(energy)
    stress = results.get("stress")
    return Properties(
        energy=float(energy if free is None else free),
        energy_extrapolated=float(energy) if smeared else None,
        forces=results.get("forces"),
        stress=stress,
        dipole=results.get("dipole"),
        moments=results.get("magmoms"),
        total_moment=None if results.get("magmom") is None else float(results["magmom"]),
    )


def _computed_geometry(calculator: Any, atoms: Atoms, asked: Structure) -> Structure:
    """Return what the calculator says it computed, else what became of the atoms it was given."""
    own = getattr(calculator, "atoms", None)
    given = Structure.from_atoms(atoms)
    if own is None or given != asked:
        return given
    return Structure.from_atoms(own)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(_plain(value), allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _plain(value: Any) -> Any:
    """Return numpy scalars and arrays, paths and tuples as JSON values."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _by_content(value: Any, by_path: Mapping[str, str]) -> Any:
    """Replace paths of declared files by their role: the hash of the content counts, not the place."""
    if isinstance(value, dict):
        return {k: _by_content(v, by_path) for k, v in value.items()}
    if isinstance(value, list):
        return [_by_content(v, by_path) for v in value]
    return by_path.get(value, value) if isinstance(value, str) else value
