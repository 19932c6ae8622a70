"""Random structures of every periodicity: what is the same is found, and brute force confirms what is matched."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alflow.structures import DuplicatePolicy, Structure, find_duplicates, find_isometry
from tests.disguises import Disguise, disguise, jiggled, repeated, strained
from tests.structures.brute_force import excess

POLICIES = [DuplicatePolicy.identical(), DuplicatePolicy.redundant(), DuplicatePolicy.same_phase()]
RELATIONS = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: str(p.relation))
PERIODICITIES = {3: (True, True, True), 2: (True, True, False), 1: (False, True, False), 0: (False, False, False)}
LATTICES: dict[str, Any] = {
    "any": None,
    "cubic": np.eye(3),
    "tetragonal": np.diag([1.0, 1.0, 1.3]),
    "hexagonal": np.array([[1.0, 0.0, 0.0], [-0.5, 0.75**0.5, 0.0], [0.0, 0.0, 1.2]]),
    "face-centred": np.array([[0.0, 0.7, 0.7], [0.7, 0.0, 0.7], [0.7, 0.7, 0.0]]),
}


def random_structure(rng: np.random.Generator, lattice: str, periodic: int, n_atoms: int, elements: Any) -> Atoms:
    """Atoms at random, at least 1.6 Å apart, in a cell of one of the lattice systems with some periodic directions."""
    shape = LATTICES[lattice]
    if shape is None:
        shape = np.eye(3) + 0.1 * rng.normal(size=(3, 3))
    cell = shape * (14.0 * n_atoms / abs(np.linalg.det(shape))) ** (1.0 / 3.0)
    images = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    points = np.zeros((0, 3))
    for _ in range(10_000):
        point = rng.random(3)
        gaps = (points - point)[:, None] + images
        if (np.linalg.norm(gaps @ cell, axis=2) > 1.6).all():
            points = np.concatenate([points, point[None]])
        if len(points) == n_atoms:
            break
    symbols = [str(rng.choice(list(elements))) for _ in range(n_atoms)]
    return Atoms(symbols, cell=cell, scaled_positions=points, pbc=PERIODICITIES[periodic])


cases = {
    "seed": st.integers(0, 2**31),
    "lattice": st.sampled_from(sorted(LATTICES)),
    "periodic": st.sampled_from([3, 3, 2, 1, 0]),
    "elements": st.sampled_from([("Cu",), ("Cu", "Au"), ("Cu", "Au", "O")]),
}


@RELATIONS
@settings(max_examples=20, deadline=None)
@given(n_atoms=st.integers(1, 12), magnetic=st.sampled_from(["no", "collinear", "vectors"]), **cases)
def test_a_structure_is_found_in_any_disguise(
    policy: DuplicatePolicy, seed: int, lattice: str, periodic: int, elements: Any, n_atoms: int, magnetic: str
) -> None:
    rng = np.random.default_rng(seed)
    atoms = random_structure(rng, lattice, periodic, n_atoms, elements)
    if magnetic == "collinear":
        atoms.set_initial_magnetic_moments(rng.choice([0.0, 1.0, -2.0], size=n_atoms))
    # vectors on an atom or two alone, or on a chain, have symmetries of their own: a documented limit
    if magnetic == "vectors" and (periodic > 1 or n_atoms > 3):
        atoms.set_initial_magnetic_moments(rng.normal(size=(n_atoms, 3)))
    one, other = (Structure.from_atoms(disguise(atoms, rng)) for _ in range(2))
    for target in (Structure.from_atoms(atoms), other):
        found = find_isometry(one, target, policy)
        assert found is not None
        assert found.max_displacement < 1e-6
        assert (one.numbers == target.numbers[found.site_map]).all()
    np.testing.assert_array_equal(find_duplicates([one, atoms, other], policy), [0, 0, 0])


@RELATIONS
@settings(max_examples=25, deadline=None)
@given(
    n_atoms=st.integers(1, 6),
    displacement=st.floats(0.2, 2.2),
    strain=st.sampled_from([0.0, 0.5, 0.9, 1.2]),
    mirror=st.booleans(),
    **cases,
)
def test_a_match_is_what_brute_force_calls_one(
    policy: DuplicatePolicy,
    seed: int,
    lattice: str,
    periodic: int,
    elements: Any,
    n_atoms: int,
    displacement: float,
    strain: float,
    mirror: bool,
) -> None:
    rng = np.random.default_rng(seed)
    policy = policy.model_copy(update={"mirror": mirror})
    atoms = random_structure(rng, lattice, periodic, n_atoms, elements)
    near = jiggled(atoms, rng, displacement * policy.rms_displacement)
    if periodic == 3:
        near = strained(near, rng, math.expm1(strain * policy.max_strain))
    one = Structure.from_atoms(atoms)
    other = Structure.from_atoms(disguise(near, rng, Disguise(supercell=1)))
    check(one, other, policy)


@RELATIONS
@settings(max_examples=30, deadline=None)
@example(displacement=1.5, copies=2, elements=2, seed=146, lattice="cubic")
@given(
    displacement=st.floats(0.2, 2.0),
    copies=st.sampled_from([2, 3]),
    elements=st.sampled_from([1, 2]),
    **{name: cases[name] for name in ("seed", "lattice")},
)
def test_a_disturbed_supercell_is_what_brute_force_calls_one(
    policy: DuplicatePolicy, seed: int, lattice: str, displacement: float, copies: int, elements: int
) -> None:
    rng = np.random.default_rng(seed)
    atoms = random_structure(rng, lattice, 3, 2, ("Cu", "Au")[:elements])
    matrix = np.eye(3, dtype=int)
    axis = rng.integers(3)
    matrix[axis, axis] = copies
    large = repeated(atoms, matrix)
    other = Structure.from_atoms(
        disguise(jiggled(large, rng, displacement * policy.rms_displacement), rng, Disguise(supercell=1))
    )
    # a supercell along another axis may have the same lattice, and fit better
    references = [Structure.from_atoms(repeated(atoms, matrix)) for matrix in sublattices(copies)]
    check(Structure.from_atoms(atoms), other, policy, references)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), lattice=st.sampled_from(sorted(LATTICES)), n_atoms=st.integers(2, 4))
def test_unrelated_arrangements_in_one_cell_match_only_where_brute_force_matches_them(
    seed: int, lattice: str, n_atoms: int
) -> None:
    rng = np.random.default_rng(seed)
    policy = DuplicatePolicy.same_phase().model_copy(update={"max_displacement": 0.3, "rms_displacement": 0.3})
    one = random_structure(rng, lattice, 3, n_atoms, ("Cu",))
    other = one.copy()
    while True:
        other.set_scaled_positions(rng.random((n_atoms, 3)))
        if other.get_all_distances(mic=True)[~np.eye(n_atoms, dtype=bool)].min() > 1.4:
            break
    check(Structure.from_atoms(one), Structure.from_atoms(disguise(other, rng, Disguise(supercell=1))), policy)


def sublattices(index: int) -> list[NDArray[np.int64]]:
    """Every sublattice of an index once: upper triangular matrices in Hermite normal form."""
    return [
        np.array([[a, b, c], [0, d, e], [0, 0, f]])
        for a, d, f in itertools.product(range(1, index + 1), repeat=3)
        if a * d * f == index
        for b in range(d)
        for c, e in itertools.product(range(f), repeat=2)
    ]


def check(
    one: Structure, other: Structure, policy: DuplicatePolicy, references: Sequence[Structure] | None = None
) -> None:
    """Both directions agree with brute force, except right at the tolerance.

    What a reduction to a smaller cell averaged away is charged on top: there, only what is clearly within the tolerance
    has to be matched. What is beyond it must never be.
    """
    least = min(excess(reference, other, policy) for reference in references or [one])
    for found in (find_isometry(one, other, policy), find_isometry(other, one, policy)):
        if least > 1.0 + 1e-4:
            assert found is None, f"matched, but brute force finds {least} of the tolerance at best"
        if least < (1.0 - 1e-4 if one.n_atoms == other.n_atoms else 0.75):
            assert found is not None, f"not matched, but brute force finds {least} of the tolerance"


def test_brute_force_sees_symmetric_copies_and_measures_what_was_moved() -> None:
    # with these tolerances the root mean square decides
    policy = DuplicatePolicy.same_phase().model_copy(update={"max_displacement": 0.3, "rms_displacement": 0.03})
    rng = np.random.default_rng(0)
    for periodic in PERIODICITIES:
        atoms = random_structure(rng, "cubic", periodic, 4, ("Cu", "Au"))
        other = disguise(atoms, rng, Disguise(supercell=1))
        assert excess(Structure.from_atoms(atoms), Structure.from_atoms(other), policy) < 1e-6
        moved = atoms.copy()
        moved.positions[0] += [0.0, 0.04, 0.0]
        # the best translation leaves three quarters of the way; molecules and wires may turn as well
        least = excess(Structure.from_atoms(atoms), Structure.from_atoms(moved), policy)
        expected = math.sqrt(0.75 * 0.04**2 / 4) / 0.03
        assert least == pytest.approx(expected) if periodic > 1 else 0.0 < least <= expected * (1.0 + 1e-9)
