"""The compiled loops against the plain Python that defines them, and the search without a compiler."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell

from alflow import native
from alflow.errors import UserError
from alflow.structures import DuplicatePolicy, Structure, find_duplicates, find_isometry, fingerprint
from alflow.structures import _fingerprint as prints
from alflow.structures import _lattice as lattices
from alflow.structures import kernels as loops
from alflow.structures._alignment import compatible_sites
from alflow.structures._motif import motif
from tests.crystals import zoo
from tests.disguises import disguise

needs_compiler = pytest.mark.skipif(native.find_compiler() is None, reason="no C++ compiler here: plain Python works")
POLICIES = (DuplicatePolicy.identical(), DuplicatePolicy.redundant(), DuplicatePolicy.same_phase())


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Within a test, ``plain.setenv("ALFLOW_KERNELS", "off")`` and a cleared cache turn the compiled loops off."""
    yield monkeypatch
    loops.compiled.cache_clear()


def switch_off(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ALFLOW_KERNELS", "off")
    loops.compiled.cache_clear()
    assert loops.compiled() is None


def random_structures(seed: int, n: int) -> list[Structure]:
    """Crystals, slabs, wires and molecules in skewed cells, with and without moments."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        size = int(rng.integers(1, 12))
        pbc = np.arange(3) < i % 4
        cell = rng.normal(size=(3, 3)) + 2.5 * np.eye(3)
        cell = np.triu(rng.integers(-2, 3, (3, 3)), 1) @ cell * (i % 3 == 0) + cell * size ** (1 / 3)
        moments = rng.normal(size=(size, 3) if i % 5 == 0 else size) if i % 2 else None
        made.append(
            Structure(
                cell=cell[rng.permutation(3)],
                pbc=pbc,
                numbers=rng.choice([8, 22, 28, 38], size),
                positions=rng.normal(size=(size, 3)) * 4.0,
                moments=moments,
            )
        )
    return made


@needs_compiler
def test_lattices_fingerprints_and_rows_agree() -> None:
    assert loops.compiled() is not None
    for structure in random_structures(0, 80):
        cell = structure.cell[structure.pbc]
        lattice, transform = lattices.reduced_lattice(cell)
        again, _ = lattices._reduced(cell)
        np.testing.assert_allclose(transform @ cell, lattice, atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(lattice, axis=1), np.linalg.norm(again, axis=1), rtol=1e-9)
        ours, theirs = fingerprint(structure), prints._fingerprint(structure)
        assert ours.bucket == theirs.bucket
        np.testing.assert_allclose(ours.leading, theirs.leading, atol=1e-12)
        np.testing.assert_allclose(ours.vector, theirs.vector, atol=2e-6)
        np.testing.assert_allclose(prints.site_rows(structure), prints._site_rows(structure, again), atol=1e-12)


@needs_compiler
def test_a_flat_and_a_needle_like_cell_find_their_far_neighbours() -> None:
    for cell in (np.diag([1.0, 1.0, 60.0]), np.diag([1.5, 40.0, 40.0])):
        structure = Structure.from_atoms(Atoms("SiO", [[0, 0, 0], [0.4, 0.3, 0.2]], cell=cell, pbc=True))
        expected = prints._site_rows(structure, lattices._reduced(cell)[0])
        np.testing.assert_allclose(prints.site_rows(structure), expected, atol=1e-12)


@needs_compiler
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("strain", [1e-5, 0.01, 0.05])
def test_maps_between_lattices_agree(d: int, strain: float, plain: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(d)
    pairs = []
    for _ in range(12):
        target = np.array([[1.0, 0.0, 0.0], [0.5, 0.75**0.5, 0.0], [0.1 * rng.integers(2), 0.0, 1.3]])[:d]
        copies = int(rng.integers(1, 4))
        source = np.diag([copies, *[1] * (d - 1)]) @ target
        source = source @ np.linalg.qr(rng.normal(size=(3, 3)))[0] @ (np.eye(3) + strain * rng.normal(size=(3, 3)) / 3)
        pairs.append((lattices.reduced_lattice(source)[0], lattices.reduced_lattice(target)[0], copies))
    ours = [lattices.lattice_maps(*pair, strain) for pair in pairs]
    switch_off(plain)
    for pair, maps in zip(pairs, ours, strict=True):
        theirs = lattices.lattice_maps(*pair, strain)
        assert maps.shape == theirs.shape
        order = [sorted(np.round(m.reshape(len(m), -1), 6).tolist()) for m in (maps, theirs)]
        assert order[0] == order[1]
    assert any(len(maps) for maps in ours)


@needs_compiler
@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.relation.value)
def test_isometries_and_groups_agree(policy: DuplicatePolicy, plain: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    one = [Structure.from_atoms(atoms) for atoms in zoo().values()]
    two = [Structure.from_atoms(disguise(atoms, rng)) for atoms in zoo().values()]
    pairs = [*zip(one, two, strict=True), *pairwise(one)]

    def everything() -> tuple[Any, ...]:
        found = [find_isometry(a, b, policy) for a, b in pairs]
        told = [None if f is None else (f.det, round(f.max_displacement, 7), round(f.max_strain, 9)) for f in found]
        sites = []
        for a, b in zip(one, two, strict=True):
            mask, complete = compatible_sites(motif(a, policy), motif(b, policy), policy, 1.0)
            sites.append((mask.tolist(), complete))
        return told, find_duplicates([*one, *two], policy).tolist(), sites

    ours = everything()
    switch_off(plain)
    assert ours == everything()


@needs_compiler
def test_crowded_and_swapped_sites_agree(plain: pytest.MonkeyPatch) -> None:
    """Rattled supercells of one crystal, in which many sites look alike, and copies with two species exchanged."""
    rng = np.random.default_rng(5)
    structures = []
    for _ in range(6):
        atoms = make_supercell(bulk("Cu", "fcc", a=3.6, cubic=True), np.diag([2, 2, 2]))
        atoms.symbols[rng.choice(len(atoms), 2, replace=False)] = "Ni"
        for noise in (0.0, 0.003, 0.05):
            copy: Atoms = atoms.copy()
            copy.positions += noise * rng.normal(size=copy.positions.shape)
            structures.append(Structure.from_atoms(disguise(copy, rng)))
    ours = [find_duplicates(structures, policy).tolist() for policy in POLICIES]
    switch_off(plain)
    assert ours == [find_duplicates(structures, policy).tolist() for policy in POLICIES]


@pytest.mark.usefixtures("plain")
def test_without_a_compiler_plain_python_works_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cell = bulk("Cu", "fcc", a=3.6)
    native.load_library.cache_clear()
    loops.compiled.cache_clear()
    with caplog.at_level(logging.WARNING):
        labels = find_duplicates([cell, make_supercell(cell, np.diag([2, 1, 1]))], POLICIES[0])
    assert labels.tolist() == [0, 0]
    (record,) = caplog.records
    assert "plain Python, several times slower: no C++ compiler was found" in record.message


@needs_compiler
@pytest.mark.usefixtures("plain")
def test_loops_that_do_not_know_the_cube_are_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(*_: object) -> None:
        return None

    monkeypatch.setattr(loops.Kernels, "lattice_maps", wrong)
    loops.compiled.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert loops.compiled() is None
    assert "wrong results for a cubic lattice" in caplog.text


@pytest.mark.usefixtures("plain")
def test_a_switch_without_meaning_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFLOW_KERNELS", "sometimes")
    loops.compiled.cache_clear()
    with pytest.raises(UserError, match="ALFLOW_KERNELS is 'sometimes'; write auto"):
        fingerprint(Structure.from_atoms(bulk("Cu")))
