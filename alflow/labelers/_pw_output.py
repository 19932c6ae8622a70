"""What pw.x says: its text for how the run ended, its XML file for the numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols
from ase.units import Bohr, Hartree

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers._pw_input import OUT, PREFIX
from alflow.structures import Structure

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BANNER = re.compile(r"Program PWSCF v\.?\s*(\S+)")
_CONVERGED = re.compile(r"convergence has been achieved in\s+(\d+) iterations")
_UNCONVERGED = re.compile(r"convergence NOT achieved[^\n]*")
_ENERGY = re.compile(r"^!\s+total energy\s+=\s+(\S+) Ry", re.MULTILINE)
_ERROR = re.compile(r"Error in routine\s+(\S+)\s*\([^)]*\):\s*\n([^\n]*)")
_CORRECTION = re.compile(r"Total SCF correction =\s+(\S+)")
_MD5 = re.compile(r"MD5 check sum: ([0-9a-f]{32})")
_SITE = re.compile(r"atom:?\s+\d+[^\n]*?magn(?:etiz)?[:=]\s*(-?[\d.]+)")
_DONE = "JOB DONE."
_MISSING = ("not found", "cannot open", "opening file", "error opening")
_PATIENCE = ("c_bands", "diaghg", "sym_rho_init_shell", "checkallsym")
"""In names of routines whose errors other numerics avoid: the diagonaliser, and symmetry that holds only roughly."""


@dataclass(frozen=True, kw_only=True)
class PwText:
    """The text output of a run.

    Parameters
    ----------
    version
        as in the banner, e.g. ``6.7MaX``; None where there is none
    iterations
        of the self-consistent cycle that converged; None where the text says nothing of convergence
    energy
        the last total energy marked by ``!``, Ry
    done
        the text ends as that of a run that came to its end, be it good or bad
    failure
        the typed cause that the text tells, if any
    md5
        check sums of the pseudopotentials that were read
    moments
        (n_atoms,), µB in spheres around the atoms, as last printed
    scf_correction
        eV/Å: norm of the error of all forces that the density leaves, by its estimate
    """

    version: str | None
    iterations: int | None
    energy: float | None
    done: bool
    failure: LabelFailure | None
    md5: frozenset[str]
    moments: NDArray[np.float64] | None
    scf_correction: float


def version_in(text: str) -> str | None:
    """The version in the banner; None where there is no banner."""
    found = _BANNER.search(text)
    return None if found is None else found[1]


def version_numbers(version: str) -> tuple[int, ...]:
    """``(7, 3, 1)`` of ``7.3.1``, ``(6, 7)`` of ``6.7MaX``; empty where it does not begin with a number."""
    found = re.match(r"v?\.?(\d+(?:\.\d+)*)", version)
    return () if found is None else tuple(int(part) for part in found[1].split("."))


def read_text(path: Path) -> PwText:
    """Read a text output; one that is missing says nothing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    converged, energies = _CONVERGED.findall(text), _ENERGY.findall(text)
    blocks = text.split("Magnetic moment per site")
    sites = _SITE.findall(blocks[-1].partition("\n\n")[0]) if len(blocks) > 1 else []
    correction = _CORRECTION.findall(text)
    return PwText(
        version=version_in(text),
        iterations=int(converged[-1]) if converged else None,
        energy=_float(energies[-1]) if energies else None,
        done=_DONE in text,
        failure=_failure(text),
        md5=frozenset(_MD5.findall(text)),
        moments=np.array([float(site) for site in sites]) if sites else None,
        scf_correction=(_float(correction[-1]) if correction else 0.0) * Hartree / 2 / Bohr,
    )


def _failure(text: str) -> LabelFailure | None:
    unconverged = _UNCONVERGED.search(text)
    if unconverged is not None:
        return LabelFailure(FailureKind.NOT_CONVERGED, f"pw.x: {unconverged[0].strip()}")
    error = _ERROR.search(text)
    if error is None:
        return None
    routine, message = error[1], error[2].strip()
    said = f"pw.x: error in routine {routine}: {message}"
    if any(sign in message for sign in _MISSING):
        return LabelFailure(FailureKind.MISSING_FILE, said)
    if any(name in routine for name in _PATIENCE):
        return LabelFailure(FailureKind.NOT_CONVERGED, said)
    return LabelFailure(FailureKind.CRASHED, said)


@dataclass(frozen=True, kw_only=True)
class PwNumbers:
    """The XML output of a run.

    Parameters
    ----------
    converged, iterations, accuracy
        of the self-consistent cycle; the accuracy is the estimated error of the energy, Ry
    energy
        eV: E - TS, to which forces and stress belong
    smearing
        eV: -TS, 0 where there is no smearing
    structure
        the geometry that was computed, with the moments that were asked for left out
    forces
        (n_atoms, 3), eV/Å; None where they were not computed
    stress
        (3, 3), eV/Å³, positive = the cell wants to shrink; None where it was not computed
    total_moment
        µB per cell; None without spin polarisation
    functional
        its name
    """

    converged: bool
    iterations: int
    accuracy: float
    energy: float
    smearing: float
    structure: Structure
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None
    total_moment: float | None
    functional: str


def xml_file(folder: Path) -> Path:
    """The XML file of a run in a folder, whether it exists or not."""
    first, copy = folder / OUT / f"{PREFIX}.xml", folder / OUT / f"{PREFIX}.save" / "data-file-schema.xml"
    return copy if copy.is_file() and not first.is_file() else first


def read_numbers(folder: Path, asked: Structure) -> PwNumbers:
    """Read the XML file of a run in a folder; periodic directions and charge are those asked for.

    Raises
    ------
    LabelFailure
        TRUNCATED where the file is missing, damaged or holds no results
    """
    path = xml_file(folder)
    try:
        root = ET.parse(path).getroot()  # noqa: S314  written by the program that we started
        return _numbers(_child(root, "output"), asked)
    except FileNotFoundError as error:
        raise LabelFailure(FailureKind.TRUNCATED, f"pw.x wrote no {path.relative_to(folder)}") from error
    except (ET.ParseError, ValueError, KeyError) as error:
        message = f"{path.relative_to(folder)} of pw.x is damaged: {error}"
        raise LabelFailure(FailureKind.TRUNCATED, message) from error


def _numbers(output: ET.Element, asked: Structure) -> PwNumbers:
    structure = _child(output, "atomic_structure")
    atoms = sorted(_child(structure, "atomic_positions").findall("atom"), key=lambda atom: int(atom.attrib["index"]))
    cell = np.array([_array(_child(structure, f"cell/{name}")) for name in ("a1", "a2", "a3")]) * Bohr
    forces, stress = output.find("forces"), output.find("stress")
    cycle = _child(output, "convergence_info/scf_conv")
    # Later versions leave out what does not apply.
    polarised = output.findtext("band_structure/lsda", "").strip() == "true"
    smearing = output.find("total_energy/demet")
    return PwNumbers(
        converged=_text(cycle, "convergence_achieved") == "true",
        iterations=int(_text(cycle, "n_scf_steps")),
        accuracy=2 * float(_text(cycle, "scf_error")),
        energy=float(_text(output, "total_energy/etot")) * Hartree,
        smearing=0.0 if smearing is None else float(smearing.text or "") * Hartree,
        structure=Structure(
            cell=cell,
            pbc=asked.pbc,
            numbers=np.array([_number_of(atom.attrib["name"]) for atom in atoms]),
            positions=np.array([_array(atom) for atom in atoms]) * Bohr,
            charge=asked.charge,
            moments=asked.moments,
        ),
        forces=None if forces is None else _array(forces).reshape(-1, 3) * Hartree / Bohr,
        # pw.x prints a pressure: positive where the cell wants to grow
        stress=None if stress is None else _symmetric(-_array(stress).reshape(3, 3) * Hartree / Bohr**3),
        total_moment=float(_text(output, "magnetization/total")) if polarised else None,
        functional=_text(output, "dft/functional"),
    )


def _symmetric(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without the rounding errors of a matrix that is symmetric."""
    return matrix if not np.allclose(matrix, matrix.T, atol=1e-6) else (matrix + matrix.T) / 2


def _child(element: ET.Element, path: str) -> ET.Element:
    found = element.find(path)
    if found is None:
        raise ValueError(f"it has no {path}")
    return found


def _text(element: ET.Element, path: str) -> str:
    return (_child(element, path).text or "").strip()


def _array(element: ET.Element) -> NDArray[np.float64]:
    return np.array([_float(word) for word in (element.text or "").split()])


def _float(word: str) -> float:
    """A number of Fortran, where stars stand for one that did not fit its columns."""
    return float("nan") if "*" in word else float(word.lower().replace("d", "e"))


def _number_of(label: str) -> int:
    return int(chemical_symbols.index(label.rstrip("0123456789")))
