"""Any program: a folder of templates goes in, a file with the result comes out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import BaseModel

from alflow.errors import ConfigError, FailureKind, LabelFailure, StructureError, TheoryError
from alflow.folder import keeper
from alflow.labelers._ase import properties_of
from alflow.labelers._command_settings import CommandSettings, TemplateSettings
from alflow.labelers._expand import expand_path
from alflow.labelers._names import unknown_name
from alflow.labelers._program import STARTED, Ended, Invocation, ProgramLabeler
from alflow.labelers._result import RawOutcome
from alflow.labelers._theory import Capabilities, TheorySpec
from alflow.structures import Properties, Structure

if TYPE_CHECKING:
    from alflow.labelers._worker import ProgramSettings, WorkerConfig

_OUTPUT, _ERRORS = "stdout.txt", "stderr.txt"
_OURS = frozenset({keeper.RUN, keeper.RUNNING, keeper.ENDED, STARTED, _OUTPUT, _ERRORS})
"""Files that a run's folder has beside those of the program."""
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_NUMBERS = re.compile(r"\d+")
_SHOWN = 200


class CommandLabeler(ProgramLabeler):
    """Runs a program of the worker's file on templates, and reads one file of the result.

    Nothing of a campaign or a ledger gets into a command or a template: the only thing that is filled in are names of
    files, and these stand in the worker's file.

    Parameters
    ----------
    settings
        which entry of the worker's file
    program
        command and limits of this machine
    template
        what the program is given, and where its answer stands

    Raises
    ------
    ConfigError
        if the folder of templates is missing, empty, or uses a placeholder or a file name that it may not
    TheoryError
        if the arguments are not those recorded with the theory
    """

    name = "command"
    settings_model: type[BaseModel] = CommandSettings

    def __init__(self, settings: CommandSettings, program: ProgramSettings, template: TemplateSettings) -> None:
        super().__init__(program)
        self.settings = settings
        self.template = template
        self._where = f"templates {settings.program!r} of the worker's file"
        if program.version is None or len(_NUMBERS.findall(program.version)) < 2:
            raise ConfigError(
                f"program {settings.program!r} of the worker's file: it needs `version`: a part of the theory"
            )
        if program.potentials is not None:
            raise ConfigError(
                f"program {settings.program!r} of the worker's file: the labeler command takes no `potentials`: put "
                "them into the folder of templates"
            )
        if settings.arguments is not None and settings.arguments != template.arguments:
            raise TheoryError(
                f"{self._where} has the arguments {list(template.arguments)}, but the theory was recorded with "
                f"{list(settings.arguments)}: restore them, or give the campaign another theory"
            )
        self._names = {"structure": template.structure.file, "result": template.result.file}
        self._check_templates()

    @classmethod
    def create(cls, settings: BaseModel, *, worker: WorkerConfig, directory: Path) -> Self:  # noqa: ARG003  uniform
        """Make it from validated settings."""
        assert isinstance(settings, CommandSettings)
        program, template = worker.programs.get(settings.program), worker.templates.get(settings.program)
        for what, found, known in (("program", program, worker.programs), ("template", template, worker.templates)):
            if found is None:
                remedy = f"describe it under `{what}s` in alflow-worker.yaml"
                raise ConfigError(unknown_name(what, settings.program, known, otherwise=remedy))
        assert program is not None
        assert template is not None
        return cls(settings, program, template)

    @property
    def capabilities(self) -> Capabilities:
        """What the worker's file says about the program."""
        template = self.template
        return Capabilities(
            elements=None if template.elements is None else frozenset(template.elements),
            periodic_directions=frozenset(template.periodic_directions),
            stress=template.stress,
            charge=template.charge,
            moments=template.moments,
            net_force_limit=template.net_force_limit,
        )

    @property
    def program_name(self) -> str:
        """Name of the entry in the worker's file."""
        return self.settings.program

    def theory(self) -> TheorySpec:
        """Return code, version and arguments, and the hashes of all templates."""
        return self._theory

    @cached_property
    def _theory(self) -> TheorySpec:
        return TheorySpec(
            labeler=self.name,
            settings={"program": self.settings.program, "arguments": list(self.template.arguments)},
            code=f"{self.template.code} {self.program.version}",
            files={name: hashlib.sha256(content).hexdigest() for name, content in self._templates.items()},
            not_physics=("program",),
        )

    # -- in ----------------------------------------------------------------------------------------------------------

    def write_inputs(self, structure: Structure, folder: Path, rung: int) -> Invocation:  # noqa: ARG002  one rung
        """Write the structure and the templates with the names of files filled in."""
        for name, content in self._templates.items():
            text = _text_of(content)
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content if text is None else self._filled(text).encode())
        for name in self._names.values():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_structure(structure, folder / self.template.structure.file, self.template.structure.format)
        return Invocation(
            arguments=tuple(self._filled(argument) for argument in self.template.arguments),
            stdin=self.template.stdin,
            stdout=_OUTPUT,
            stderr=_ERRORS,
        )

    @cached_property
    def _templates(self) -> dict[str, bytes]:
        """Contents by name, read once: a program is given what the theory names, whatever happens to the files."""
        folder = expand_path(self.template.folder, f"{self._where}, folder")
        if not folder.is_dir():
            raise ConfigError(f"{self._where}: the folder {folder} does not exist: correct `folder`")
        found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        if not found:
            raise ConfigError(f"{self._where}: the folder {folder} is empty: put the inputs of the program there")
        return found

    def _check_templates(self) -> None:
        taken = {*_OURS, *self._names.values()}
        for name in self._templates:
            if name in taken:
                raise ConfigError(
                    f"{self._where}: the file {name} of the templates would be written over: give it another name"
                )
        if self.template.stdin is not None and self.template.stdin not in {*self._templates, self._names["structure"]}:
            raise ConfigError(f"{self._where}: stdin: {self.template.stdin} is not among the templates: put it there")
        if self.template.result.file in _OURS - {_OUTPUT}:
            raise ConfigError(f"{self._where}: result: {self.template.result.file} is a file of alflow's: name another")
        for place, text in self._texts():
            unknown = [word for word in _PLACEHOLDER.findall(text) if word not in self._names]
            if unknown:
                raise ConfigError(
                    f"{self._where}: {place}: "
                    + unknown_name(
                        "placeholder", unknown[0], self._names, otherwise="only names of files are filled in"
                    )
                )

    def _texts(self) -> Iterator[tuple[str, str]]:
        for name, content in self._templates.items():
            text = _text_of(content)
            for number, line in enumerate((text or "").splitlines(), start=1):
                yield f"{name}, line {number}", line
        for argument in self.template.arguments:
            yield "arguments", argument

    def _filled(self, text: str) -> str:
        return _PLACEHOLDER.sub(lambda match: self._names[match[1]], text)

    # -- out ---------------------------------------------------------------------------------------------------------

    def read_outputs(self, structure: Structure, folder: Path, ended: Ended) -> RawOutcome:
        """Look for the evidence of convergence, then read the result."""
        if ended.returncode:
            raise LabelFailure(FailureKind.CRASHED, self._crash(folder, ended))
        said = self._check_convergence(folder)
        self._check_version(folder)
        result = self.template.result
        computed, properties = read_result(folder / result.file, result.format, structure)
        evidence = {
            "converged": True,
            "convergence": f"{self.template.converged.file} says: {said}",
            "version": self.program.version,
        }
        return RawOutcome(structure=computed, properties=properties, evidence=evidence)

    def _check_convergence(self, folder: Path) -> str:
        rule = self.template.converged
        good = bad = None
        for line in _lines(folder / rule.file):
            if good is None and re.search(rule.must, line):
                good = line
            if rule.must_not is not None and re.search(rule.must_not, line):
                bad = line
        if bad is not None:
            raise LabelFailure(FailureKind.NOT_CONVERGED, f"{rule.file} says: {bad.strip()[:_SHOWN]}")
        if good is None:
            raise LabelFailure(FailureKind.NOT_CONVERGED, f"no line of {rule.file} matches {rule.must!r}")
        return good.strip()[:_SHOWN]

    def _check_version(self, folder: Path) -> None:
        rule = self.template.version
        if rule is None:
            return
        found = next((m for line in _lines(folder / rule.file) if (m := re.search(rule.pattern, line))), None)
        if found is None:
            raise LabelFailure(
                FailureKind.INCONSISTENT, f"no line of {rule.file} matches {rule.pattern!r}: which version ran?"
            )
        wanted, printed = (_NUMBERS.findall(str(text))[:2] for text in (self.program.version, found[1]))
        if printed != wanted:
            raise LabelFailure(
                FailureKind.INCONSISTENT,
                f"{self.template.code} {found[1]} ran, but program {self.settings.program!r} of the worker's file is "
                f"version {self.program.version}: correct its `version`",
            )


def _text_of(content: bytes) -> str | None:
    """The content of a text file; None for a binary one, which is copied as it is."""
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            yield from stream
    except FileNotFoundError as error:
        raise LabelFailure(FailureKind.TRUNCATED, f"the program wrote no {path.name}") from error


def write_structure(structure: Structure, path: Path, file_format: str) -> None:
    """Write a structure for a program, its atoms in their order.

    ``json`` holds ``cell`` (3 rows, Å), ``pbc``, ``symbols``, ``positions`` (Å), ``charge`` (e), and ``moments`` (µB)
    where there are some.
    """
    if file_format == "json":
        content: dict[str, Any] = {
            "cell": structure.cell.tolist(),
            "pbc": structure.pbc.tolist(),
            "symbols": structure.to_atoms().get_chemical_symbols(),
            "positions": structure.positions.tolist(),
            "charge": structure.charge,
        }
        if structure.moments is not None:
            content["moments"] = structure.moments.tolist()
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return
    from ase import Atoms
    from ase.io import write

    plain = Atoms(structure.numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc)
    write(path, plain, format=file_format)


def read_result(path: Path, file_format: str, asked: Structure) -> tuple[Structure, Properties]:
    """Read what a program computed: the geometry, which the gate compares with the one asked for, and the numbers.

    ``json`` holds ``symbols``, ``cell`` and ``positions`` (Å), ``energy`` (eV per cell, force-consistent), ``forces``
    (eV/Å), and where they exist ``stress`` (3 × 3, eV/Å³, positive where the cell wants to shrink),
    ``energy_extrapolated`` (eV), ``moments`` and ``total_moment`` (µB), ``dipole`` (e Å).

    Raises
    ------
    LabelFailure
        TRUNCATED where the file is missing or cannot be read to its end
    """
    if not path.is_file():
        raise LabelFailure(FailureKind.TRUNCATED, f"the program wrote no {path.name}")
    try:
        return _from_json(path, asked) if file_format == "json" else _from_ase(path, file_format, asked)
    except LabelFailure:
        raise
    except Exception as error:  # readers raise whatever a broken file makes them stumble over
        raise LabelFailure(
            FailureKind.TRUNCATED, f"{path.name} cannot be read as {file_format}: {type(error).__name__}: {error}"
        ) from error


def _from_json(path: Path, asked: Structure) -> tuple[Structure, Properties]:
    from ase import Atoms

    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, Mapping):
        raise StructureError("it holds no mapping")
    missing = [key for key in ("symbols", "cell", "positions", "energy", "forces") if key not in content]
    if missing:
        raise StructureError(f"it has no {', '.join(missing)}")
    atoms = Atoms(content["symbols"], positions=content["positions"], cell=content["cell"], pbc=asked.pbc)
    names = ("energy", "energy_extrapolated", "forces", "stress", "moments", "total_moment", "dipole")
    return _computed(atoms, asked), Properties(**{name: content[name] for name in names if name in content})


def _from_ase(path: Path, file_format: str, asked: Structure) -> tuple[Structure, Properties]:
    from ase.io import read

    atoms = read(path, index=-1, format=file_format)
    results = {} if atoms.calc is None else dict(atoms.calc.results)
    return _computed(atoms, asked), properties_of(results)


def _computed(atoms: Any, asked: Structure) -> Structure:
    """The computed geometry; charge and initial moments are what was asked for, as no file repeats them."""
    return Structure(
        cell=np.array(atoms.cell),
        pbc=np.array(atoms.pbc),
        numbers=atoms.numbers,
        positions=atoms.positions,
        charge=asked.charge,
        moments=asked.moments if len(atoms) == len(asked) else None,
    )
