"""Labels that were computed elsewhere: which files of a path hold them, and each of them, or why it is refused.

Files of structures, VASP runs, DeePMD's folders (also within a working tree of dpgen) and pymatgen's entries.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from alflow.errors import FailureKind, LabelFailure, StructureError, UserError
from alflow.labelers._deepmd import is_deepmd, read_deepmd
from alflow.labelers._entries import read_entries
from alflow.labelers._foreign_frame import ForeignFrame, ForeignSettings, element_of, with_hubbard
from alflow.labelers._vasp_outputs import read_vasp_run
from alflow.labelers._vasp_run import VaspRun
from alflow.structures import LabelledStructure, frames_of

_COMPRESSED = (".bz2", ".xz", ".z", ".zst", ".lzma")
_STRUCTURES = (".xyz", ".extxyz", ".cif", ".vasp", ".poscar", ".contcar", ".db")
_FAILED = {
    FailureKind.TRUNCATED: "cut off before its first step",
    FailureKind.INCONSISTENT: "files contradict each other",
    FailureKind.REFUSED: "a machine-learned force field was on",
}


class ForeignKind(StrEnum):
    """What a source is."""

    STRUCTURES = "structures"
    VASP = "vasp"
    DEEPMD = "deepmd"
    ENTRIES = "entries"
    UNREAD = "unread"


@dataclass(frozen=True, kw_only=True)
class ForeignSource:
    """A file or folder with labels.

    Parameters
    ----------
    path
        file or folder
    kind
        what it is
    why
        why it is not read, where it is not: in words that many share, and in full
    """

    path: Path
    kind: ForeignKind
    why: tuple[str, str] = ("", "")


def find_foreign(path: Path) -> Iterator[ForeignSource]:
    """Find what holds labels: the file itself, or everything in a tree of folders, in alphabetical order.

    A folder with ``vasprun.xml`` and ``OUTCAR`` is one source. In dpgen's ``02.fp`` the folders ``data.*`` hold the
    labels of the tasks, which are then not read again.

    Parameters
    ----------
    path
        file or folder

    Raises
    ------
    UserError
        if it does not exist or is no file that labels are read from
    """
    if path.is_dir():
        yield from _walk(path, set())
        return
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    name = path.name.lower().removesuffix(".gz")
    tag = _vasp_tag(path.name)
    if tag is not None:
        yield _vasp_source(path.parent, tag, [path])
    elif name.endswith(".json"):
        yield ForeignSource(path=path, kind=ForeignKind.ENTRIES)
    elif name.endswith(_STRUCTURES) or name.startswith(("poscar", "contcar")):
        yield ForeignSource(path=path, kind=ForeignKind.STRUCTURES)
    else:
        raise UserError(
            f"{path}: labels are read from extended XYZ (.xyz, .extxyz), ASE's database (.db), VASP (OUTCAR, "
            "vasprun.xml), pymatgen's entries (.json), and folders with runs of VASP or DeePMD data (type.raw)"
        )


def _walk(folder: Path, seen: set[str]) -> Iterator[ForeignSource]:
    """Sources of a folder, then those of the folders in it; links are followed, and nothing is entered twice."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(folder.iterdir())
        files = [entry for entry in entries if entry.is_file()]
    except OSError as error:
        yield ForeignSource(path=folder, kind=ForeignKind.UNREAD, why=("cannot be read", str(error)))
        return
    if is_deepmd(folder):
        yield ForeignSource(path=folder, kind=ForeignKind.DEEPMD)
        return
    runs: dict[str, list[Path]] = {}
    for path in files:
        tag = _vasp_tag(path.name)
        if tag is not None:
            runs.setdefault(tag, []).append(path)
    for tag, paths in runs.items():
        yield _vasp_source(folder, tag, paths)
    folders = [entry for entry in entries if entry.is_dir()]
    collected = folder.name == "02.fp" and any(f.name.startswith("data.") and is_deepmd(f) for f in folders)
    for entry in folders:
        if collected and entry.name.startswith("task."):
            why = ("task of dpgen whose labels stand in data.*", "name the folder itself to read its outputs instead")
            yield ForeignSource(path=entry, kind=ForeignKind.UNREAD, why=why)
        else:
            yield from _walk(entry, seen)


def _vasp_tag(name: str) -> str | None:
    """What tells the runs of one folder apart, as in ``OUTCAR.relax1.gz``; None for other files."""
    name = name.removesuffix(".gz")
    if name.startswith("vasprun") and ".xml" in name:
        return name.removeprefix("vasprun").replace(".xml", "", 1)
    return name.removeprefix("OUTCAR") if name.startswith("OUTCAR") else None


def _vasp_source(folder: Path, tag: str, paths: Sequence[Path]) -> ForeignSource:
    if tag.lower().endswith(_COMPRESSED):
        why = ("compressed otherwise than by gzip", "unpack it, or pack it by gzip")
        return ForeignSource(path=paths[0], kind=ForeignKind.UNREAD, why=why)
    best = folder if not tag else min(paths, key=lambda path: (path.name.startswith("OUTCAR"), path.name))
    return ForeignSource(path=best, kind=ForeignKind.VASP)


def read_foreign(source: ForeignSource) -> Iterator[ForeignFrame]:
    """Read every label of a source; what is no label says why.

    Raises
    ------
    StructureError
        for a file that is damaged as a whole, too large, or holds something else
    """
    if source.kind is ForeignKind.VASP:
        yield from _vasp(source.path)
    elif source.kind is ForeignKind.DEEPMD:
        yield from read_deepmd(source.path)
    elif source.kind is ForeignKind.ENTRIES:
        yield from read_entries(source.path)
    elif source.kind is ForeignKind.STRUCTURES:
        yield from _structures(source.path)
    else:
        yield ForeignFrame(origin=str(source.path), refused=source.why[0], detail=source.why[1])


# -- files of structures -------------------------------------------------------------------------------------------


def _structures(path: Path) -> Iterator[ForeignFrame]:
    for frame in frames_of(path):
        origin = f"{path}, frame {frame.number}"
        try:
            atoms = frame.load()
        except StructureError as error:
            yield ForeignFrame(origin=origin, refused="cannot be read", detail=str(error).removeprefix(f"{origin}: "))
            continue
        try:
            yield ForeignFrame(origin=origin, example=LabelledStructure.from_atoms(atoms))
        except StructureError as error:
            yield ForeignFrame(origin=origin, refused="no usable label", detail=str(error))


# -- VASP ----------------------------------------------------------------------------------------------------------


def _vasp(path: Path) -> Iterator[ForeignFrame]:
    try:
        run = read_vasp_run(path)
    except LabelFailure as failure:
        reason = _FAILED.get(failure.kind, "cannot be read")
        yield ForeignFrame(origin=str(path), refused=reason, detail=failure.message)
        return
    except (
        ArithmeticError,
        LookupError,
        OSError,
        EOFError,
        TypeError,
        ValueError,
        StructureError,
        zlib.error,
    ) as error:
        detail = f"{type(error).__name__}: {error}"
        yield ForeignFrame(origin=str(path), refused="cannot be read", detail=detail)
        return
    origin = str(run.files[0])
    if _is_on(run.values.get("LNONCOLLINEAR")) or _is_on(run.values.get("LSORBIT")):
        detail = "LNONCOLLINEAR or LSORBIT is on: alflow's structures do not hold the spin axis"
        yield ForeignFrame(origin=origin, refused="non-collinear", detail=detail)
        return
    settings = _settings(run)
    for number, step in enumerate(run.steps, 1):
        name = f"{origin}, step {number}"
        if step.converged:
            example = LabelledStructure(structure=step.structure, properties=step.properties)
            yield ForeignFrame(origin=name, example=example, settings=settings)
        else:
            yield ForeignFrame(origin=name, refused="not converged", detail=step.convergence)
    if not run.complete:
        detail = f"the run ended before its end; whole steps of it: {len(run.steps)}"
        yield ForeignFrame(origin=f"{origin}, step {len(run.steps) + 1}", refused="cut off", detail=detail)


def _is_on(value: object) -> bool:
    """Truth as vasprun.xml (bool) or OUTCAR (T, F) have it."""
    return value is True or value == "T"


def _settings(run: VaspRun) -> ForeignSettings:
    values = run.values
    spread = int(values.get("ISMEAR", 1))
    datasets: dict[str, set[str]] = {}
    numbers = [_by_species(values.get(tag), len(run.titles)) for tag in ("LDAUU", "LDAUJ")]
    for title, u, j in zip(run.titles, *numbers, strict=True):
        datasets.setdefault(element_of(title), set()).add(with_hubbard(title, u, j))
    return ForeignSettings(
        kind="vasp",
        shared=(
            ("functional", _functional(run)),
            ("cutoff", f"{float(values.get('ENMAX', 0.0)):g} eV"),
            ("smearing", f"ISMEAR = {spread}" + (f", {float(values.get('SIGMA', 0.2)):g} eV" if spread >= -1 else "")),
            ("spin", "polarised" if int(values.get("ISPIN", 1)) == 2 else "none"),
        ),
        species=tuple((element, " and ".join(sorted(titles))) for element, titles in sorted(datasets.items())),
    )


def _by_species(value: object, n: int) -> list[float]:
    """U or J of every species, eV; zeros where the run has none."""
    if isinstance(value, str):
        value = [float(word) for word in value.split()]
    if isinstance(value, (int, float)):
        value = [value]
    given = [float(number) for number in value] if isinstance(value, Sequence) else []
    return given if len(given) == n else [0.0] * n


def _functional(run: VaspRun) -> str:
    """GGA, or the one of the datasets where it is not set; METAGGA; exact exchange; dispersion."""
    values = run.values
    name = str(values.get("GGA", "--")).strip().upper()[:2]
    if name in {"--", ""}:
        kind = run.titles[0].split()[0] if run.titles and run.titles[0] else ""
        name = {"PAW_PBE": "PE", "PAW_GGA": "91"}.get(kind, "CA")
    meta = str(values.get("METAGGA", "--")).strip().upper()
    words = [f"GGA = {name}" if meta in {"--", "", "F", "NONE"} else f"METAGGA = {meta}"]
    if _is_on(values.get("LHFCALC")):
        words.append(
            f"exact exchange {float(values.get('AEXX', 0.25)):g}, screened {float(values.get('HFSCREEN', 0)):g}"
        )
    if int(values.get("IVDW", 0) or 0):
        words.append(f"IVDW = {int(values['IVDW'])}")
    if _is_on(values.get("LUSE_VDW")):
        words.append("LUSE_VDW")
    return ", ".join(words)
