"""A run of VASP as both of its files tell it, and what counts as self-consistent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.labelers._vasp_outcar import OutcarStep
from alflow.structures import Properties, Structure

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RESPONSE = {7, 8}


@dataclass(frozen=True, kw_only=True, eq=False)
class VaspStep:
    """One ionic step.

    Parameters
    ----------
    structure
        its geometry, periodic in all directions, with the charge of the run and, where INCAR stated them, the initial
        moments
    properties
        energy (free), extrapolated energy, forces, stress, and moments where OUTCAR has them
    converged
        whether there is positive evidence that the electrons are self-consistent
    convergence
        how that is known
    scf_steps
        electronic steps
    """

    structure: Structure
    properties: Properties
    converged: bool
    convergence: str
    scf_steps: int


@dataclass(frozen=True, kw_only=True, eq=False)
class VaspRun:
    """A run of VASP: single point, relaxation or dynamics.

    Parameters
    ----------
    files
        what was read
    version
        as printed, e.g. ``6.4.2``
    steps
        every complete ionic step, in their order
    complete
        whether VASP ran to its end and both files are whole
    relaxed
        whether a relaxation says that it reached its aim
    values
        NELM, EDIFF, NSW, IBRION, ISPIN, ENMAX, ISMEAR, SIGMA, NELECT, … as VASP understood them
    titles
        TITEL of the PAW datasets, in the order of the species
    charge
        e; from the electrons and the valences of the datasets
    n_kpoints
        irreducible k-points; None without vasprun.xml
    """

    files: tuple[Path, ...]
    version: str
    steps: tuple[VaspStep, ...]
    complete: bool
    relaxed: bool
    values: Mapping[str, Any]
    titles: tuple[str, ...]
    charge: float
    n_kpoints: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class RunFacts:
    """What all ionic steps of a run share; ``stopped`` by a STOPCAR."""

    path: Path
    version: str
    values: Mapping[str, Any]
    charge: float
    stopped: bool = False
    numbers: NDArray[np.int64] | None = None
    moments: NDArray[np.float64] | None = None


def evidence_of(n_steps: int, change: float | None, told: OutcarStep | None, facts: RunFacts) -> tuple[bool, str]:
    """Whether one ionic step is self-consistent, and how that is known."""
    values = facts.values
    limit, ediff = int(values.get("NELM", 60)), float(values.get("EDIFF", 1e-4))
    if int(values.get("ICHARG", 2)) >= 10:
        return False, f"ICHARG = {int(values['ICHARG'])}: the density was not iterated"
    if told is None and int(values.get("IBRION", -1)) in _RESPONSE:
        return False, f"IBRION = {int(values['IBRION'])}: steps of the linear response stand among the electronic ones"
    if facts.stopped:
        return False, "VASP was stopped by a STOPCAR"
    if n_steps == 0:
        return False, "no electronic step: not an energy of DFT"
    counted = f"{n_steps} electronic steps, NELM = {limit}"
    if told is None:
        # VASP ends at NELM without a word in vasprun.xml, so that the last change of the energy must say it.
        said = f"the last change of the energy is {'unknown' if change is None else f'{change:.2g} eV'}"
        # EDIFF and energies have eight decimals there.
        if n_steps >= limit or change is None or change > ediff * (1 + 1e-6) + 1.5e-8:
            return False, f"not self-consistent: {counted}, {said}, EDIFF = {ediff:g}"
        return True, f"{counted}; {said}, EDIFF = {ediff:g}"
    if told.not_reached or not told.reached:
        return False, f"not self-consistent: {counted}, EDIFF = {ediff:g} was not reached"
    # VASP 5 writes "EDIFF is reached" after its last step, too.
    if n_steps >= limit and not _at_least_6(facts.version):
        return False, f"not self-consistent: {counted}; there VASP {facts.version} says in any case that it is"
    return True, f"EDIFF = {ediff:g} is reached; {counted}"


def _at_least_6(version: str) -> bool:
    major = re.match(r"\d+", version)
    return major is not None and int(major.group()) >= 6


def charge_of(counts: Sequence[int], valences: Sequence[float], electrons: float) -> float:
    charge = sum(n * z for n, z in zip(counts, valences, strict=True)) - electrons
    return 0.0 if abs(charge) < 1e-4 else round(charge, 6)


def without_overflow(step: VaspStep) -> VaspStep:
    """A step with stars where numbers should stand is no label."""
    given = step.properties
    values = (given.energy, given.energy_extrapolated, given.forces, given.stress)
    if all(value is None or np.isfinite(value).all() for value in values):
        return step
    return replace(step, converged=False, convergence="numbers that do not fit into their columns: atoms too close")
