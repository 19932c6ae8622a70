"""Whether a labeler can work on this machine, and what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alflow.errors import AlflowError, ConfigError, LabelFailure
from alflow.labelers._expand import expand_path
from alflow.labelers._noise import small_crystal
from alflow.labelers._program import ProgramLabeler
from alflow.labelers._protocol import Labeler
from alflow.labelers._registry import get_labeler, labeler_type
from alflow.labelers._theory import Capabilities
from alflow.labelers._worker import ProgramSettings, WorkerConfig
from alflow.structures import Structure


@dataclass(frozen=True, kw_only=True)
class Examined:
    """One thing that was looked at; ``ok`` None: it could not be, or need not be."""

    what: str
    ok: bool | None
    text: str


def examine_labeler(
    name: str,
    settings: Mapping[str, Any],
    *,
    worker: WorkerConfig,
    directory: Path,
    elements: Sequence[str] = (),
    structure: Structure | None = None,
    run: bool = True,
) -> Iterator[Examined]:
    """Look for a labeler's program and potentials, ask for its version and its theory, and compute one small crystal.

    Nothing is raised: what is wrong is a finding that says how to mend it.

    Parameters
    ----------
    name, settings, worker, directory
        as for :func:`alflow.labelers.get_labeler`
    elements
        that it has to know; the first two make the crystal that is computed
    structure
        computed instead
    run
        False: nothing is computed
    """
    try:
        kind = labeler_type(name)
    except AlflowError as error:
        yield Examined(what="labeler", ok=False, text=str(error))
        return
    labeler, spec, failure = None, None, ""
    try:
        labeler = get_labeler(name, settings, worker=worker, directory=directory)
        spec = labeler.theory()
    except AlflowError as error:
        failure = str(error)
    if issubclass(kind, ProgramLabeler):
        entry = str(settings.get("program", name))
        # a labeler may know its program without an entry
        program = labeler.program if isinstance(labeler, ProgramLabeler) else worker.programs.get(entry)
        yield from _program(entry, program, worker)
    if labeler is None or spec is None:
        yield Examined(what="labeler", ok=False, text=failure)
        return
    yield Examined(what="labeler", ok=True, text=f"{name}, {spec.code}, theory {spec.fingerprint[:12]}")
    if spec.files:
        listed = ", ".join(f"{role} {digest[:12]}" for role, digest in sorted(spec.files.items()))
        yield Examined(what="files", ok=True, text=listed)
    yield Examined(what="computes", ok=True, text=_capabilities(labeler.capabilities))
    known = labeler.capabilities.elements
    missing = [] if known is None else [element for element in elements if element not in known]
    if missing:
        yield Examined(
            what="elements",
            ok=False,
            text=f"it has nothing for {', '.join(missing)}: name their potentials, or choose another labeler",
        )
    if run:
        tried = structure or small_crystal(tuple(e for e in elements if e not in missing) or _some(known))
        yield _calculation(labeler, tried)


def _some(known: frozenset[str] | None) -> tuple[str, ...]:
    return (sorted(known)[0],) if known else ("Cu",)


def _program(name: str, program: ProgramSettings | None, worker: WorkerConfig) -> Iterator[Examined]:
    if program is None:
        listed = f" (it has {', '.join(sorted(worker.programs))})" if worker.programs else ""
        yield Examined(
            what="program",
            ok=False,
            text=f"the worker's file has no entry {name!r} under `programs`{listed}: describe its command there",
        )
        return
    yield _command(name, program)
    if program.potentials is not None:
        try:
            place = expand_path(program.potentials, f"programs: {name}: potentials")
        except ConfigError as error:
            yield Examined(what="potentials", ok=False, text=str(error))
            return
        found = place.is_dir()
        text = f"{place}" if found else f"the folder {place} does not exist: correct `programs: {name}: potentials`"
        yield Examined(what="potentials", ok=found, text=text)


def _command(name: str, program: ProgramSettings) -> Examined:
    command = program.command[0]
    place = shutil.which(command, path=program.environment.get("PATH"))
    if place is None:
        return Examined(
            what="program",
            ok=False,
            text=f"{command} is not on this machine: correct `programs: {name}: command`, or load what brings it",
        )
    return Examined(what="program", ok=True, text=" ".join([place, *program.command[1:]]))


def _capabilities(capabilities: Capabilities) -> str:
    elements = "any element" if capabilities.elements is None else ", ".join(sorted(capabilities.elements))
    kinds = ["energy", *(["forces"] if capabilities.forces else []), *(["stress"] if capabilities.stress else [])]
    periodic = ", ".join(str(n) for n in sorted(capabilities.periodic_directions))
    charge = "charged structures" if capabilities.charge else "no charge"
    return (
        f"{', '.join(kinds)} of {elements}; {periodic} periodic directions, {charge}, moments: {capabilities.moments}"
    )


def _calculation(labeler: Labeler, structure: Structure) -> Examined:
    reason = labeler.refuses(structure)
    if reason is not None:
        return Examined(
            what="trial", ok=None, text=f"{structure.formula} is refused: {reason}; name another with --structure"
        )
    try:
        result = labeler.label(structure)
    except LabelFailure as failure:
        return Examined(what="trial", ok=False, text=f"{structure.formula}: {failure}")
    parts = [
        f"{structure.formula} in {result.seconds:.2g} s: {result.properties.energy / structure.n_atoms:.6f} eV/atom",
        str(result.evidence.get("convergence", "")),
        *result.warnings,
    ]
    return Examined(what="trial", ok=True, text="; ".join(part for part in parts if part))
