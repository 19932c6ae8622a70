import itertools
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from alflow.structures import DuplicatePolicy, Isometry, Structure, find_isometry
from alflow.structures._lattice import reduced_lattice, wrap_small
from tests.crystals import perovskite, random_crystal, zoo
from tests.disguises import Disguise, disguise, jiggled, one_moved, one_swapped, repeated, strained

IDENTICAL = DuplicatePolicy.identical()
REDUNDANT = DuplicatePolicy.redundant()
PHASE = DuplicatePolicy.same_phase()


def match(a: Atoms, b: Atoms, policy: DuplicatePolicy) -> Isometry | None:
    return find_isometry(Structure.from_atoms(a), Structure.from_atoms(b), policy)


def assert_carries(isometry: Isometry | None, a: Atoms, b: Atoms, tolerance: float = 1e-6) -> None:
    """Both site maps hold, species agree and every atom of both lands on its partner."""
    assert isometry is not None
    np.testing.assert_allclose(isometry.rotation @ isometry.rotation.T, np.eye(3), atol=1e-9)
    pairs = ((isometry, a, b), (isometry.inverse(), b, a))
    for forth, source, target in pairs:
        lattice = reduced_lattice(target.cell.array[target.pbc])[0]
        assert (source.numbers == target.numbers[forth.site_map]).all()
        gap = wrap_small(forth.apply(source.positions) - target.positions[forth.site_map], lattice)
        assert np.linalg.norm(gap, axis=1).max() <= max(tolerance, isometry.max_displacement * 1.02)
    assert isometry.max_displacement <= tolerance


@pytest.mark.parametrize("policy", [IDENTICAL, REDUNDANT, PHASE], ids=lambda p: str(p.relation))
@pytest.mark.parametrize("name", zoo())
def test_every_disguise_is_recognised(name: str, policy: DuplicatePolicy) -> None:
    rng = np.random.default_rng(len(name))
    atoms = zoo()[name]
    for _ in range(5):
        one, other = (disguise(atoms, rng) for _ in range(2))
        found = match(one, other, policy)
        assert_carries(found, one, other)
        assert found is not None
        assert found.max_strain < 1e-9


def test_the_answer_does_not_depend_on_which_comes_first() -> None:
    rng = np.random.default_rng(2)
    for atoms in (perovskite(), random_crystal(rng, 6, ("Cu", "Au"))):
        a, b = atoms, disguise(jiggled(atoms, rng, 0.008), rng, Disguise(supercell=1))
        forth, back = match(a, b, REDUNDANT), match(b, a, REDUNDANT)
        assert forth is not None
        assert back is not None
        np.testing.assert_allclose(forth.inverse().rotation, back.rotation, atol=1e-12)
        assert forth.max_displacement == back.max_displacement


# -- near misses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_near_misses_are_never_merged(seed: int) -> None:
    rng = np.random.default_rng(seed)
    atoms = random_crystal(rng, int(rng.integers(2, 12)), ("Cu", "Au"))
    what = Disguise(supercell=2)
    for policy in (IDENTICAL, REDUNDANT):
        assert match(atoms, disguise(strained(atoms, rng, 0.005), rng, what), policy) is None
        if len(set(atoms.numbers)) == 2:
            assert match(atoms, disguise(one_swapped(atoms, rng), rng, what), policy) is None
        if len(atoms) > 2:
            assert match(atoms, disguise(one_moved(atoms, rng, 0.1), rng, what), policy) is None


def test_one_atom_of_64_moved_by_a_tenth_of_an_angstrom_is_seen() -> None:
    rng = np.random.default_rng(0)
    for perfect in (bulk("Si", cubic=True) * 2, bulk("Al", cubic=True) * (4, 2, 2)):
        assert len(perfect) == 64
        for policy in (IDENTICAL, REDUNDANT):
            assert match(perfect, disguise(one_moved(perfect, rng, 0.1), rng, Disguise(supercell=1)), policy) is None
        moved = disguise(one_moved(perfect, rng, 0.01), rng, Disguise(supercell=1))
        assert match(perfect, moved, IDENTICAL) is None
        assert match(perfect, moved, REDUNDANT) is not None


def test_redundant_ends_at_its_displacement() -> None:
    rng = np.random.default_rng(3)
    atoms = random_crystal(rng, 8, ("Cu", "Au"))
    for size, expected in ((0.012, True), (0.02, False)):
        moved = disguise(one_moved(atoms, rng, size), rng)
        # the best translation takes one eighth of a single displacement away
        assert (match(atoms, moved, REDUNDANT) is not None) is expected


def test_identical_ends_at_its_strain_and_displacement() -> None:
    rng = np.random.default_rng(4)
    atoms = random_crystal(rng, 6, ("Cu", "Au"))
    assert match(atoms, strained(atoms, rng, 5e-6), IDENTICAL) is not None
    assert match(atoms, strained(atoms, rng, 3e-5), IDENTICAL) is None
    assert match(atoms, jiggled(atoms, rng, 2e-5), IDENTICAL) is not None
    assert match(atoms, one_moved(atoms, rng, 3e-4), IDENTICAL) is None


def test_a_swap_in_a_large_ordered_cell_is_seen() -> None:
    rng = np.random.default_rng(5)
    ordered = bulk("CsCl", "cesiumchloride", a=4.1) * (3, 2, 2)
    for policy in (IDENTICAL, REDUNDANT, PHASE):
        assert match(ordered, disguise(one_swapped(ordered, rng), rng, Disguise(supercell=1)), policy) is None


def test_homometric_crystals_are_told_apart() -> None:
    # Patterson's cyclotomic pair on a ring of eight: the same differences, not congruent
    def ring(marks: list[int], n: int) -> Atoms:
        positions = [[1.2 * m, 0.0, 0.0] for m in marks]
        return Atoms(f"Cu{len(marks)}", positions=positions, cell=[1.2 * n, 15.0, 15.0], pbc=True)

    one, other = ring([0, 1, 3, 4], 8), ring([0, 1, 2, 5], 8)

    def differences(marks: list[int]) -> list[int]:
        return sorted((b - a) % 8 for a in marks for b in marks)

    assert differences([0, 1, 3, 4]) == differences([0, 1, 2, 5])
    for policy in (IDENTICAL, REDUNDANT, PHASE):
        assert match(one, other, policy) is None
        assert match(one, ring([7, 0, 2, 3], 8), policy) is not None


def test_the_homometric_molecules_of_bloom_are_told_apart() -> None:
    # the same multiset of distances: {0, 1, 4, 10, 12, 17} and {0, 1, 8, 11, 13, 17} on a line
    marks = ([0, 1, 4, 10, 12, 17], [0, 1, 8, 11, 13, 17])
    one, other = (Atoms("C6", positions=[[float(m), 0.0, 0.0] for m in row]) for row in marks)
    distances = [sorted(abs(a - b) for a, b in itertools.combinations(row, 2)) for row in marks]
    assert distances[0] == distances[1]
    for policy in (IDENTICAL, REDUNDANT, PHASE):
        assert match(one, other, policy) is None


def polytype(layers: str, a: float = 2.55) -> Atoms:
    """Close-packed stacking, e.g. ``ABC`` for fcc."""
    height = a * np.sqrt(2.0 / 3.0)
    offsets = {"A": (0.0, 0.0), "B": (1 / 3, 1 / 3), "C": (2 / 3, 2 / 3)}
    n = len(layers)
    cell = np.array([[a, 0, 0], [a / 2, a * np.sqrt(3) / 2, 0], [0, 0, n * height]])
    scaled = [(*offsets[layer], k / n) for k, layer in enumerate(layers)]
    return Atoms(f"Cu{n}", scaled_positions=scaled, cell=cell, pbc=True)


@pytest.mark.parametrize("policy", [IDENTICAL, REDUNDANT, PHASE], ids=lambda p: str(p.relation))
def test_polytypes_are_told_apart_and_recognised(policy: DuplicatePolicy) -> None:
    rng = np.random.default_rng(6)
    stackings = ["ABC", "AB", "ABAC", "ABCACB", "ABABAC"]
    crystals = [polytype(s) for s in stackings]
    for i, j in itertools.product(range(len(crystals)), repeat=2):
        other = disguise(crystals[j], rng, Disguise(supercell=2))
        assert (match(crystals[i], other, policy) is not None) == (i == j), (stackings[i], stackings[j])
    assert match(polytype("ABCABC"), bulk("Cu", "fcc", a=2.55 * np.sqrt(2)), policy) is not None


# -- mirror images, moments, charge ----------------------------------------------------------------------------------


def test_mirror_images_are_one_by_policy() -> None:
    rng = np.random.default_rng(7)
    left = molecule("CH3CH2OH")
    left.positions[3:6] += rng.normal(size=(3, 3)) * 0.3
    right = left.copy()
    right.positions = -right.positions
    found = match(left, right, IDENTICAL)
    assert found is not None
    assert found.det == -1
    for make in (DuplicatePolicy.identical, DuplicatePolicy.redundant, DuplicatePolicy.same_phase):
        assert match(left, right, make(mirror=False)) is None
        assert match(left, disguise(left, rng, Disguise(mirror=False)), make(mirror=False)) is not None
    chiral = random_crystal(rng, 5, ("Cu", "Au"))
    mirrored = disguise(chiral, rng, Disguise(rotate=False, mirror=False))
    mirrored.set_cell(-mirrored.cell.array)
    mirrored.positions = -mirrored.positions
    assert match(chiral, mirrored, IDENTICAL) is not None
    assert match(chiral, mirrored, DuplicatePolicy.identical(mirror=False)) is None


def test_a_proper_rotation_is_preferred() -> None:
    found = match(perovskite(), disguise(perovskite(), np.random.default_rng(1)), IDENTICAL)
    assert found is not None
    assert found.det == 1


def iron(moments: list[float] | list[list[float]]) -> Atoms:
    atoms = bulk("Fe", cubic=True) * (1, 1, len(moments) // 2)
    atoms.set_initial_magnetic_moments(moments)
    return atoms


def test_collinear_moments_agree_up_to_a_global_flip() -> None:
    rng = np.random.default_rng(8)
    ferri = iron([2.0, -1.0, 2.0, -1.0])
    flipped = iron([-2.0, 1.0, -2.0, 1.0])
    found = match(ferri, disguise(flipped, rng), IDENTICAL)
    assert found is not None
    assert found.moment_sign == -1
    same = match(ferri, disguise(ferri, rng), IDENTICAL)
    assert same is not None
    assert same.moment_sign == 1


@pytest.mark.parametrize(
    "other", [[2.0, 2.0, 2.0, 2.0], [2.0, -2.0, 2.0, -2.0], [2.0, 2.0, -2.0, -2.0], [2.1, 2.1, 2.1, 2.1], None]
)
def test_another_spin_state_is_another_structure(other: Any) -> None:
    states: list[list[float] | None] = [
        [2.0, 2.0, 2.0, 2.0],
        [2.0, -2.0, 2.0, -2.0],
        [2.0, 2.0, -2.0, -2.0],
        [2.1, 2.1, 2.1, 2.1],
        None,
    ]
    rng = np.random.default_rng(9)
    plain = bulk("Fe", cubic=True) * (1, 1, 2)
    disguised = disguise(plain if other is None else iron(other), rng)
    for state in states:
        atoms = plain if state is None else iron(state)
        for policy in (IDENTICAL, REDUNDANT):
            assert (match(atoms, disguised, policy) is not None) == (state == other)
        assert match(atoms, disguised, PHASE) is not None


def test_vector_moments_turn_as_axial_vectors() -> None:
    rng = np.random.default_rng(10)
    atoms = random_crystal(rng, 4, ("Fe", "O"))
    atoms.set_initial_magnetic_moments(rng.normal(size=(4, 3)))
    for _ in range(6):
        other = disguise(atoms, rng)
        found = match(atoms, other, IDENTICAL)
        assert_carries(found, atoms, other)
    wrong = disguise(atoms, rng, Disguise(rotate=False, mirror=False))
    wrong.set_initial_magnetic_moments(wrong.arrays["initial_magmoms"][:, [1, 0, 2]])
    assert match(atoms, wrong, IDENTICAL) is None
    collinear = atoms.copy()
    del collinear.arrays["initial_magmoms"]
    collinear.set_initial_magnetic_moments(np.linalg.norm(atoms.arrays["initial_magmoms"], axis=1))
    assert match(atoms, collinear, IDENTICAL) is None


def test_charge_has_to_agree() -> None:
    neutral, charged = molecule("H2O"), molecule("H2O")
    charged.info["charge"] = 1.0
    assert match(neutral, charged, PHASE) is None
    assert match(charged, disguise(charged, np.random.default_rng(0)), IDENTICAL) is not None


def test_periodicity_and_composition_have_to_agree() -> None:
    atoms = bulk("Cu", cubic=True)
    slab = atoms.copy()
    slab.pbc = (True, True, False)
    assert match(atoms, slab, PHASE) is None
    assert match(Atoms("H2", [[0, 0, 0], [0, 0, 0.75]]), Atoms("H"), PHASE) is None


# -- noise, strain, volume -------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n_atoms=st.integers(1, 10), elements=st.sampled_from([("Cu",), ("Cu", "Au")]))
def test_the_same_phase_survives_noise_and_disguise(seed: int, n_atoms: int, elements: tuple[str, ...]) -> None:
    rng = np.random.default_rng(seed)
    atoms = random_crystal(rng, n_atoms, elements)
    one, other = (disguise(jiggled(atoms, rng, 0.02), rng, Disguise(supercell=1)) for _ in range(2))
    assert_carries(match(one, other, PHASE), one, other, tolerance=0.06)


@pytest.mark.parametrize("name", ["copper", "salt", "perovskite", "slab", "two-dimensional", "wire", "ethanol"])
def test_noisy_supercells_of_different_shape_are_the_same_phase(name: str) -> None:
    rng = np.random.default_rng(13)
    atoms = zoo()[name]
    sizes = np.where(atoms.pbc, [[2, 1, 3], [1, 3, 1]], 1)
    one, other = (jiggled(repeated(atoms, np.diag(s)), rng, 0.015) for s in sizes)
    if name == "wire":
        other = jiggled(repeated(atoms, np.diag([1, 1, 2])), rng, 0.015)
    one, other = (disguise(x, rng, Disguise(supercell=1)) for x in (one, other))
    found = match(one, other, PHASE)
    assert_carries(found, one, other, tolerance=0.05)
    back = match(other, one, PHASE)
    assert back is not None
    assert back.max_displacement == found.max_displacement  # type: ignore[union-attr]
    assert match(one, other, IDENTICAL) is None


def test_one_perfect_cell_matches_its_noisy_supercell() -> None:
    rng = np.random.default_rng(14)
    noisy = disguise(jiggled(bulk("Si", cubic=True), rng, 0.01), rng, Disguise(supercell=2))
    assert_carries(match(bulk("Si"), noisy, REDUNDANT), bulk("Si"), noisy, tolerance=0.015)


def test_strain_is_reported() -> None:
    rng = np.random.default_rng(15)
    atoms = random_crystal(rng, 5, ("Cu", "Au"))
    other = disguise(strained(atoms, rng, 0.0015), rng)
    found = match(atoms, other, REDUNDANT)
    assert_carries(found, atoms, other)
    assert found is not None
    assert found.max_strain == pytest.approx(np.log(1.0015), rel=0.02)
    np.testing.assert_allclose(found.strain, found.strain.T, atol=1e-12)


@pytest.mark.parametrize("factor", [0.9, 1.2])
def test_any_volume_by_policy(factor: float) -> None:
    rng = np.random.default_rng(16)
    atoms = perovskite()
    other = disguise(atoms, rng)
    other.set_cell(other.cell.array * factor, scale_atoms=True)
    assert match(atoms, other, PHASE) is None
    found = match(atoms, other, DuplicatePolicy.same_phase(any_volume=True))
    assert_carries(found, atoms, other)
    assert found is not None
    np.testing.assert_allclose(found.strain, np.eye(3) * (factor - 1.0), atol=1e-9)
    sheared = disguise(strained(other, rng, 0.03), rng)
    assert match(atoms, sheared, DuplicatePolicy.same_phase(any_volume=True)) is None


# -- independent brute force -----------------------------------------------------------------------------------------


def cubic_operations() -> list[np.ndarray]:
    """The 48 signed permutation matrices."""
    return [
        np.eye(3)[list(p)] * np.array(s)[:, None]
        for p in itertools.permutations(range(3))
        for s in itertools.product((1.0, -1.0), repeat=3)
    ]


def brute_force_minimum(a: np.ndarray, b: np.ndarray, length: float) -> float:
    """Smallest largest-displacement over all 48 operations, all assignments and the least-squares translation."""
    best = np.inf
    for operation in cubic_operations():
        turned = a @ operation
        for order in itertools.permutations(range(len(b))):
            # anchoring the first pair fixes every image; each assignment then has one least-squares translation
            gap = turned + (b[order[0]] - turned[0]) - b[list(order)]
            gap -= length * np.rint(gap / length)
            gap -= gap.mean(axis=0)
            best = min(best, float(np.linalg.norm(gap, axis=1).max()))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_brute_force_agrees_on_small_cubic_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    length, n = 4.5, 3
    policy = PHASE.model_copy(update={"rms_displacement": 0.18})
    a = random_crystal(rng, n, ("Cu",), closest=1.8)
    a.set_cell(np.eye(3) * length, scale_atoms=True)
    verdicts = set()
    for size in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5):
        operation = cubic_operations()[int(rng.integers(48))]
        b = one_moved(a, rng, size * 1.5)
        b.positions = (b.positions @ operation)[rng.permutation(n)] + rng.random(3)
        least = brute_force_minimum(a.positions, b.positions, length)
        if (
            abs(least - policy.max_displacement) < 1e-6
            or a.get_all_distances(mic=True)[~np.eye(n, dtype=bool)].min() < 1.0
        ):
            continue
        found = match(a, b, policy)
        assert (found is not None) == (least < policy.max_displacement)
        verdicts.add(found is not None)
    assert verdicts == {True, False}


@pytest.mark.parametrize("seed", range(4))
def test_random_crystals_of_one_cell_are_never_merged_unless_brute_force_says_so(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    length = 3.9
    for _ in range(12):
        pair = [random_crystal(rng, 2, ("Cu",), closest=1.5) for _ in range(2)]
        for atoms in pair:
            atoms.set_cell(np.eye(3) * length, scale_atoms=True)
        least = brute_force_minimum(pair[0].positions, pair[1].positions, length)
        policy = PHASE.model_copy(update={"rms_displacement": 0.18})
        if abs(least - 0.18) > 1e-3:
            assert (match(pair[0], pair[1], policy) is not None) == (least < 0.18)


def test_derived_cells_of_the_same_shape_are_told_apart() -> None:
    # L1_0 and the alternating (110) order have the same composition and the same neighbours of a site in the plane
    cell = bulk("Cu", cubic=True)
    one, other = make_supercell(cell, np.diag([2, 1, 1])), make_supercell(cell, np.diag([2, 1, 1]))
    one.numbers[one.get_scaled_positions()[:, 2] < 0.25] = 79
    half = np.round(other.get_scaled_positions()[:, 0] * 4).astype(int) % 4
    other.numbers[half < 2] = 79
    assert sorted(one.numbers) == sorted(other.numbers)
    for policy in (IDENTICAL, REDUNDANT, PHASE):
        assert match(one, other, policy) is None
