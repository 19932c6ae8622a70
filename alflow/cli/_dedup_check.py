"""``alflow dedup --cross-check``: the same pairs, asked of pymatgen's StructureMatcher.

At its defaults StructureMatcher answers another question (it merges all frames of a trajectory), so it is asked with
the tolerances of the policy: lengths of the cell within exp(strain), angles within twice the strain in radians, and of
the mapping with the smallest root mean square displacement both this and the largest displacement. Primitive cells are
made with a tenth of the tolerance, as our own search does. Charge, moments and handedness it does not know.
"""

from __future__ import annotations

import heapq
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.cli._output import plural
from alflow.structures import find_isometry

if TYPE_CHECKING:
    from alflow.cli._dedup_work import WorkFile
    from alflow.cli._reporter import ConsoleReporter
    from alflow.structures import DuplicatePolicy, Isometry, Structure

MAX_PAIRS = 250
MAX_ATOMS = 128  # the matcher's time grows steeply with the number of atoms
CHECK_COLUMNS = (
    "one",
    "other",
    "alflow",
    "matcher",
    "remark",
    "displacement",
    "rms",
    "strain",
    "matcher_displacement",
    "matcher_rms",
)
_WINDOW = 4
_WIDER = (1.0, 2.0, 5.0, 15.0)
_FLOOR = 1e-4  # below it, in Å and as a strain, the matcher's own rounding decides


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What StructureMatcher says about a pair: displacements in Å, None where it finds no mapping."""

    same: bool
    displacement: float | None = None
    rms: float | None = None


@dataclass(frozen=True, kw_only=True)
class CrossCheck:
    """What came of it.

    Parameters
    ----------
    duplicates, n_duplicates
        pairs asked about that are duplicates to us, and how many there are of those that can be asked about
    different
        pairs asked about that we keep apart: those whose fingerprints are closest
    disagreements
        a row for every pair on which the two searches differ
    """

    duplicates: int
    n_duplicates: int
    different: int
    disagreements: list[dict[str, Any]]


def cross_check(
    work: WorkFile, policy: DuplicatePolicy, report: ConsoleReporter, *, limit: int = MAX_PAIRS
) -> CrossCheck:
    """Ask StructureMatcher about at most ``limit`` duplicates, evenly spread, and ``limit`` closest pairs kept apart.

    Only three-dimensional crystals of up to 128 atoms are asked about, and no pair of equal content.
    """
    duplicates = work.results.duplicate_pairs(MAX_ATOMS)
    every = max(1, math.ceil(len(duplicates) / limit))
    asked = [(one, other, True) for one, other in duplicates[::every]]
    n_duplicates = len(asked)
    asked += [(one, other, False) for _, one, other in heapq.nsmallest(limit, _near_pairs(work, policy))]
    rows: list[dict[str, Any]] = []
    for number, (one, other, same) in enumerate(asked, start=1):
        a, b = work.structure(one), work.structure(other)
        verdict = ask_matcher(a, b, policy)
        if verdict.same != same:
            names = {"one": work.origin(one), "other": work.origin(other)}
            rows.append({**names, **_disagreement(a, b, policy, verdict, same=same)})
        report.progress("cross-check", number, len(asked), f"pairs, {len(rows)} disagreements")
    return CrossCheck(
        duplicates=n_duplicates,
        n_duplicates=len(duplicates),
        different=len(asked) - n_duplicates,
        disagreements=rows,
    )


def ask_matcher(a: Structure, b: Structure, policy: DuplicatePolicy) -> Verdict:
    """Ask StructureMatcher whether two crystals are the same within the tolerances of a policy."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    length = (a.volume / a.n_atoms) ** (1.0 / 3.0)
    largest, strain = max(policy.max_displacement, _FLOOR), max(policy.max_strain, _FLOOR)
    matcher: Any = StructureMatcher(
        ltol=math.expm1(strain),
        angle_tol=math.degrees(2.0 * strain),
        stol=1.1 * largest / length,
        primitive_cell=False,
        attempt_supercell=True,
        scale=policy.any_volume,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = matcher.get_rms_dist(*(_primitive(structure, 0.1 * largest) for structure in (a, b)))
    if found is None:
        return Verdict(same=False)
    rms, displacement = (float(value) * length for value in found)
    return Verdict(
        same=displacement <= largest and rms <= max(policy.rms_displacement, _FLOOR),
        displacement=displacement,
        rms=rms,
    )


def _primitive(structure: Structure, tolerance: float) -> Any:
    """A pymatgen structure of species and places only, in a primitive cell."""
    from pymatgen.core.structure import Structure as PymatgenStructure

    found = PymatgenStructure(
        structure.cell, structure.numbers.tolist(), structure.positions, coords_are_cartesian=True
    )
    return found.get_primitive_structure(tolerance=max(tolerance, _FLOOR))


def _near_pairs(work: WorkFile, policy: DuplicatePolicy) -> Iterator[tuple[float, int, int]]:
    """(distance of the fingerprints, one, other) of leaders that stand next to each other by neighbour distance."""
    for leaders in work.results.leaders_by_bucket(MAX_ATOMS):
        prints = [work.fingerprint(leader) for leader in leaders]
        scale = np.array([p.leading[0] if policy.any_volume else 1.0 for p in prints])
        order = np.argsort(np.array([p.leading[1] for p in prints]) / scale, kind="stable")
        vectors = np.array([p.vector for p in prints])[order] / scale[order, None]
        for step in range(1, min(_WINDOW, len(leaders) - 1) + 1):
            distances = np.abs(vectors[step:] - vectors[:-step]).max(axis=1)
            for i, distance in enumerate(distances.tolist()):
                one, other = sorted((leaders[order[i]], leaders[order[i + step]]))
                yield distance, one, other


def _disagreement(
    a: Structure, b: Structure, policy: DuplicatePolicy, verdict: Verdict, *, same: bool
) -> dict[str, Any]:
    """Both verdicts with both measurements, and why the two may differ."""
    measured = _measure(a, b, policy)
    return {
        "alflow": "same" if same else "different",
        "matcher": "same" if verdict.same else "different",
        "remark": "" if same else _reason(measured, policy),
        "displacement": None if measured is None else measured.max_displacement,
        "rms": None if measured is None else measured.rms_displacement,
        "strain": None if measured is None else measured.max_strain,
        "matcher_displacement": verdict.displacement,
        "matcher_rms": verdict.rms,
    }


def _measure(a: Structure, b: Structure, policy: DuplicatePolicy) -> Isometry | None:
    """The isometry within the narrowest multiple of the tolerances that admits one; moments are left out."""
    for factor in _WIDER:
        wider = policy.model_copy(
            update={
                "max_displacement": min(factor * policy.max_displacement, 0.3),
                "rms_displacement": min(factor * policy.rms_displacement, 0.3),
                "max_strain": min(factor * policy.max_strain, 0.05),
                "moments": None,
            }
        )
        found = find_isometry(a, b, wider)
        if found is not None:
            return found
    return None


def _reason(measured: Isometry | None, policy: DuplicatePolicy) -> str:
    """Which tolerance keeps two structures apart."""
    if measured is None:
        return f"no isometry within {_WIDER[-1]:g} times the tolerances"
    reasons = [
        name
        for name, value, tolerance in (
            ("displacement", measured.max_displacement, policy.max_displacement),
            ("rms displacement", measured.rms_displacement, policy.rms_displacement),
            ("strain", measured.max_strain, policy.max_strain),
        )
        if value > tolerance
    ]
    return f"{' and '.join(reasons)} beyond the tolerance" if reasons else "only their moments differ"


def check_sentence(check: CrossCheck) -> str:
    """What was asked, and what came of it."""
    found = plural(len(check.disagreements), "disagreement") if check.disagreements else "no disagreement"
    return (
        f"StructureMatcher was asked about {check.duplicates} of {check.n_duplicates} duplicates (crystals of up to "
        f"{MAX_ATOMS} atoms, not of equal content) and about the {check.different} closest pairs kept apart: {found}."
    )
