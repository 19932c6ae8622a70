"""The labelled structures of a replay: split, freed of duplicates, with a first handful to begin from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from alflow.errors import StructureError
from alflow.potentials import Kind
from alflow.structures import DuplicatePolicy, LabelledStructure, find_duplicates


@dataclass(frozen=True, kw_only=True, eq=False)
class ReplayPool:
    """A pool of known labels and the structures that every strategy is tested on.

    Parameters
    ----------
    pool
        structures that can be "labelled"
    test
        structures that are never chosen
    leaders
        rows of the pool that stay when redundant structures are dropped: the first of every group
    """

    pool: tuple[LabelledStructure, ...]
    test: tuple[LabelledStructure, ...]
    leaders: tuple[int, ...]

    @property
    def kinds(self) -> frozenset[Kind]:
        """Kinds that some structure of the pool has a label for."""
        kinds = {Kind.ENERGY}
        if any(row.properties.forces is not None for row in self.pool):
            kinds.add(Kind.FORCE)
        if any(row.properties.stress is not None for row in self.pool):
            kinds.add(Kind.STRESS)
        return frozenset(kinds)


def prepare_pool(
    structures: Sequence[Atoms | LabelledStructure],
    *,
    test: Sequence[Atoms | LabelledStructure] | None = None,
    test_fraction: float = 0.2,
    max_pool: int | None = None,
    max_test: int | None = None,
    duplicates: DuplicatePolicy | None = None,
    seed: int = 0,
) -> ReplayPool:
    """Read labels, hold out a test set, thin both to an affordable size, and find what is redundant in the pool.

    The same pool and test set serve every strategy and every seed of the replay.

    Parameters
    ----------
    structures
        with labels, as :meth:`LabelledStructure.from_atoms` reads them
    test
        structures to test on; None: a random `test_fraction` of `structures`, drawn by groups of duplicates so that no
        structure is tested on its own copy
    max_pool, max_test
        random subsets of at most this size
    duplicates
        which structures need not be labelled twice; default :meth:`DuplicatePolicy.redundant`
    seed
        of the split and the subsets

    Raises
    ------
    StructureError
        if a structure has no label, or nothing is left to choose from or to test on
    """
    rng = np.random.default_rng([seed, 1])
    policy = duplicates or DuplicatePolicy.redundant()
    pool = [_labelled(item) for item in structures]
    held_out = None if test is None else [_labelled(item) for item in test]
    wanted = max_pool
    if wanted is not None and held_out is None:
        wanted = round(wanted / (1.0 - test_fraction))
    pool = _subset(pool, wanted, rng)
    groups = np.asarray(find_duplicates([row.structure for row in pool], policy)) if pool else np.zeros(0, dtype=int)
    if held_out is None:
        order = rng.permutation(np.unique(groups))
        tested = np.isin(groups, order[: max(1, round(test_fraction * len(order)))])
        held_out = [row for row, out in zip(pool, tested, strict=True) if out]
        pool = [row for row, out in zip(pool, tested, strict=True) if not out]
        groups = groups[~tested]
    held_out = _subset(held_out, max_test, rng)
    if not pool or not held_out:
        raise StructureError(
            f"a replay needs structures to choose from and to test on; found {len(pool)} and {len(held_out)}"
        )
    _, leaders = np.unique(groups, return_index=True)
    return ReplayPool(pool=tuple(pool), test=tuple(held_out), leaders=tuple(int(i) for i in np.sort(leaders)))


def first_rows(pool: ReplayPool, rows: Sequence[int], n: int, seed: int) -> list[int]:
    """Draw the n structures every strategy begins from: at random, but every element is there.

    An element that the committee has never seen cannot be predicted; in a campaign round 0 sees to that.
    """
    rng = np.random.default_rng([seed, 2])
    order = [rows[i] for i in rng.permutation(len(rows))]
    missing = {element for row in pool.pool for element in row.structure.elements}
    chosen: list[int] = []
    while missing:
        best = max(order, key=lambda row: len(missing.intersection(pool.pool[row].structure.elements)))
        found = missing.intersection(pool.pool[best].structure.elements)
        if not found:
            break
        chosen.append(best)
        missing -= found
    rest = [row for row in order if row not in set(chosen)]
    return (chosen + rest)[: max(n, len(chosen))]


def _labelled(item: Atoms | LabelledStructure) -> LabelledStructure:
    return item if isinstance(item, LabelledStructure) else LabelledStructure.from_atoms(item)


def _subset(rows: list[LabelledStructure], size: int | None, rng: np.random.Generator) -> list[LabelledStructure]:
    if size is None or size >= len(rows):
        return rows
    return [rows[i] for i in np.sort(rng.choice(len(rows), size=size, replace=False))]
