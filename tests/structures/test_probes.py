from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from alflow.structures import DuplicatePolicy, Structure, fingerprint, probe_bounds, probes
from tests.crystals import random_crystal, zoo
from tests.disguises import disguise, jiggled, strained


@pytest.mark.parametrize("name", zoo())
def test_disguises_leave_them_unchanged(name: str) -> None:
    rng = np.random.default_rng(3)
    atoms = zoo()[name]
    one = probes(fingerprint(Structure.from_atoms(atoms)))
    assert one.shape == (4,)
    assert one.dtype == np.float64
    for _ in range(3):
        np.testing.assert_allclose(probes(fingerprint(Structure.from_atoms(disguise(atoms, rng)))), one, atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_atoms=st.integers(1, 12),
    species=st.sampled_from([("Cu",), ("Cu", "Au"), ("Cu", "Au", "O"), ("Cu", "Au", "O", "H", "Ni", "Pt", "Fe", "Co")]),
    size=st.floats(0.0, 0.18),
    strain=st.floats(0.0, 0.0099),
    wanted=st.sampled_from(["crystal", "slab", "molecule"]),
)
def test_they_lie_within_their_bounds_wherever_the_structure_is_within_the_tolerances(
    seed: int, n_atoms: int, species: tuple[str, ...], size: float, strain: float, wanted: str
) -> None:
    rng = np.random.default_rng(seed)
    atoms = random_crystal(rng, n_atoms, species)
    atoms.pbc = {"crystal": (1, 1, 1), "slab": (1, 1, 0), "molecule": (0, 0, 0)}[wanted]
    policy = DuplicatePolicy.redundant(max(size, 1e-9), max(strain, 1e-9))
    near = jiggled(strained(atoms, rng, strain / 1.01) if wanted == "crystal" else atoms, rng, size)
    one, other = (fingerprint(Structure.from_atoms(x)) for x in (atoms, disguise(near, rng)))
    for this, that in ((one, other), (other, one)):
        low, high = probe_bounds(this, policy)
        assert (low <= probes(that)).all()
        assert (probes(that) <= high).all()


def test_the_bounds_are_tight_enough_to_sort_out() -> None:
    policy = DuplicatePolicy.redundant()
    one = fingerprint(Structure.from_atoms(bulk("Cu", a=3.6)))
    low, high = probe_bounds(one, policy)
    assert (high - low < 0.1).all()
    other = probes(fingerprint(Structure.from_atoms(bulk("Cu", "hcp", a=2.55))))
    assert not ((low <= other) & (other <= high)).all()


def test_at_any_volume_nothing_is_sorted_out() -> None:
    low, high = probe_bounds(fingerprint(Structure.from_atoms(bulk("Cu"))), DuplicatePolicy.same_phase(any_volume=True))
    assert np.isneginf(low).all()
    assert np.isposinf(high).all()
