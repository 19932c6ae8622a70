"""What runs on this machine: the worker's local configuration file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from alflow.errors import ConfigError
from alflow.labelers._command_settings import TemplateSettings
from alflow.labelers._names import unknown_name
from alflow.labelers._theory import Moments
from alflow.settings import load_settings

WORKER_FILE = "alflow-worker.yaml"


class CalculatorSettings(BaseModel):
    """An ASE calculator that this machine may run: import path, arguments, and what is known about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calculator: str = Field(
        description="import path of the calculator's class, e.g. `ase.calculators.emt.EMT`",
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$",
    )
    arguments: Mapping[str, Any] = Field(
        default_factory=dict,
        description="keyword arguments of the class; `${NAME}` is replaced by that environment variable, "
        "nothing else is",
    )
    convergence: str = Field(
        default="auto",
        description="the evidence of convergence: `analytic` for a potential without self-consistency; else the "
        "attribute or method of the calculator that is true after convergence, e.g. `scf.converged`; `auto` looks for "
        "`converged`",
    )
    code: str | None = Field(
        default=None,
        description="program and version behind the calculator, e.g. `espresso 7.3`; default: the Python package",
    )
    files: Mapping[str, Path] = Field(
        default_factory=dict,
        description="files that define the physics (pseudopotentials, fitted potentials), by role; their content is "
        "hashed into the theory, and arguments equal to such a path count by content, not by place",
    )
    not_physics: tuple[str, ...] = Field(
        default=("directory", "label", "txt", "logfile", "command"),
        description="arguments that do not change the numbers; they stay out of the theory",
    )
    elements: tuple[str, ...] | None = Field(default=None, description="element symbols it handles; default: any")
    periodic_directions: tuple[Annotated[int, Field(ge=0, le=3)], ...] = Field(
        default=(0, 1, 2, 3), description="numbers of periodic directions it handles"
    )
    stress: bool = Field(default=True, description="it computes the stress of three-dimensional crystals")
    charge: bool = Field(default=False, description="it reads the total charge from `atoms.info['charge']`")
    moments: Moments = Field(
        default=Moments.NONE,
        description="initial magnetic moments that it uses; `independent` where the energy cannot depend on them",
    )
    net_force_limit: float | None = Field(
        default=0.01, gt=0, description="largest accepted net force per atom, eV/Å; null where it need not vanish"
    )
    reuse: bool = Field(
        default=False,
        description="keep one calculator for all structures; for models that are slow to load and remember nothing",
    )


class ProgramSettings(BaseModel):
    """A program that this machine may run for a labeler: its command, its limits, its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: tuple[str, ...] = Field(
        min_length=1,
        description="the program and its arguments, e.g. `[mpirun, -np, '16', vasp_std]`; no shell reads them. A "
        "program with a slash and no absolute path is one relative to this file, e.g. `[gpaw/bin/python]`",
    )
    version: str | None = Field(
        default=None,
        description="its version, e.g. `6.4.2`; checked against what it prints. Major and minor are part of the theory",
    )
    potentials: Path | None = Field(
        default=None,
        description="folder of its pseudopotentials or PAW datasets, relative to this file; their content is part of "
        "the theory",
    )
    environment: Mapping[str, str] = Field(default_factory=dict, description="environment variables that it gets")
    wall_seconds: float | None = Field(default=None, gt=0, description="it is ended after so long, s; default: never")
    memory_gb: float | None = Field(
        default=None, gt=0, description="it is ended when it holds more memory, GiB; default: never"
    )
    free_disk_gb: float = Field(
        default=1.0, ge=0, description="it is not started, or ended, where less of the disk is free, GiB"
    )


class RetrySettings(BaseModel):
    """How often a job is repeated before it is quarantined for a person.

    Failures are told by the worker that had the job, deaths by whoever notices them: give all workers of a ledger the
    same numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: int = Field(
        default=3,
        ge=0,
        description="repetitions after failures of the machine: wall time, memory, disk full, truncated, unavailable",
    )
    calculation: int = Field(
        default=1, ge=0, description="repetitions after failures of the calculation: not converged, crashed"
    )
    deaths: int = Field(default=3, ge=1, description="a job that so many workers did not survive is quarantined")
    delay_seconds: float = Field(
        default=30.0,
        ge=0,
        description="pause before the first repetition after a failure of the machine, s; doubled for each further "
        "one, an hour at most",
    )


class OutputSettings(BaseModel):
    """What is kept of the directory of a calculation, once its label or failure is stored.

    `keep`: all, as it is. `prune`: without wavefunctions, densities and other large binary files; inputs and text
    outputs stay. `compress`: all of it in one archive `attempt-1.tar.gz` in the place of the directory. `remove`:
    nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labelled: Literal["keep", "prune", "compress", "remove"] = Field(
        default="keep", description="of calculations that gave a label"
    )
    failed: Literal["keep", "prune", "compress"] = Field(
        default="keep", description="of failed ones, of which what explains the failure always stays"
    )
    prune_above_mb: float = Field(
        default=1.0, ge=0, description="`prune` removes other binary files that are larger, 10⁶ bytes"
    )
    compress_up_to_gb: float = Field(
        default=2.0, ge=0, description="larger directories are pruned before they are compressed, 10⁹ bytes"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        # what explains a failure is never removed
        return {"labelled": given, "failed": "prune" if given == "remove" else given}


class WorkerConfig(BaseModel):
    """The worker's local file: which calculators may run here, and how the worker takes jobs.

    What runs is decided here and never by a row of the ledger, so that access to the database is not access to the
    machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labelers: Mapping[str, CalculatorSettings] = Field(
        default_factory=dict,
        description="calculators for the labeler `ase`, by the name that campaigns use",
    )
    programs: Mapping[str, ProgramSettings] = Field(
        default_factory=dict,
        description="programs of the labelers that run one, by the name that campaigns use; usually the labeler's name",
    )
    templates: Mapping[str, TemplateSettings] = Field(
        default_factory=dict,
        description="what the programs of the labeler `command` are given and where their answers stand, by the same "
        "names",
    )
    lease_seconds: float = Field(
        default=60.0, gt=0, description="a job whose worker is silent for so long is given to another, s"
    )
    batch: int = Field(
        default=4,
        ge=1,
        description="most jobs claimed at once: a worker takes them one by one as long as calculations take more than "
        "a second, so that none waits behind another one while other workers are idle",
    )
    poll_seconds: float = Field(default=2.0, gt=0, description="pause before an empty queue is asked again, s")
    retries: RetrySettings = Field(
        default_factory=RetrySettings, description="how often a job is repeated before it is quarantined"
    )
    slots: Mapping[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="by labeler, how many of its jobs may be under way at once, over all workers of the ledger, e.g. "
        "`{vasp: 4}` for four licences; default: no limit",
    )
    scratch: Path | None = Field(
        default=None,
        description="folder in which job directories are made, relative to this file; default: beside the ledger's "
        "artifacts",
    )
    outputs: OutputSettings = Field(
        default_factory=OutputSettings,
        description="what is kept of the directories of calculations: `keep`, `prune`, `compress` or `remove` for all, "
        "or a section. The earlier `keep_files: true` means `keep`, `keep_files: false` means "
        "`{labelled: remove, failed: keep}`",
    )

    @model_validator(mode="before")
    @classmethod
    def _keep_files(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or "keep_files" not in given:
            return given
        rest = {name: value for name, value in given.items() if name != "keep_files"}
        keep = given["keep_files"]
        if keep not in (True, False):
            raise ValueError(f"keep_files: {keep!r} is neither true nor false; `outputs` says what is kept")
        if "outputs" in rest:
            raise ValueError("keep_files and outputs say the same thing: leave keep_files out")
        return {**rest, "outputs": "keep" if keep else {"labelled": "remove", "failed": "keep"}}

    @field_validator("slots")
    @classmethod
    def _labelers_exist(cls, slots: Mapping[str, int]) -> Mapping[str, int]:
        # a mistyped name would limit nothing, and be noticed by the licence server only
        from alflow.labelers._registry import labeler_names

        known = labeler_names() if slots else ()
        for name in slots:
            if name not in known:
                raise ValueError(unknown_name("labeler", name, known, otherwise="others come with packages"))
        return slots

    def program(self, name: str) -> ProgramSettings:
        """Return an entry of ``programs``; raises ConfigError where there is none of that name."""
        if name not in self.programs:
            remedy = "describe it under `programs` in alflow-worker.yaml"
            raise ConfigError(unknown_name("program", name, self.programs, otherwise=remedy))
        return self.programs[name]


_ELSEWHERE = ("/", "~", "$")
"""How paths begin that do not start from the folder of their file."""


def load_worker_config(path: Path | None = None, *, directory: Path | None = None) -> WorkerConfig:
    """Read the worker's local file.

    Parameters
    ----------
    path
        the file, from whose folder the relative paths in it start; default: ``alflow-worker.yaml`` in ``directory`` or
        the working directory, else ``~/.config/alflow/worker.yaml``, else the defaults, which allow the built-in
        labelers only
    directory
        folder that is searched first, e.g. the campaign file's

    Raises
    ------
    ConfigError
        listing every problem with file, line and key
    """
    if path is None:
        path = next((p for p in _places(directory) if p.is_file()), None)
        if path is None:
            return WorkerConfig()
    settings = load_settings(path, WorkerConfig, missing="write it, or leave the option out").settings
    return _relative_to(path.resolve().parent, settings)


def _relative_to(folder: Path, settings: WorkerConfig) -> WorkerConfig:
    """Paths in the file start from its folder, wherever the worker is started."""

    def placed(path: Path | None) -> Path | None:
        return path if path is None or str(path).startswith(_ELSEWHERE) else folder / path

    programs = {
        name: program.model_copy(
            update={
                "command": (
                    str(placed(Path(program.command[0]))) if os.sep in program.command[0] else program.command[0],
                    *program.command[1:],
                ),
                "potentials": placed(program.potentials),
            }
        )
        for name, program in settings.programs.items()
    }
    templates = {
        name: template.model_copy(update={"folder": placed(template.folder)})
        for name, template in settings.templates.items()
    }
    return settings.model_copy(
        update={"programs": programs, "templates": templates, "scratch": placed(settings.scratch)}
    )


def _places(directory: Path | None) -> tuple[Path, ...]:
    folders = () if directory is None else (directory,)
    base = os.environ.get("XDG_CONFIG_HOME")
    home = Path(base) if base else Path.home() / ".config"
    return (*(folder / WORKER_FILE for folder in (*folders, Path.cwd())), home / "alflow" / "worker.yaml")
