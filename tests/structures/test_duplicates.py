import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell

from alflow.errors import StructureError
from alflow.structures import (
    DuplicateIndex,
    DuplicatePolicy,
    Fingerprint,
    Structure,
    find_duplicates,
    fingerprint,
)
from alflow.structures._motif import motif
from tests.crystals import random_crystal, zoo
from tests.disguises import Disguise, disguise, jiggled

IDENTICAL = DuplicatePolicy.identical()
REDUNDANT = DuplicatePolicy.redundant()


def as_partition(labels: np.ndarray, order: np.ndarray) -> set[frozenset[int]]:
    """Groups of original positions."""
    return {frozenset(int(order[i]) for i in np.flatnonzero(labels == k)) for k in np.unique(labels)}


def test_labels_number_the_groups_by_first_appearance() -> None:
    copper, gold = bulk("Cu"), bulk("Au")
    labels = find_duplicates([gold, copper, gold.copy(), bulk("Cu", cubic=True), copper], IDENTICAL)
    np.testing.assert_array_equal(labels, [0, 1, 0, 1, 1])
    assert labels.dtype == np.int64
    assert len(find_duplicates([], IDENTICAL)) == 0


def test_structures_and_atoms_may_be_mixed() -> None:
    copper = bulk("Cu")
    np.testing.assert_array_equal(find_duplicates([copper, Structure.from_atoms(copper)], IDENTICAL), [0, 0])


@pytest.mark.parametrize("policy", [IDENTICAL, REDUNDANT, DuplicatePolicy.same_phase()], ids=lambda p: str(p.relation))
def test_every_kind_of_structure_is_grouped_with_its_disguises(policy: DuplicatePolicy) -> None:
    rng = np.random.default_rng(0)
    pool, truth = [], []
    for k, atoms in enumerate(zoo().values()):
        for _ in range(4):
            pool.append(disguise(atoms, rng))
            truth.append(k)
    labels = find_duplicates(pool, policy)
    same = labels[:, None] == labels[None]
    expected = np.array(truth)[:, None] == np.array(truth)[None]
    np.testing.assert_array_equal(same, expected)


@pytest.mark.parametrize("policy", [IDENTICAL, REDUNDANT], ids=lambda p: str(p.relation))
def test_a_path_in_steps_of_a_hundredth_never_merges_end_to_end(policy: DuplicatePolicy) -> None:
    rng = np.random.default_rng(1)
    start = random_crystal(rng, 6, ("Cu", "Au"))
    step = rng.normal(size=3)
    frames = []
    for k in range(60):
        frame = start.copy()
        frame.positions[2] += 0.01 * k * step / np.linalg.norm(step)
        frames.append(frame)
    order = rng.permutation(60)
    labels = find_duplicates([frames[i] for i in order], policy)
    for group in as_partition(labels, order):
        # within a group every frame lies within the tolerance of one leader, after the best translation (5/6 of a step)
        reach = 2 * policy.max_displacement / (0.01 * 5 / 6)
        assert max(group) - min(group) <= reach
    assert labels[np.argsort(order)][0] != labels[np.argsort(order)][59]
    if policy is IDENTICAL:
        assert len(set(labels)) == 60
    else:
        assert 60 / 4 <= len(set(labels)) < 60


@pytest.mark.parametrize("seed", range(3))
def test_the_partition_does_not_depend_on_the_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool: list[Atoms] = []
    for k in range(4):
        base = random_crystal(rng, 3 + k, ("Cu", "Au"))
        # close to the tolerance on purpose: groups overlap, and only the canonical order decides
        pool += [disguise(jiggled(base, rng, 0.012), rng, Disguise(supercell=1 + k % 2)) for _ in range(6)]
    identity = np.arange(len(pool))
    expected = as_partition(find_duplicates(pool, REDUNDANT), identity)
    assert 4 < len(expected) < len(pool)
    for _ in range(4):
        order = rng.permutation(len(pool))
        assert as_partition(find_duplicates([pool[i] for i in order], REDUNDANT), order) == expected


def hermite_normal_forms(n: int) -> list[np.ndarray]:
    """All superlattices of index n as rows (Hart and Forcade 2008, equation 1)."""
    forms = []
    for a in (d for d in range(1, n + 1) if n % d == 0):
        for c in (d for d in range(1, n // a + 1) if (n // a) % d == 0):
            f = n // a // c
            forms += [
                np.array([[a, 0, 0], [b, c, 0], [d, e, f]])
                for b, d, e in itertools.product(range(a), range(a), range(c))
            ]
    return forms


@pytest.mark.parametrize(
    ("lattice", "n", "count"),
    [("fcc", 2, 2), ("fcc", 3, 3), ("fcc", 4, 12), ("bcc", 2, 2), ("bcc", 3, 3), ("bcc", 4, 12)],
)
def test_derivative_superstructures_are_counted_as_hart_and_forcade_do(lattice: Any, n: int, count: int) -> None:
    parent = bulk("Cu", lattice, a=3.6)
    derived: list[Structure] = []
    for form in hermite_normal_forms(n):
        cell = make_supercell(parent, form)
        for species in itertools.product((29, 79), repeat=n):
            if 29 in species and 79 in species and 2 * species.count(79) <= n:
                cell.numbers = species
                structure = Structure.from_atoms(cell)
                if motif(structure, IDENTICAL).n_sites == n:
                    derived.append(structure)
    labels = find_duplicates(derived, IDENTICAL)
    leaders = [derived[i] for i in np.unique(labels, return_index=True)[1]]
    exchanged = [
        Structure(cell=s.cell, pbc=s.pbc, numbers=np.where(s.numbers == 29, 79, 29), positions=s.positions)
        for s in leaders
    ]
    both = find_duplicates(leaders + exchanged, IDENTICAL)
    classes = {frozenset((int(both[i]), int(both[i + len(leaders)]))) for i in range(len(leaders))}
    assert len(classes) == count


# -- the index ----------------------------------------------------------------------------------------------------


def test_the_index_answers_with_the_first_stored_match_and_its_isometry() -> None:
    rng = np.random.default_rng(2)
    index = DuplicateIndex(REDUNDANT)
    pool = [random_crystal(rng, 5, ("Cu", "Au")) for _ in range(8)]
    for key, atoms in enumerate(pool):
        index.add(10 * key, Structure.from_atoms(atoms))
    index.add("late", Structure.from_atoms(pool[3]))
    assert len(index) == 9
    new = disguise(pool[3], rng)
    match = index.find(Structure.from_atoms(new))
    assert match is not None
    assert match.key == 30
    # from the stored structure onto the new one
    assert len(match.isometry.site_map) == len(pool[3])
    assert len(match.isometry.inverse_site_map) == len(new)
    assert index.find(Structure.from_atoms(random_crystal(rng, 5, ("Cu", "Au")))) is None
    assert index.find(Structure.from_atoms(bulk("Ni"))) is None


def test_all_matches_come_in_the_order_of_addition() -> None:
    index = DuplicateIndex(DuplicatePolicy.redundant())
    for key, a in (("far", 3.7), ("first", 3.6), ("second", 3.601)):
        index.add(key, Structure.from_atoms(bulk("Cu", "fcc", a=a)))
    found = [match.key for match in index.matches(Structure.from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True)))]
    assert found == ["first", "second"]


def test_structures_are_loaded_only_for_a_comparison() -> None:
    rng = np.random.default_rng(3)
    pool = [Structure.from_atoms(random_crystal(rng, 4, ("Cu", "Au"))) for _ in range(6)]
    stored = [(fingerprint(s).to_bytes(), s.to_bytes()) for s in pool]
    loaded: list[int] = []

    def loader(k: int) -> Structure:
        loaded.append(k)
        return Structure.from_bytes(stored[k][1])

    index = DuplicateIndex(IDENTICAL)
    for k, (blob, _) in enumerate(stored):
        index.add(k, partial(loader, k), Fingerprint.from_bytes(blob))
    assert loaded == []
    twin = Structure.from_atoms(disguise(pool[4].to_atoms(), rng))
    for _ in range(2):
        match = index.find(twin, fingerprint(twin))
        assert match is not None
        assert match.key == 4
    assert loaded == [4]


def test_many_entries_of_one_bucket_are_found_after_sorting() -> None:
    rng = np.random.default_rng(4)
    pool = [bulk("Cu", "fcc", a=3.0 + 0.001 * k) for k in range(700)]
    index = DuplicateIndex(IDENTICAL)
    order = rng.permutation(700)
    for k in order:
        index.add(int(k), Structure.from_atoms(pool[k]))
        if k % 5 == 0:
            match = index.find(Structure.from_atoms(disguise(pool[k], rng)))
            assert match is not None
            assert match.key == k
    assert index.find(Structure.from_atoms(bulk("Cu", "fcc", a=3.0005))) is None


def test_a_small_cache_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    pool = [random_crystal(rng, 3, ("Cu", "Au")) for _ in range(5)]
    index = DuplicateIndex(IDENTICAL, cache=1)
    for k, atoms in enumerate(pool):
        index.add(k, Structure.from_atoms(atoms))
    for _ in range(2):
        for k, atoms in enumerate(pool):
            match = index.find(Structure.from_atoms(disguise(atoms, rng)))
            assert match is not None
            assert match.key == k


def test_a_fingerprint_of_another_version_is_refused() -> None:
    structure = Structure.from_atoms(bulk("Cu"))
    one = fingerprint(structure)
    old = Fingerprint(bucket=one.bucket, leading=one.leading, vector=one.vector, version=0)
    with pytest.raises(StructureError, match="version 0"):
        DuplicateIndex(IDENTICAL).add(1, structure, old)
    with pytest.raises(StructureError, match="version 0"):
        DuplicateIndex(IDENTICAL).find(structure, old)
