"""Quantum ESPRESSO: plane waves and pseudopotentials, by its program pw.x."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from ase.data import chemical_symbols
from ase.units import Rydberg

from alflow.errors import ConfigError, FailureKind, LabelFailure
from alflow.labelers._cell import k_mesh, room_along
from alflow.labelers._espresso_settings import EspressoSettings
from alflow.labelers._expand import expand_path
from alflow.labelers._program import Ended, Invocation, ProgramLabeler
from alflow.labelers._pw_input import (
    MAX_SPECIES,
    OUT,
    PREFIX,
    RUNGS,
    Assignment,
    Namelists,
    assign_species,
    input_text,
    merged,
)
from alflow.labelers._pw_output import PwNumbers, PwText, read_numbers, read_text, version_in, version_numbers, xml_file
from alflow.labelers._result import RawOutcome
from alflow.labelers._theory import Capabilities, Moments, TheorySpec, file_hash
from alflow.labelers._upf import Pseudopotential, read_family
from alflow.structures import Properties, Structure

if TYPE_CHECKING:
    from pydantic import BaseModel

    from alflow.labelers._worker import ProgramSettings, WorkerConfig

_INPUT, _OUTPUT, _ERRORS, _PSEUDO = "pw.in", "pw.out", "pw.err", "pseudo"
_PROBE_SECONDS = 60.0
_ENERGY_AGREES = 1e-6
"""Ry: the text has eight digits behind the point."""
_CORRECTION_LIMIT = 0.01
"""eV/Å: from here on the density is not converged well enough for forces."""


class EspressoLabeler(ProgramLabeler):
    """Runs pw.x once per structure, with forces and stress.

    Parameters
    ----------
    settings
        the physics
    program
        command, potentials and limits of this machine

    Raises
    ------
    ConfigError
        if a pseudopotential is missing, is for another element, or is made for another functional than the others;
        if pw.x does not say its version
    """

    name = "espresso"
    settings_model: type[BaseModel] = EspressoSettings

    def __init__(self, settings: EspressoSettings, program: ProgramSettings) -> None:
        super().__init__(program)
        self._where = f"program {settings.program!r} of the worker's file"
        self.potentials = self._read_potentials(settings)
        dense = 4 if all(p.norm_conserving for p in self.potentials.values()) else 8
        ecutrho = dense * settings.ecutwfc if settings.ecutrho is None else settings.ecutrho
        self.settings = settings.model_copy(update={"ecutrho": ecutrho})

    @classmethod
    def create(cls, settings: BaseModel, *, worker: WorkerConfig, directory: Path) -> Self:  # noqa: ARG003  uniform
        """Make it from validated settings."""
        assert isinstance(settings, EspressoSettings)
        return cls(settings, worker.program(settings.program))

    @property
    def capabilities(self) -> Capabilities:
        """Elements with a pseudopotential; crystals, and with `vacuum` all else."""
        settings = self.settings
        return Capabilities(
            elements=frozenset(self.potentials),
            periodic_directions=frozenset({3} if settings.vacuum is None else {0, 1, 2, 3}),
            charge=settings.charge == "background",
            moments=Moments.COLLINEAR if settings.spin == "collinear" else Moments.NONE,
        )

    def theory(self) -> TheorySpec:
        """Return the resolved settings, the version of pw.x, and the hashes of the pseudopotentials."""
        return self._theory

    @cached_property
    def _theory(self) -> TheorySpec:
        return TheorySpec(
            labeler=self.name,
            settings=self.settings.model_dump(mode="json"),
            code=f"quantum-espresso {'.'.join(map(str, version_numbers(self.version)[:2]))}",
            files={element: potential.sha256 for element, potential in sorted(self.potentials.items())},
            not_physics=("program", "pseudopotentials"),
        )

    @cached_property
    def version(self) -> str:
        """The version that the worker's file declares, else the one that pw.x prints when it is started."""
        version = self.program.version or self._probed_version()
        if len(version_numbers(version)) < 2:
            raise ConfigError(f"{self._where}: the version {version!r} is not one of pw.x, e.g. 7.3: correct `version`")
        return version

    def refuses(self, structure: Structure) -> str | None:
        """Return the reason why this structure cannot be labelled, or None."""
        return super().refuses(structure) or self._refuses_space(structure) or self._refuses_electrons(structure)

    @property
    def program_name(self) -> str:
        """Name of the entry in the worker's file."""
        return self.settings.program

    @property
    def n_rungs(self) -> int:
        """Usual mixing, patient mixing, and a slow but safe diagonaliser without symmetry."""
        return len(RUNGS)

    def write_inputs(self, structure: Structure, folder: Path, rung: int) -> Invocation:
        """Write pw.in and copy the pseudopotentials, so that the folder can be computed on another machine."""
        for place in (OUT, _PSEUDO):
            (folder / place).mkdir()
        for element in structure.elements:
            self._copy(self.potentials[element], folder / _PSEUDO)
        assignment = self._assignment(structure)
        text = input_text(
            merged(self._namelists(structure, assignment), RUNGS[rung]),
            structure,
            assignment,
            {element: potential.path.name for element, potential in self.potentials.items()},
            k_mesh(structure, self.settings.k_spacing),
        )
        (folder / _INPUT).write_text(text, encoding="ascii")
        return Invocation(arguments=("-in", _INPUT), stdout=_OUTPUT, stderr=_ERRORS)

    def read_outputs(self, structure: Structure, folder: Path, ended: Ended) -> RawOutcome:
        """Read the text for convergence and the XML file for the numbers, which must agree.

        That the text ends with JOB DONE proves nothing: pw.x writes it after a failed cycle, too.
        """
        text = read_text(folder / _OUTPUT)
        if text.failure is not None:
            raise text.failure
        if ended.returncode:
            raise LabelFailure(FailureKind.CRASHED, self._crash(folder, ended))
        if text.iterations is None or text.energy is None or not text.done:
            raise LabelFailure(
                FailureKind.TRUNCATED, f"{_OUTPUT} of pw.x ends before convergence, energy and JOB DONE were written"
            )
        self._check_run(text)
        numbers = read_numbers(folder, structure)
        if abs(numbers.energy / Rydberg - text.energy) > _ENERGY_AGREES:
            raise LabelFailure(
                FailureKind.INCONSISTENT,
                f"pw.x printed an energy of {text.energy:.8f} Ry but wrote {numbers.energy / Rydberg:.8f} Ry",
            )
        return RawOutcome(
            structure=numbers.structure,
            properties=self._properties(numbers, text),
            evidence=self._evidence(structure, numbers, text),
            warnings=self._warnings(structure, text),
        )

    def explain(self, folder: Path, ended: Ended) -> LabelFailure | None:  # noqa: ARG002  uniform
        """What pw.x says of an error; what the machine says comes first where pw.x only repeats it."""
        failure = read_text(folder / _OUTPUT).failure
        if failure is None or failure.kind is not FailureKind.CRASHED:
            return failure
        return self._seen_in_output(folder) or failure

    def discard(self, folder: Path) -> None:
        """Remove wavefunctions and density, which are large, and the copies of pseudopotentials, which are known.

        A finished run needs only its XML file.
        """
        kept = xml_file(folder)
        for path in [*(folder / OUT).rglob("*"), *(folder / _PSEUDO).glob("*")]:
            if path.is_file() and path != kept:
                with contextlib.suppress(OSError):
                    path.unlink()

    # -- the machine -------------------------------------------------------------------------------------------------

    def _read_potentials(self, settings: EspressoSettings) -> dict[str, Pseudopotential]:
        if self.program.potentials is None:
            raise ConfigError(f"{self._where} has no `potentials`: add the folder of the pseudopotentials")
        place = expand_path(self.program.potentials, f"{self._where}, potentials").resolve()
        return read_family({element: place / name for element, name in settings.pseudopotentials.items()})

    @staticmethod
    def _copy(potential: Pseudopotential, folder: Path) -> None:
        file = potential.path
        try:
            shutil.copyfile(file, folder / file.name)
        except FileNotFoundError as error:
            raise LabelFailure(FailureKind.MISSING_FILE, f"the pseudopotential {file} is gone: restore it") from error
        if file_hash(folder / file.name) != potential.sha256:
            raise LabelFailure(
                FailureKind.INCONSISTENT,
                f"the pseudopotential {file} was changed since it was read: restore it, or start the worker anew",
            )

    def _probed_version(self) -> str:
        """Start pw.x with nothing to do: it prints its banner and ends."""
        hint = "correct `command`, or declare `version`"
        with tempfile.TemporaryDirectory(prefix="alflow-espresso-") as place:
            try:
                ended = subprocess.run(  # noqa: S603  the worker's own file
                    self.program.command,
                    cwd=place,
                    env={**os.environ, **self.program.environment},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=_PROBE_SECONDS,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise ConfigError(f"{self._where} cannot be started to learn its version: {error}: {hint}") from error
        version = version_in(ended.stdout.decode(errors="replace"))
        if version is None:
            raise ConfigError(f"{self._where} does not print the banner of pw.x: {hint}")
        return version

    def _check_run(self, text: PwText) -> None:
        """Whether the program and the pseudopotentials were those of the theory."""
        wanted = version_numbers(self.version)
        printed = version_numbers(text.version or "")
        if printed[: len(wanted)] != wanted:
            raise LabelFailure(
                FailureKind.INCONSISTENT,
                f"pw.x {text.version} ran, but {self._where} is version {self.version}: correct its `version`",
            )
        # Where a file is missing, pw.x silently looks in other folders for one of that name.
        strange = text.md5 - {potential.md5 for potential in self.potentials.values()}
        if strange:
            raise LabelFailure(
                FailureKind.INCONSISTENT,
                f"pw.x read a pseudopotential with MD5 {min(strange)}, which is none of the theory's: a file changed",
            )

    # -- one structure -----------------------------------------------------------------------------------------------

    def _refuses_space(self, structure: Structure) -> str | None:
        """Directions that are not periodic need vacuum, since pw.x repeats everything."""
        for axis in np.flatnonzero(~structure.pbc):
            room = room_along(structure, int(axis))
            if room < (self.settings.vacuum or 0.0):
                return (
                    f"{room:.1f} Å of vacuum along cell vector {axis + 1}, which is not periodic, less than "
                    f"vacuum: {self.settings.vacuum:g}"
                )
        return None

    def _refuses_electrons(self, structure: Structure) -> str | None:
        moments = self._starting_moments(structure)
        if isinstance(moments, str):
            return moments
        assignment = assign_species(structure, moments)
        if len(assignment.species) > MAX_SPECIES:
            return f"{len(assignment.species)} different pairs of element and moment; pw.x takes {MAX_SPECIES}"
        for kind in assignment.species:
            valence = self.potentials[kind.element].valence
            if abs(kind.moment) > valence:
                return f"a moment of {kind.moment:g} µB on {kind.element}, which has {valence:g} valence electrons"
        electrons = sum(self.potentials[assignment.species[i].element].valence for i in assignment.of_atom)
        electrons -= structure.charge
        if electrons <= 0:
            return f"{electrons:g} valence electrons"
        if self.settings.occupations == "fixed" and abs(electrons / 2 - round(electrons / 2)) > 1e-6:
            return f"{electrons:g} valence electrons, which occupations: fixed cannot pair"
        return None

    def _starting_moments(self, structure: Structure) -> list[float] | str:
        """µB per atom, or the reason why they are not known."""
        if self.settings.spin == "none":
            return [0.0] * structure.n_atoms
        if structure.moments is not None:
            return [float(moment) for moment in structure.moments]
        known = self.settings.starting_moments
        unknown = [element for element in structure.elements if element not in known]
        if unknown:
            return f"no starting moment for {', '.join(unknown)}: add it to starting_moments, 0 if it is not magnetic"
        return [known[chemical_symbols[number]] for number in structure.numbers]

    def _assignment(self, structure: Structure) -> Assignment:
        moments = self._starting_moments(structure)
        assert not isinstance(moments, str), moments
        return assign_species(structure, moments)

    def _namelists(self, structure: Structure, assignment: Assignment) -> Namelists:
        settings = self.settings
        assert settings.ecutrho is not None
        physics: Namelists = {
            "control": {
                "calculation": "scf",
                "prefix": PREFIX,
                "outdir": f"./{OUT}",
                "pseudo_dir": f"./{_PSEUDO}",
                "tprnfor": True,
                "tstress": bool(structure.pbc.all()),
                "disk_io": "low",
            },
            "system": {
                "ibrav": 0,
                "nat": structure.n_atoms,
                "ntyp": len(assignment.species),
                "ecutwfc": settings.ecutwfc,
                "ecutrho": settings.ecutrho,
                "tot_charge": structure.charge,
                "occupations": settings.occupations,
            },
            "electrons": {"conv_thr": settings.conv_thr * structure.n_atoms, "scf_must_converge": True},
        }
        system = physics["system"]
        if settings.occupations == "smearing":
            system |= {"smearing": settings.smearing, "degauss": settings.degauss}
        if settings.input_dft is not None:
            system["input_dft"] = settings.input_dft
        if assignment.magnetic:
            system["nspin"] = 2
            for number, kind in enumerate(assignment.species, start=1):
                share = kind.moment / self.potentials[kind.element].valence
                system[f"starting_magnetization({number})"] = share
        return physics

    def _properties(self, numbers: PwNumbers, text: PwText) -> Properties:
        moments = text.moments
        if moments is not None and (numbers.total_moment is None or len(moments) != numbers.structure.n_atoms):
            moments = None
        return Properties(
            energy=numbers.energy,
            energy_extrapolated=self._extrapolated(numbers.energy, numbers.smearing),
            forces=numbers.forces,
            stress=numbers.stress,
            moments=moments,
            total_moment=numbers.total_moment,
        )

    def _extrapolated(self, free: float, smearing: float) -> float | None:
        """Energy without smearing from F and -TS, (E + F) / 2; None where F itself is the best that is known.

        Gaussian and Fermi-Dirac smearing make errors of E and F that are quadratic in the width and opposite.
        Methfessel-Paxton and cold smearing make the quadratic error of F vanish (Methfessel and Paxton, Phys. Rev. B
        40, 3616, 1989; Marzari et al., Phys. Rev. Lett. 82, 3296, 1999); what -TS is there says nothing about the rest.
        """
        if self.settings.occupations == "fixed" or self.settings.smearing not in {"gaussian", "fermi-dirac"}:
            return None
        return free - smearing / 2

    def _evidence(self, structure: Structure, numbers: PwNumbers, text: PwText) -> dict[str, object]:
        settings = self.settings
        assignment = self._assignment(structure)
        limit = settings.conv_thr * structure.n_atoms
        smeared = settings.occupations == "smearing"
        return {
            "converged": numbers.converged and numbers.accuracy <= limit,
            "convergence": f"pw.x: convergence has been achieved in {text.iterations} iterations, estimated accuracy "
            f"{numbers.accuracy:.1e} Ry, wanted {limit:.1e} Ry",
            "version": text.version,
            "iterations": text.iterations,
            "accuracy_ry": numbers.accuracy,
            "conv_thr_ry": limit,
            "functional": numbers.functional,
            "k_mesh": list(k_mesh(structure, settings.k_spacing)),
            "nspin": 2 if assignment.magnetic else 1,
            "starting_moments": [assignment.species[index].moment for index in assignment.of_atom],
            "charge": structure.charge,
            "smearing": settings.smearing if smeared else None,
            "degauss_ry": settings.degauss if smeared else None,
            "smearing_energy": numbers.smearing,
            "scf_correction": text.scf_correction,
        }

    def _warnings(self, structure: Structure, text: PwText) -> tuple[str, ...]:
        found = []
        if text.scf_correction > _CORRECTION_LIMIT:
            found.append(f"the density leaves an error of {text.scf_correction:.2g} eV/Å in the forces: lower conv_thr")
        wanted = max((self.potentials[e] for e in structure.elements), key=lambda potential: potential.cutoff)
        if self.settings.ecutwfc < wanted.cutoff - 0.5:
            found.append(
                f"ecutwfc: {self.settings.ecutwfc:g} Ry is below the {wanted.cutoff:.0f} Ry that {wanted.path.name} "
                "suggests"
            )
        return tuple(found)
