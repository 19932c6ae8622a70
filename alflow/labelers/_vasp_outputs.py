"""Reads finished, truncated and unconverged runs of VASP: every ionic step with what is known of its convergence.

Numbers come from pymatgen's reader of ``vasprun.xml`` (eight digits), where there is none from ASE's of ``OUTCAR``.
Neither says reliably whether a step is self-consistent, so that is decided here.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers._vasp_outcar import Outcar, OutcarStep, open_text, scan_outcar
from alflow.labelers._vasp_run import RunFacts, VaspRun, VaspStep, charge_of, evidence_of, without_overflow
from alflow.structures import Properties, Structure, atomic_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

KBAR = 1e8 / 1.602176634e11
"""eV/Å³ per kbar: 1 kbar = 1e8 Pa and 1 eV/Å³ = 1.602176634e11 Pa."""

_PRINTED = 2e-5
"""eV: OUTCAR and vasprun.xml print the same energy with 6 to 8 digits."""

_STARS = re.compile(r"\*{5,}")
"""What Fortran prints of a number that does not fit."""

_TYPE = re.compile(
    r"<rc><c>\s*(\d+)\s*</c><c>\s*(\w+)\s*</c><c>[^<]*</c><c>\s*([\d.]+)\s*</c><c>\s*([^<]*?)\s*</c></rc>"
)


def read_vasp_run(path: Path) -> VaspRun:
    """Read what a run of VASP left.

    Parameters
    ----------
    path
        a folder with ``vasprun.xml`` or ``OUTCAR`` or both (each also with ``.gz``), or one such file. Of a folder
        with both, vasprun.xml gives the numbers, OUTCAR the evidence of convergence and the moments. OUTCAR alone
        gives positions with five digits only

    Raises
    ------
    LabelFailure
        MISSING_FILE where there is neither; TRUNCATED where not even one header is whole; INCONSISTENT where both
        files disagree; REFUSED for runs whose energies are those of a machine-learned force field
    """
    xml, outcar = _files_at(path)
    scan = None if outcar is None else _scan(outcar)
    if xml is None:
        assert outcar is not None
        assert scan is not None
        return _from_outcar(outcar, scan)
    try:
        return _from_vasprun(xml, outcar, scan)
    except LabelFailure as failure:
        # A killed run may leave an XML file without a header, and an OUTCAR with complete steps.
        if failure.kind is not FailureKind.TRUNCATED or outcar is None or scan is None or not scan.steps:
            raise
        return replace(_from_outcar(outcar, scan), complete=False)


def _files_at(path: Path) -> tuple[Path | None, Path | None]:
    if path.is_file():
        is_xml = ".xml" in path.suffixes
        return (path, None) if is_xml else (None, path)
    found = [
        next((p for p in (path / name, path / f"{name}.gz") if p.is_file()), None) for name in ("vasprun.xml", "OUTCAR")
    ]
    if found == [None, None]:
        raise LabelFailure(FailureKind.MISSING_FILE, f"{path} holds neither vasprun.xml nor OUTCAR: VASP did not start")
    return found[0], found[1]


def _scan(path: Path) -> Outcar:
    try:
        return scan_outcar(path)
    except (OSError, EOFError) as error:
        raise LabelFailure(FailureKind.TRUNCATED, f"{path} cannot be read: {error}") from error


# -- vasprun.xml ---------------------------------------------------------------------------------------------------


def _from_vasprun(xml: Path, outcar: Path | None, scan: Outcar | None) -> VaspRun:
    reader, whole = _vasprun(xml)
    # The parameters hold what VASP resolved; IBRION of a linear response stands in the INCAR alone in old versions.
    # Some tags, such as IVDW and METAGGA, stand there only in some versions or never.
    stated = {tag: reader.incar[tag] for tag in ("IBRION", "METAGGA", "IVDW") if tag in reader.incar}
    values = {"IBRION": -1, **reader.parameters, **stated}
    if "NELECT" not in values:
        raise LabelFailure(
            FailureKind.TRUNCATED, f"{xml} does not say with how many electrons VASP computed (NELECT): it is damaged"
        )
    if values.get("ML_LMLFF") or reader.incar.get("ML_LMLFF"):
        raise _machine_learned(xml)
    if scan is not None and whole and scan.finished and len(scan.steps) != len(reader.ionic_steps):
        raise LabelFailure(
            FailureKind.INCONSISTENT,
            f"{xml} has {len(reader.ionic_steps)} ionic steps, {outcar} {len(scan.steps)}: files of two runs?",
        )
    counts, valences, titles = _types(xml)
    if sum(counts) != len(reader.atomic_symbols):
        raise LabelFailure(FailureKind.INCONSISTENT, f"{xml}: its table of species does not count all of its atoms")
    facts = RunFacts(
        path=xml,
        version=reader.vasp_version.strip(),
        values=values,
        charge=charge_of(counts, valences, float(values["NELECT"])),
        stopped=scan is not None and scan.stopped,
        numbers=np.array([atomic_number(str(symbol)) for symbol in reader.atomic_symbols]),
        moments=_stated_moments(reader),
    )
    told: list[OutcarStep | None] = list(scan.steps if scan is not None else ())
    told += [None] * len(reader.ionic_steps)
    steps = [
        without_overflow(_step(raw, said, facts))
        for raw, said in zip(reader.ionic_steps, told, strict=False)
        if "forces" in raw
    ]
    return VaspRun(
        files=tuple(p for p in (xml, outcar) if p is not None),
        version=facts.version,
        steps=tuple(steps),
        complete=whole and (scan is None or scan.finished),
        relaxed=whole and _relaxed(reader, scan),
        values=values,
        titles=titles,
        charge=facts.charge,
        n_kpoints=len(reader.actual_kpoints),
    )


def _vasprun(path: Path) -> tuple[Any, bool]:
    """The reader of pymatgen, and whether the file is whole."""
    from pymatgen.io.vasp.outputs import Vasprun

    options = {"parse_dos": False, "parse_eigen": False, "parse_potcar_file": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unconverged and truncated runs, which are judged here
        for strict in (True, False):
            try:
                reader = Vasprun(path, exception_on_bad_xml=strict, **options)
                _ = reader.parameters["NELECT"], reader.atomic_symbols, reader.ionic_steps[0], reader.actual_kpoints
            except Exception as error:  # of a truncated file anything may be missing
                if not strict:
                    raise LabelFailure(
                        FailureKind.TRUNCATED, f"{path} ends before its first ionic step: VASP was ended too early"
                    ) from error
            else:
                return reader, strict
    raise AssertionError("unreachable")


def _types(path: Path) -> tuple[list[int], list[float], tuple[str, ...]]:
    """Atoms, valence and TITEL by species, which pymatgen does not keep."""
    head = []
    with open_text(path) as stream:
        for line in stream:
            head.append(line)
            if "</atominfo>" in line:
                break
    rows = _TYPE.findall("".join(head))
    titles = tuple(" ".join(row[3].split()) for row in rows)
    return [int(row[0]) for row in rows], [float(row[2]) for row in rows], titles


def _step(raw: Mapping[str, Any], told: OutcarStep | None, facts: RunFacts) -> VaspStep:
    assert facts.numbers is not None
    geometry = raw["structure"]
    cell = np.asarray(geometry.lattice.matrix)
    free = float(raw["e_fr_energy"])
    scf = [step for step in raw["electronic_steps"] if "e_fr_energy" in step]
    # Old versions write the entropy, or zero, where the extrapolated energy of an ionic step should stand; that of the
    # last electronic step is right, but lacks additions such as dispersion.
    extrapolated = free + scf[-1]["e_0_energy"] - scf[-1]["e_fr_energy"] if scf else None
    if told is not None and told.free_energy is not None and abs(told.free_energy - free) > _PRINTED:
        raise LabelFailure(
            FailureKind.INCONSISTENT,
            f"{facts.path} says {free:.6f} eV, OUTCAR {told.free_energy:.6f} eV for one step: files of two runs?",
        )
    n_steps = len(raw["electronic_steps"])
    change = abs(scf[-1]["e_fr_energy"] - scf[-2]["e_fr_energy"]) if len(scf) > 1 else None
    converged, how = evidence_of(n_steps, change, told, facts)
    return VaspStep(
        structure=Structure(
            cell=cell,
            pbc=np.ones(3, dtype=bool),
            numbers=facts.numbers,
            positions=np.asarray(geometry.frac_coords) @ cell,
            charge=facts.charge,
            moments=facts.moments,
        ),
        properties=Properties(
            energy=free,
            energy_extrapolated=extrapolated,
            forces=np.asarray(raw["forces"], dtype=np.float64),
            stress=-KBAR * np.asarray(raw["stress"], dtype=np.float64) if "stress" in raw else None,
            moments=None if told is None else told.moments,
            total_moment=None if told is None else told.total_moment,
        ),
        converged=converged,
        convergence=how,
        scf_steps=n_steps,
    )


def _stated_moments(reader: Any) -> NDArray[np.float64] | None:
    """Initial collinear moments that INCAR states; VASP's own default is no information about the structure."""
    stated = reader.incar.get("MAGMOM")
    if stated is None or int(reader.parameters.get("ISPIN", 1)) != 2:
        return None
    moments = np.asarray(stated, dtype=np.float64).reshape(-1)
    return moments if len(moments) == len(reader.atomic_symbols) else None


def _relaxed(reader: Any, scan: Outcar | None) -> bool:
    """Whether a relaxation ended before its last step; single points and dynamics have no aim."""
    if scan is not None:
        return scan.relaxed
    moves = int(reader.parameters.get("IBRION", -1)) in {1, 2, 3}
    return moves and len(reader.ionic_steps) < int(reader.parameters.get("NSW", 0))


# -- OUTCAR alone --------------------------------------------------------------------------------------------------


def _from_outcar(path: Path, scan: Outcar) -> VaspRun:
    if scan.values.get("ML_LMLFF") == "T":
        raise _machine_learned(path)
    if not scan.steps or "NELECT" not in scan.values:
        raise LabelFailure(
            FailureKind.TRUNCATED, f"{path} ends before its first ionic step is complete: VASP was ended too early"
        )
    if not len(scan.counts) == len(scan.valences) == len(scan.titles):
        raise LabelFailure(
            FailureKind.INCONSISTENT,
            f"{path} has {len(scan.titles)} datasets for {len(scan.counts)} species: keep vasprun.xml beside it",
        )
    facts = RunFacts(
        path=path,
        version=scan.version,
        values=scan.values,
        charge=charge_of(scan.counts, scan.valences, float(scan.values["NELECT"])),
        stopped=scan.stopped,
    )
    pairs = zip(_images(path, scan), scan.steps, strict=True)
    return VaspRun(
        files=(path,),
        version=scan.version,
        steps=tuple(without_overflow(_outcar_step(atoms, told, facts)) for atoms, told in pairs),
        complete=scan.finished,
        relaxed=scan.relaxed,
        values=dict(scan.values),
        titles=tuple(scan.titles),
        charge=facts.charge,
        n_kpoints=None,
    )


def _outcar_step(atoms: Any, told: OutcarStep, facts: RunFacts) -> VaspStep:
    converged, how = evidence_of(told.scf_steps, None, told, facts)
    results = atoms.calc.results
    return VaspStep(
        structure=Structure(
            cell=atoms.cell.array,
            pbc=np.ones(3, dtype=bool),
            numbers=atoms.numbers,
            positions=atoms.positions,
            charge=facts.charge,
        ),
        properties=Properties(
            energy=np.nan if told.free_energy is None else told.free_energy,
            energy_extrapolated=told.extrapolated,
            forces=results["forces"],
            stress=results.get("stress"),
            moments=told.moments,
            total_moment=told.total_moment,
        ),
        converged=converged,
        convergence=how,
        scf_steps=told.scf_steps,
    )


class _Text(io.StringIO):
    """Lines of a file for ASE's reader, which looks for constraints beside the name: here there are none."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.name = str(path / "OUTCAR")


def _images(path: Path, scan: Outcar) -> Sequence[Any]:
    """ASE's reading of the complete steps; it fails at one that is cut off."""
    from ase.io.vasp import read_vasp_out

    with open_text(path) as stream:
        text = _Text(_STARS.sub(" nan ", "".join(islice(stream, scan.end))), path)
    try:
        images = read_vasp_out(text, ":")
    except Exception as error:  # of damaged text it raises anything
        raise LabelFailure(FailureKind.TRUNCATED, f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if len(images) != len(scan.steps):
        raise LabelFailure(
            FailureKind.INCONSISTENT, f"{path}: {len(scan.steps)} energies, but {len(images)} geometries: damaged?"
        )
    return list(images)


def _machine_learned(path: Path) -> LabelFailure:
    return LabelFailure(
        FailureKind.REFUSED, f"{path}: ML_LMLFF is on: energies may be those of a machine-learned force field"
    )
