"""Search for the isometry between two structures.

Linear maps come first, from the lattices (three or two periodic directions fix them exactly) or, where the lattice
leaves a rotation open, from atoms that can only correspond to a few others. For every linear map an anchor site of
one structure is laid on each site of the other that has the same surroundings, and the nearest sites have to
correspond one to one. The displacements of the best placement decide. Every decision is made on the positions
themselves; invariants only sort out.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from alflow.structures._fingerprint import bucket
from alflow.structures._frames import linear_maps
from alflow.structures._isometry import Isometry
from alflow.structures._lattice import measure
from alflow.structures._motif import Motif, motif
from alflow.structures._placement import Placement, Trial, nearest_sites
from alflow.structures._policy import Relation
from alflow.structures._superlattice import common_cell
from alflow.structures.kernels import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from alflow.structures._policy import DuplicatePolicy
    from alflow.structures._structure import Structure

_CHUNK = 400_000
_BLOCK = 256
_PLANE = 2
_EPSILON = 1e-9
_GOOD_ENOUGH = 1e-3
_TURNED_GATE = 4.0


def find_isometry(a: Structure, b: Structure, policy: DuplicatePolicy) -> Isometry | None:
    """Map a onto b within the tolerances of a policy.

    The answer does not depend on which of the two comes first: ``find_isometry(b, a)`` is the inverse map.

    Parameters
    ----------
    a, b
        crystals in any cell, slabs and wires with any vacuum, molecules
    policy
        tolerances, mirror images, moments

    Returns
    -------
    for :attr:`Relation.IDENTICAL` the map with the smallest root mean square displacement (up to a thousandth of the
    tolerance), for the looser relations a good one; proper rotations are preferred; None where there is none within
    the tolerances
    """
    if bucket(a) != bucket(b):
        return None
    return align(motif(a, policy), motif(b, policy), policy)


def align(a: Motif, b: Motif, policy: DuplicatePolicy) -> Isometry | None:
    """As :func:`find_isometry`, for prepared structures of the same bucket."""
    if _moment_kind(a) != _moment_kind(b):
        return None
    swapped = a.order_key < b.order_key
    source, target = (b, a) if swapped else (a, b)
    found = _align_ordered(source, target, policy)
    if found is None:
        return None
    return found.inverse() if swapped else found


def worth_aligning(one: Motif, others: Sequence[Motif], policy: DuplicatePolicy) -> list[bool]:
    """Which of many prepared structures of the same bucket :func:`align` has to look at; it rejects the others."""
    kernels = compiled()
    if kernels is None or policy.any_volume:
        return [True] * len(others)
    packed = [other.packed for other in others]
    keep = kernels.gate(one.packed, packed, displacement=policy.max_displacement, strain=policy.max_strain)
    return keep.tolist()  # type: ignore[no-any-return]


def _moment_kind(prepared: Motif) -> int:
    """0 without compared moments, 1 collinear, 2 vectors."""
    return 0 if prepared.moments is None else prepared.moments.ndim


def _align_ordered(source: Motif, target: Motif, policy: DuplicatePolicy) -> Isometry | None:
    """Align the larger motif onto the smaller one; through a common supercell where neither contains the other."""
    unit = _common_scale(source, target, policy)
    if source.n_sites % target.n_sites == 0:
        tried, placement = _place(source, target, policy, unit)
        if placement is not None:
            return _isometry(source, target, placement, policy, unit)
        if tried:
            return None
    elif not compatible_sites(source, target, policy, unit)[1]:
        return None
    return _align_common(source, target, policy, unit) if len(source.lattice) else None


def _align_common(source: Motif, target: Motif, policy: DuplicatePolicy, unit: float) -> Isometry | None:
    """Neither lattice contains the other: lay the averaged small cells on each other, then the common supercell."""
    loose_source, loose_target = source.loose, target.loose
    if loose_source.n_sites == source.n_sites and loose_target.n_sites == target.n_sites:
        return None
    turned_over = loose_source.n_sites < loose_target.n_sites
    coarse, fine = (loose_target, loose_source) if turned_over else (loose_source, loose_target)
    unit = 1.0 / unit if turned_over else unit
    if coarse.n_sites % fine.n_sites:
        return None
    pairs, complete = compatible_sites(coarse, fine, policy, unit)
    if not complete:
        return None
    maps = linear_maps(
        coarse.lattice * unit,
        fine.lattice / unit,
        coarse.positions * unit,
        fine.positions / unit,
        pairs,
        coarse.n_sites // fine.n_sites,
        policy,
    )
    one, two = (target, source) if turned_over else (source, target)
    for linear in maps:
        cell = common_cell(one, two, linear, fine.lattice / unit, unit)
        if cell is None:
            continue
        _, placement = _place(cell.source, cell.target, policy, unit, maps=cell.linear[None])
        found = None if placement is None else _isometry(cell.source, cell.target, placement, policy, unit)
        if found is not None:
            return found.inverse() if turned_over else found
    return None


def _common_scale(source: Motif, target: Motif, policy: DuplicatePolicy) -> float:
    """Factor u that brings both to their geometric mean volume (source by u, target by 1/u) where volumes are free."""
    if not policy.any_volume or len(source.lattice) != 3:
        return 1.0
    per_site = measure(target.lattice) / target.n_sites / (measure(source.lattice) / source.n_sites)
    return float(per_site ** (1.0 / 6.0))


def compatible_sites(
    source: Motif, target: Motif, policy: DuplicatePolicy, unit: float
) -> tuple[NDArray[np.bool_], bool]:
    """(n_source, n_target) pairs of sites whose species, surroundings and moments allow them to correspond.

    Also whether every site of both has a partner.
    """
    displacement = policy.max_displacement + source.deviation + target.deviation
    shift = 2.0 * displacement * (1.0 + 2.0 * policy.max_strain) + _EPSILON
    strain = policy.max_strain * math.exp(2 * policy.max_strain)
    moment = None if policy.moments is None else policy.moments * (1.0 + 1e-6)
    kernels = compiled()
    if kernels is not None:
        return kernels.compatible_sites(
            (source.numbers, target.numbers),
            (source.rows, target.rows),
            (source.lengths, target.lengths),
            unit=unit,
            shift=shift,
            strain=strain,
            moment=moment,
        )
    pairs: NDArray[np.bool_] = source.numbers[:, None] == target.numbers[None]
    i, j = np.nonzero(pairs)
    mine, theirs = source.rows[i] * unit, target.rows[j] / unit
    good = (np.abs(mine - theirs) <= shift + strain * mine).all(axis=1)
    if moment is not None:
        good &= np.abs(source.lengths[i] - target.lengths[j]) <= moment
    pairs[i[~good], j[~good]] = False
    return pairs, bool(pairs.any(axis=1).all() and pairs.any(axis=0).all())


def _place(
    source: Motif, target: Motif, policy: DuplicatePolicy, unit: float, maps: NDArray[np.float64] | None = None
) -> tuple[int, Placement | None]:
    """How many linear maps there were (or 1 for any number), and the best placement of the source on the target."""
    kernels = compiled()
    if kernels is not None and len(source.lattice) >= _PLANE:
        with contextlib.suppress(OverflowError):  # a lattice with too many vectors: numpy lists them patiently
            found = kernels.place(
                source.packed,
                target.packed,
                displacement=policy.max_displacement,
                rms=policy.rms_displacement,
                strain=policy.max_strain,
                moment=policy.moments,
                mirror=policy.mirror,
                every=policy.relation is Relation.IDENTICAL,
                unit=unit,
                maps=maps,
            )
            if isinstance(found, bool) or found is None:
                return int(found is not None), None
            return 1, Placement(**found._asdict())
    pairs, complete = compatible_sites(source, target, policy, unit)
    if not complete:
        return 1, None
    copies = source.n_sites // target.n_sites
    lattices = source.lattice * unit, target.lattice / unit
    sites = source.positions * unit, target.positions / unit
    if maps is None:
        maps = linear_maps(*lattices, *sites, pairs, copies, policy)
    if not len(maps):
        return 0, None
    return len(maps), _best_placement(*sites, lattices[1], maps, pairs, copies, source, target, policy)


def _best_placement(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    lattice: NDArray[np.float64],
    maps: NDArray[np.float64],
    pairs: NDArray[np.bool_],
    copies: int,
    source: Motif,
    target: Motif,
    policy: DuplicatePolicy,
) -> Placement | None:
    """Best placement over all maps and anchors; the anchors whose surroundings are most alike are tried first.

    For identical structures the best of all counts. For the looser relations it is the best of the first block of
    placements that holds one: where hundreds are within the tolerance, any of them answers the question.
    """
    if copies > 1 and min(source.rows.min(), target.rows.min()) <= 4.0 * policy.max_displacement:
        # atoms this close could stand for each other, and counting would no longer prove a one-to-one correspondence
        return None
    gate = 2.0 * policy.max_displacement * (1.0 + 2.0 * policy.max_strain) + _EPSILON
    trial = Trial(
        x=x,
        y=y,
        lattice=lattice,
        maps=maps,
        pairs=pairs,
        copies=copies,
        order=np.argsort(pairs.sum(axis=1), kind="stable"),
        gate=gate * (_TURNED_GATE if len(lattice) < 2 else 1.0),
        rms=policy.rms_displacement,
    )
    linears, shifts = trial.starts(np.abs(source.rows[trial.order[0]] - target.rows).sum(axis=1))
    best: Placement | None = None

    def better_than() -> float:
        return math.inf if best is None else best.rms

    # one anchor at a time where the first match ends the search, more where all of them are wanted
    size = _BLOCK if policy.relation is Relation.IDENTICAL else min(_BLOCK, max(len(maps), 16))
    for start in range(0, len(linears), size):
        block = slice(start, start + size)
        for placement in trial.placements(linears[block], shifts[block], better_than):
            best = _better(best, placement, source, target, policy)
            if best is not None and best.rms <= _GOOD_ENOUGH * policy.rms_displacement:
                return best
        if best is not None and policy.relation is not Relation.IDENTICAL:
            break
    return best


def _better(
    best: Placement | None, new: Placement, source: Motif, target: Motif, policy: DuplicatePolicy
) -> Placement | None:
    """The better of the best so far and a new placement, if the new one is within the policy at all."""
    charged = source.deviation + target.deviation
    if new.largest + charged > policy.max_displacement or new.rms + charged > policy.rms_displacement:
        return best
    if best is not None and new.rms > best.rms - _EPSILON:
        return best
    sign = _moment_sign(new.linear, new.sites, source, target, policy)
    return replace(new, moment_sign=sign) if sign else best


def _moment_sign(
    linear: NDArray[np.float64], sites: NDArray[np.int64], source: Motif, target: Motif, policy: DuplicatePolicy
) -> int:
    """+1 or -1 where the moments agree as they are or after a global flip (collinear only); 0 where they do not."""
    if source.moments is None or target.moments is None or policy.moments is None:
        return 1
    theirs = target.moments[sites]
    if source.moments.ndim == 2:
        turn = polar(linear)[0]
        mine = source.moments @ turn * np.sign(np.linalg.det(turn))
        return int(float(np.linalg.norm(mine - theirs, axis=1).max()) <= policy.moments)
    for sign in (1, -1):
        if float(np.abs(sign * source.moments - theirs).max()) <= policy.moments:
            return sign
    return 0


def polar(linear: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Orthogonal factor Q, stretch S and principal stretches of a row map ``linear = S @ Q``."""
    u, stretches, vt = np.linalg.svd(linear)
    return u @ vt, u @ np.diag(stretches) @ u.T, stretches


def _isometry(
    source: Motif, target: Motif, placement: Placement, policy: DuplicatePolicy, unit: float
) -> Isometry | None:
    """The placement told for the structures as they were given, with every atom of both measured."""
    a, b = source.structure, target.structure
    linear, shift = placement.linear * unit * unit, placement.shift * unit
    site_map, forward = _onto(a.positions @ linear + shift, a.numbers, b, target.box, np.eye(3))
    back = np.linalg.inv(linear)
    inverse_map, backward = _onto((b.positions - shift) @ back, b.numbers, a, source.box, linear)
    largest = max(placement.largest, forward / unit, backward / unit)
    turn, stretch, stretches = polar(linear)
    strain = float(np.abs(np.log(stretches / unit**2)).max())
    if largest > policy.max_displacement or strain > policy.max_strain + _EPSILON:
        return None
    return Isometry(
        rotation=turn.T,
        translation=shift,
        strain=stretch - np.eye(3),
        site_map=site_map,
        inverse_site_map=inverse_map,
        max_displacement=largest,
        rms_displacement=placement.rms + source.deviation + target.deviation,
        max_strain=strain,
        moment_sign=placement.moment_sign,
    )


def _onto(
    points: NDArray[np.float64],
    numbers: NDArray[np.int64],
    structure: Structure,
    lattice: NDArray[np.float64],
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.int64], float]:
    """(n,) atom of the structure under each point of the same species; Å, the longest way to one, times a matrix."""
    kernels = compiled()
    if kernels is not None:
        return kernels.nearest_same(points, numbers, structure.positions, structure.numbers, lattice, matrix)
    same = numbers[:, None] == structure.numbers[None]
    nearest, longest = np.empty(len(points), dtype=np.int64), 0.0
    step = max(1, _CHUNK // structure.n_atoms)
    for start in range(0, len(points), step):
        chunk = slice(start, start + step)
        found, ways = nearest_sites(points[None, chunk], structure.positions, lattice, same[chunk])
        nearest[chunk] = found[0]
        longest = max(longest, float(np.linalg.norm(ways[0] @ matrix, axis=1).max()))
    return nearest, longest
