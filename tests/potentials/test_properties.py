"""What must hold for any crystal, slab, wire and molecule, in plain torch and through kernels (BARS section 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from alflow.potentials import CommitteeSpec, NativeCommittee, Prediction, TrainingSpec, train_committee
from alflow.potentials._engine import PlainEngine, kernel_state
from tests.potentials.conftest import SMALL, cells

EXACT, DIFFERENCE, SINGLE = 1e-10, 1e-6, 1e-4
KINDS = {
    "crystal": (True, True, True),
    "slab": (True, True, False),
    "wire": (False, True, False),
    "molecule": (False,) * 3,
}
FEW = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SEEDS = st.integers(0, 10**6)
KIND = st.sampled_from(sorted(KINDS))


@pytest.fixture(scope="module", params=["kernels", "plain"])
def potential(request: pytest.FixtureRequest, committee: NativeCommittee) -> NativeCommittee:
    """A small committee in float64, evaluated in each of the two ways."""
    if request.param == "kernels":
        if not kernel_state(SMALL)[0]:
            pytest.skip("there are no compiled kernels here")
        return committee
    core = replace(committee.core)
    core.__dict__["engine"] = PlainEngine(core.network, core.numbers, torch.float64)
    return replace(committee, core=core)


def random_structure(kind: str, seed: int, *, spread: float = 1.9) -> Atoms:
    """One to six atoms of Ni and Pt, none nearer than `spread` Å, in a skew cell smaller than the cutoff."""
    rng = np.random.default_rng(seed)
    n_atoms = int(rng.integers(1 if kind in {"crystal", "slab"} else 2, 7))
    pbc = np.array(KINDS[kind])
    while True:
        lengths = (n_atoms * 14.0) ** (1 / 3) * (0.8 + 0.5 * rng.random(3))
        cell = Rotation.random(random_state=rng).as_matrix() * lengths[:, None] + rng.normal(size=(3, 3)) * 0.3
        atoms = Atoms(list(rng.choice(["Ni", "Pt"], n_atoms)), scaled_positions=rng.random((n_atoms, 3)), cell=cell)
        cell[~pbc] = 0.0  # directions that are not periodic are empty
        atoms.set_cell(cell)
        atoms.pbc = pbc
        if nearest(atoms) > spread:
            return atoms


def nearest(atoms: Atoms) -> float:
    """Shortest distance to an atom or image."""
    shifts = np.array(list(np.ndindex(5, 5, 5))) - 2
    images = (shifts[:, None] * np.where(atoms.pbc, 1, 0)) @ atoms.cell.array
    apart = atoms.positions[:, None, None] - atoms.positions[None, :, None] + images[:, 0]
    distances = np.linalg.norm(apart, axis=-1)
    return float(distances[distances > 1e-9].min(initial=9.0))


def within(found: NDArray[np.float64], expected: NDArray[np.float64], tolerance: float) -> None:
    bound = tolerance * max(1.0, float(np.nanmax(np.abs(expected), initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def invariants(p: Prediction) -> NDArray[np.float64]:
    """All numbers per structure that say how well it is known."""
    return np.stack([p.energy_spread, p.force_spread, p.stress_spread, p.energy_error, p.force_error, p.u])


def stress_of(p: Prediction) -> NDArray[np.float64]:
    assert p.stress is not None
    return p.stress


@FEW
@given(kind=KIND, seed=SEEDS, sign=st.sampled_from([1.0, -1.0]))
def test_rotation_reflection_translation_permutation(
    potential: NativeCommittee, kind: str, seed: int, sign: float
) -> None:
    rng = np.random.default_rng(seed)
    atoms = random_structure(kind, seed)
    rotation = sign * Rotation.random(random_state=rng).as_matrix()
    order = rng.permutation(len(atoms))
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T)
    turned.positions = atoms.positions @ rotation.T + rng.normal(size=3) * 10
    turned = turned[order]
    p = potential.predict([atoms, turned], features=True)
    within(p.energy[:, 1], p.energy[:, 0], EXACT)
    within(p.forces[1], (p.forces[0] @ rotation.T)[:, order], EXACT)
    within(stress_of(p)[:, 1], rotation @ stress_of(p)[:, 0] @ rotation.T, EXACT)
    within(invariants(p)[:, 1], invariants(p)[:, 0], EXACT)
    assert p.features is not None
    within(p.features[1], p.features[0], EXACT)


@FEW
@given(kind=st.sampled_from(["crystal", "slab", "wire"]), seed=SEEDS)
def test_supercell_and_other_cells(potential: NativeCommittee, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    atoms = random_structure(kind, seed)
    pbc = np.array(KINDS[kind])
    repeats = np.where(pbc, rng.integers(1, 3, size=3), 1)
    repeats[np.flatnonzero(pbc)[0]] = 2
    large = atoms.repeat(repeats)
    other = atoms.copy()
    change = np.eye(3)
    for a, b in np.ndindex(3, 3):  # shears of one vector by another keep the lattice
        if a != b and pbc[a] and pbc[b]:
            change[a] += rng.integers(-1, 2) * change[b]
    other.set_cell(change @ atoms.cell.array)
    other.positions += (rng.integers(-3, 4, size=(len(atoms), 3)) * pbc) @ atoms.cell.array  # other images
    p = potential.predict([atoms, large, other])
    n = int(repeats.prod())
    within(p.energy[:, 1] / n, p.energy[:, 0], EXACT)
    within(p.energy[:, 2], p.energy[:, 0], EXACT)
    within(p.forces[1], np.tile(p.forces[0], (1, n, 1)), EXACT)
    within(p.forces[2], p.forces[0], EXACT)
    for k in (1, 2):
        within(stress_of(p)[:, k], stress_of(p)[:, 0], EXACT)
        within(invariants(p)[:, k], invariants(p)[:, 0], EXACT)


@FEW
@given(kind=KIND, seed=SEEDS)
def test_forces_and_stress_are_derivatives(potential: NativeCommittee, kind: str, seed: int) -> None:
    atoms, step = random_structure(kind, seed), 3e-4
    ends: list[Atoms] = []
    for i, axis in np.ndindex(len(atoms), 3):
        for factor in (-2, -1, 1, 2):
            end = atoms.copy()
            end.positions[i, axis] += factor * step
            ends.append(end)
    if atoms.pbc.all():
        for a, b in np.ndindex(3, 3):
            for factor in (-2, -1, 1, 2):
                strain = np.eye(3)
                strain[a, b] += factor * step
                end = atoms.copy()
                end.set_cell(atoms.cell.array @ strain, scale_atoms=True)
                ends.append(end)
    energy = potential.predict(ends, stress=False).energy.reshape(potential.n_members, -1, 4)
    slope = energy @ np.array([1, -8, 8, -1]) / (12 * step)
    p, n = potential.predict([atoms]), 3 * len(atoms)
    within(-slope[:, :n].reshape(p.forces[0].shape), p.forces[0], DIFFERENCE)
    if atoms.pbc.all():
        within(slope[:, n:].reshape(-1, 3, 3) / atoms.get_volume(), stress_of(p)[:, 0], DIFFERENCE)
        within(stress_of(p)[:, 0], np.swapaxes(stress_of(p)[:, 0], 1, 2), EXACT)
    else:
        assert np.isnan(stress_of(p)).all()


def test_single_precision(labelled: list[Atoms]) -> None:
    single = train_committee(labelled, CommitteeSpec(channels=8), TrainingSpec(steps=30))
    given_ = [random_structure(kind, seed, spread=2.2) for kind in KINDS for seed in range(4)] + cells(4, 8)
    coarse, fine = single.predict(given_), single.predict(given_, dtype="float64")
    for one, other in zip(coarse.forces, fine.forces, strict=True):
        within(one, other, SINGLE)


# -- smoothness ----------------------------------------------------------------------------------------------------


def chain(distance: float) -> Atoms:
    """Two pairs of atoms at a distance, none of them in a line."""
    return Atoms("NiPtNiNi", positions=[[0, 0, 0], [-1.2, 1.9, 0.3], [0, 0, distance], [0.5, 1.8, distance + 1.5]])


def relay(distance: float) -> Atoms:
    """The same, and an atom half way, which tells each end of the other."""
    half = Atoms("Pt", positions=[[0, 0, distance / 2]])
    return chain(distance) + half


def approach(distance: float) -> Atoms:
    """A pair in company."""
    return Atoms("NiPtNi", positions=[[0, 0, 0], [0, 0, distance], [2.2, 0.4, 0.8]])


def jump_of_curvature(
    potential: NativeCommittee, path: Sequence[Atoms], moving: NDArray[np.float64], h: float
) -> float:
    """Curvature of the energy just after the middle of five points h apart, less that just before, largest member."""
    slopes = [-(f * moving).sum(axis=(1, 2)) for f in potential.predict(path).forces]
    after, before = (slopes[3] - slopes[2]) / h, (slopes[2] - slopes[1]) / h
    return float(np.abs(after - before).max())


def jumps(potential: NativeCommittee, make: object, at: float) -> tuple[float, float]:
    """The jump with a long and a four times shorter step: with three derivatives it falls to a quarter."""
    assert callable(make)
    found = []
    for h in (2e-3, 5e-4):
        path = [make(at + k * h) for k in (-2, -1, 0, 1, 2)]
        moving = (path[3].positions - path[2].positions) / h
        found.append(jump_of_curvature(potential, path, moving, h))
    return found[0], found[1]


BOND = 1.24 + 1.36  # of Ni and Pt
PATHS = {
    "cutoff": (chain, SMALL.r_max),
    "two cutoffs": (relay, 2 * SMALL.r_max),
    "end of the repulsion": (approach, 0.75 * BOND),
    "saturation": (approach, 0.7 * BOND),
}


@pytest.mark.parametrize("name", PATHS)
def test_second_derivatives_are_continuous(potential: NativeCommittee, name: str) -> None:
    make, at = PATHS[name]
    long, short = jumps(potential, make, at)
    assert short < max(0.4 * long, 1e-7)
    near = [make(at + x) for x in (-1e-6, 1e-6)]
    p = potential.predict(near)
    assert np.abs(np.diff(p.energy, axis=1)).max() < 1e-4
    within(p.forces[1], p.forces[0], 1e-3)


def test_the_check_sees_a_kink(committee: NativeCommittee, monkeypatch: pytest.MonkeyPatch) -> None:
    def less_smooth(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # the Bessel functions vanish at the cutoff too, so that this still has continuous forces
        return (1 - x).clamp(min=0.0), -(x < 1).to(x.dtype)

    monkeypatch.setattr("alflow.potentials._radial.cutoff", less_smooth)
    monkeypatch.setenv("ALFLOW_KERNELS", "off")  # kernels have a cutoff of their own
    plain = replace(committee, core=replace(committee.core))
    for name in ("cutoff", "two cutoffs"):
        long, short = jumps(plain, *PATHS[name])
        assert short > max(0.8 * long, 1e-6), name


@pytest.mark.parametrize("distance", [4.9999, 5.0, 5.0001])
def test_nothing_is_felt_at_the_cutoff(potential: NativeCommittee, distance: float) -> None:
    far = potential.predict([chain(distance), chain(30.0)])
    within(far.energy[:, 0], far.energy[:, 1], 1e-9)
    within(far.forces[0], far.forces[1], 1e-7)


# -- edges ---------------------------------------------------------------------------------------------------------


def test_vacuum_changes_nothing(potential: NativeCommittee) -> None:
    slab = random_structure("slab", 5)
    normal = np.cross(slab.cell[0], slab.cell[1])
    normal /= np.linalg.norm(normal)
    thickness = float(np.ptp(slab.positions @ normal))
    given_ = [slab]
    for vacuum in (SMALL.r_max + 0.01, 12.0, 60.0):
        boxed = slab.copy()
        boxed.set_cell([*slab.cell.array[:2], (thickness + vacuum) * normal])
        boxed.pbc = True
        given_.append(boxed)
    p = potential.predict(given_)
    within(p.energy, np.repeat(p.energy[:, :1], 4, axis=1), EXACT)
    for forces in p.forces[1:]:
        within(forces, p.forces[0], EXACT)
    virials = [stress_of(p)[:, k] * given_[k].get_volume() for k in (1, 2, 3)]
    within(virials[1], virials[0], EXACT)
    within(virials[2], virials[0], EXACT)


def test_atoms_apart_are_alone(potential: NativeCommittee) -> None:
    assert potential.report is not None
    reference = potential.report.reference_energies
    lone = [
        Atoms("Ni"),
        Atoms("Pt", cell=[11, 11, 11], pbc=True),
        Atoms("Ni", cell=[0, 11, 0], pbc=[False, True, False]),
    ]
    dimer = Atoms("NiPt", positions=[[0, 0, 0], [3.0, 3.0, 3.0]])
    p = potential.predict([*lone, dimer])
    expected = [reference["Ni"], reference["Pt"], reference["Ni"], reference["Ni"] + reference["Pt"]]
    within(p.energy, np.tile(expected, (potential.n_members, 1)), EXACT)
    for forces in p.forces:
        np.testing.assert_array_equal(forces, 0.0)
    np.testing.assert_array_equal(stress_of(p)[:, 1], 0.0)


def test_long_and_flat_cells(potential: NativeCommittee) -> None:
    lattice = np.array([[2.6, 0.1, 0.0], [0.3, 2.5, 0.2], [0.0, 0.2, 2.7]])
    primitive = Atoms("Ni", cell=lattice, pbc=True)
    given_ = [primitive, primitive * (1, 1, 40), primitive * (9, 1, 9)]
    skewed = primitive.copy()
    skewed.set_cell(np.array([[1, 0, 0], [7, 1, 0], [-5, 6, 1]]) @ lattice)  # thin: all planes nearer than the cutoff
    p = potential.predict([*given_, skewed])
    within(p.energy / p.n_atoms, np.repeat(p.energy[:, :1], 4, axis=1), EXACT)
    for k in range(4):
        within(p.forces[k], np.zeros_like(p.forces[k]), EXACT)
        within(stress_of(p)[:, k], stress_of(p)[:, 0], EXACT)
