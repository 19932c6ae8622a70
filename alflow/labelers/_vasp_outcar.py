"""What OUTCAR says about every ionic step, in one pass; the geometry is left to ASE's reader."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

_FREE = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
_ITERATION = re.compile(r"-+ Iteration\s*[\d*]+\(\s*(\d+)\)")
_NUMBER = re.compile(r"[-+]?\d*\.\d+(?:[Ee][-+]?\d+)?")
_TABLE = re.compile(r"magnetization \(([xyz])\)")
_HEAD = {
    "NELM": re.compile(r"^\s*NELM\s*=\s*(\d+)\s*;"),
    "EDIFF": re.compile(r"^\s*EDIFF\s*=\s*(\S+)\s+stopping-criterion"),
    "NSW": re.compile(r"^\s*NSW\s*=\s*(-?\d+)\s+number of steps"),
    "IBRION": re.compile(r"^\s*IBRION\s*=\s*(-?\d+)\s+ionic relax"),
    "ISPIN": re.compile(r"^\s*ISPIN\s*=\s*(\d)\s+spin polarized"),
    "ICHARG": re.compile(r"^\s*ICHARG\s*=\s*(\d+)\s+charge"),
    "ISMEAR": re.compile(r"^\s*ISMEAR\s*=\s*(-?\d+)\s*;"),
    "SIGMA": re.compile(r"^\s*ISMEAR\s*=.*;\s*SIGMA\s*=\s*([\d.]+)"),
    "ENMAX": re.compile(r"^\s*ENCUT\s*=\s*([\d.]+)\s*eV"),
    "NELECT": re.compile(r"^\s*NELECT\s*=\s*([\d.]+)\s+total number"),
    "GGA": re.compile(r"^\s*GGA\s*=\s*(\S+)\s+GGA type"),
    "METAGGA": re.compile(r"^\s*METAGGA\s*=\s*(\S+)"),
    "LHFCALC": re.compile(r"^\s*LHFCALC\s*=\s*\.?(\w)"),
    "AEXX": re.compile(r"^\s*AEXX\s*=\s*([\d.]+)"),
    "HFSCREEN": re.compile(r"^\s*HFSCREEN\s*=\s*([\d.]+)"),
    "IVDW": re.compile(r"^\s*IVDW\s*=\s*(\d+)"),
    "LUSE_VDW": re.compile(r"^\s*LUSE_VDW\s*=\s*\.?(\w)"),
    "LDAUU": re.compile(r"^\s*U \(eV\)\s+for each species LDAUU =(.*)"),
    "LDAUJ": re.compile(r"^\s*J \(eV\)\s+for each species LDAUJ =(.*)"),
    "LSORBIT": re.compile(r"^\s*LSORBIT\s*=\s*\.?(\w)"),
    "LNONCOLLINEAR": re.compile(r"^\s*LNONCOLLINEAR\s*=\s*(\w)"),
    "ML_LMLFF": re.compile(r"^\s*ML_LMLFF\s*=\s*\.?(\w)"),
}
_WORDS = {"GGA", "METAGGA", "LHFCALC", "LUSE_VDW", "LDAUU", "LDAUJ", "LSORBIT", "LNONCOLLINEAR", "ML_LMLFF"}


@dataclass(kw_only=True)
class OutcarStep:
    """One ionic step as OUTCAR tells it.

    Parameters
    ----------
    scf_steps
        electronic steps
    reached, not_reached
        whether it says that EDIFF was, or was not reached
    free_energy, extrapolated
        eV per cell
    total_moment
        µB; None without spin polarisation or for non-collinear moments
    moments
        µB: (n_atoms,), or (n_atoms, 3) where they are non-collinear
    """

    scf_steps: int = 0
    reached: bool = False
    not_reached: bool = False
    free_energy: float | None = None
    extrapolated: float | None = None
    total_moment: float | None = None
    moments: np.ndarray | None = None


@dataclass(kw_only=True)
class Outcar:
    """What an OUTCAR says; ``finished`` where it has the timing section that VASP writes last.

    ``values`` holds the tags of the header, ``counts``, ``valences`` and ``titles`` one entry per species;
    ``end`` is the number of lines up to the end of the last complete ionic step.
    """

    version: str = ""
    values: dict[str, float | str] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    valences: list[float] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    steps: list[OutcarStep] = field(default_factory=list)
    stopped: bool = False
    relaxed: bool = False
    finished: bool = False
    end: int = 0


def open_text(path: Path) -> TextIO:
    """Open a text file, compressed or not."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="replace")
    return path.open(encoding="utf-8", errors="replace")


def scan_outcar(path: Path) -> Outcar:
    """Go through an OUTCAR once; a truncated one gives its complete steps.

    Raises
    ------
    OSError, EOFError
        if it cannot be read
    """
    found = Outcar()
    step, tables = OutcarStep(), {}
    in_free = False
    with open_text(path) as stream:
        lines = enumerate(stream, 1)
        for number, line in lines:
            if "Iteration" in line and (iteration := _ITERATION.search(line)):
                step.scf_steps = max(step.scf_steps, int(iteration.group(1)))
            elif "aborting loop" in line:
                step.reached = "EDIFF is reached" in line
                step.not_reached = "not reached" in line
            elif line.startswith(" number of electron"):
                step.total_moment = _total_moment(line)
            elif "magnetization (" in line and (table := _TABLE.search(line)):
                tables[table.group(1)] = _table(lines)
            elif _FREE in line:
                in_free = True
            elif in_free and "TOTEN" in line:
                step.free_energy = _last_number(line)
            elif in_free and "energy(sigma->0)" in line:
                step.extrapolated = _last_number(line)
                step.moments = _moments(tables)
                found.steps.append(step)
                found.end = number
                step, tables, in_free = OutcarStep(), {}, False
            elif "stop encountered" in line:
                found.stopped = True
            elif "reached required accuracy" in line:
                found.relaxed = True
            elif "General timing and accounting" in line:
                found.finished = True
            elif not found.steps:
                _head(line, found)
    return found


def _head(line: str, found: Outcar) -> None:
    if not found.version and line.startswith(" vasp."):
        found.version = line.split()[0].removeprefix("vasp.")
    elif "TITEL" in line:
        found.titles.append(" ".join(line.partition("=")[2].split()))
    elif "ions per type" in line:
        found.counts = [int(word) for word in line.partition("=")[2].split()]
    elif "ZVAL" in line and "mass and valenz" in line:
        found.valences.append(float(_NUMBER.findall(line)[1]))
    else:
        for tag, pattern in _HEAD.items():
            value = pattern.match(line)
            if value and tag not in found.values:
                text = value.group(1)
                found.values[tag] = text if tag in _WORDS else float(text)


def _last_number(line: str) -> float | None:
    """The last number of a line; None where it overflowed its columns."""
    words = line.split("=")[-1].split()
    try:
        return float(words[0])
    except (IndexError, ValueError):
        return None


def _total_moment(line: str) -> float | None:
    values = _NUMBER.findall(line.partition("magnetization")[2])
    return float(values[0]) if len(values) == 1 else None


def _table(lines: Iterator[tuple[int, str]]) -> list[float]:
    """The column ``tot`` of a table by atoms."""
    rows: list[float] = []
    for _, line in lines:
        words = line.split()
        if words and words[0].isdigit():
            rows.append(float(words[-1]))
        elif rows:
            break
    return rows


def _moments(tables: dict[str, list[float]]) -> np.ndarray | None:
    if set(tables) == {"x"}:
        return np.array(tables["x"])
    if set(tables) == {"x", "y", "z"}:
        return np.column_stack([tables[axis] for axis in "xyz"])
    return None
