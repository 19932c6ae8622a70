"""Far outside the data: energies stay within bounds, repulsion wins, and dynamics falls into no hole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from hypothesis import given, settings
from hypothesis import strategies as st

from alflow.potentials import CommitteeSpec, NativeCommittee, TrainingSpec, train_committee
from alflow.potentials._engine import KernelEngine, PlainEngine, kernel_state
from alflow.potentials._geometry import EdgeList
from alflow.potentials._limits import EnergyLimits
from alflow.structures import Structure, neighbour_list
from tests.potentials.conftest import cells, label

LIMITS = EnergyLimits.of(0.7)


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e12, 1e12, allow_nan=False))
def test_the_slope_is_the_derivative_and_positive(energy: float) -> None:
    x = torch.tensor([energy], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(LIMITS.value(x).sum(), x)
    assert torch.allclose(slope, LIMITS.slope(x), rtol=1e-12)
    assert slope > 0


def test_nothing_changes_where_labels_are() -> None:
    x = torch.linspace(-LIMITS.low, LIMITS.high, 101, dtype=torch.float64)
    assert torch.equal(LIMITS.value(x), x)
    assert (LIMITS.slope(x) == 1).all()


@pytest.mark.parametrize("where", [-LIMITS.low, LIMITS.high])
def test_the_curvature_is_continuous(where: float) -> None:
    x = (where + 1e-5 * torch.tensor([-1.0, 1.0], dtype=torch.float64)).requires_grad_()
    (slope,) = torch.autograd.grad(LIMITS.value(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert curvature.abs().max() < 1e-4


def test_single_precision_keeps_its_head() -> None:
    x = torch.tensor([-1e30, -1e9, 1e9, 1e30])
    exact = LIMITS.value(x.double())
    torch.testing.assert_close(LIMITS.value(x).double(), exact, rtol=1e-5, atol=0)
    assert exact[0] > -20 * LIMITS.low
    assert torch.isfinite(LIMITS.slope(x)).all()


@pytest.fixture(scope="module")
def potential() -> NativeCommittee:
    """A committee of some use, as a first round has it."""
    spec = CommitteeSpec(channels=8, l_max=2, n_members=2)
    return train_committee([label(a) for a in cells(30)], spec, TrainingSpec(steps=150))


def random_boxes(n: int, seed: int) -> list[Atoms]:
    """Atoms anywhere in cubes of 4 to 20 Å³ per atom, where Ni has 11 and Pt 15."""
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(n):
        n_atoms = int(rng.integers(2, 10))
        side = (n_atoms * rng.uniform(4, 20)) ** (1 / 3)
        symbols = list(rng.choice(["Ni", "Pt"], n_atoms))
        boxes.append(Atoms(symbols, cell=[side] * 3, pbc=True, scaled_positions=rng.random((n_atoms, 3))))
    return boxes


def closest(atoms: Atoms) -> float:
    """Shortest distance over the sum of the covalent radii."""
    near = neighbour_list(Structure.from_atoms(atoms), 3.5)
    radii = covalent_radii[atoms.numbers]
    return float((near.distances / (radii[near.centres] + radii[near.neighbours])).min(initial=2.0))


def test_random_structures_hold_no_holes(potential: NativeCommittee) -> None:
    boxes = random_boxes(60, 0)
    p = potential.predict(boxes)
    per_atom = p.energy / p.n_atoms
    known = [label(a).info["REF_energy"] / len(a) for a in cells(30)]
    assert per_atom.min() > min(known) - 3.0  # without limits: -10⁵
    crowded = np.array([closest(a) < 0.5 for a in boxes])
    assert crowded.sum() > 20
    assert p.energy_mean[crowded].min() > 1.0
    assert (p.u[crowded] > 1).all()
    assert all(np.isfinite(f).all() for f in p.forces)


def test_both_engines_agree_far_outside(potential: NativeCommittee) -> None:
    core = potential.double().core
    if not kernel_state(core.spec)[0]:
        pytest.skip("there are no compiled kernels here")
    batch = EdgeList.join([EdgeList.of(Structure.from_atoms(a), core.numbers, 5.0) for a in random_boxes(10, 3)])
    found = []
    for kind in (PlainEngine, KernelEngine):
        engine = kind(core.network, core.numbers, torch.float64)
        leaf = core.weights.clone().requires_grad_()
        out = engine.evaluate(leaf, engine.batch(batch), training=True)
        assert out.forces is not None
        (gradient,) = torch.autograd.grad(torch.tanh(out.energy).sum() + torch.tanh(out.forces).sum(), leaf)
        found.append((out.energy.detach(), out.forces.detach(), gradient))
    for one, other in zip(*found, strict=True):
        assert float((one - other).abs().max()) < 1e-8 * float(one.abs().max())


@pytest.mark.parametrize("pair", ["NiNi", "NiPt", "PtPt"])
def test_dimers_repel_below_three_quarters_of_a_bond(potential: NativeCommittee, pair: str) -> None:
    bond = covalent_radii[Atoms(pair).numbers].sum()
    fractions = np.linspace(0.1, 0.75, 66)
    energy = potential.predict([Atoms(pair, positions=[[0, 0, 0], [0, 0, x * bond]]) for x in fractions]).energy
    assert (np.diff(energy, axis=1) < 0).all()
    assert (energy[:, 0] > 1000).all()


def test_dynamics_at_3000_kelvin_keeps_atoms_apart(potential: NativeCommittee) -> None:
    atoms = bulk("Ni", cubic=True, a=3.7) * (2, 2, 1)
    rng = np.random.default_rng(1)
    atoms.symbols[rng.random(len(atoms)) < 0.5] = "Pt"
    atoms.calc = potential.calculator()
    thermalize_momenta(atoms, temperature_K=3000, rng=rng)
    dynamics = Langevin(atoms, 2 * units.fs, temperature_K=3000, friction=0.02 / units.fs, rng=rng, fixcm=False)
    seen: list[tuple[float, float]] = []
    dynamics.attach(lambda: seen.append((closest(atoms), atoms.get_potential_energy() / len(atoms))), interval=10)
    dynamics.run(200)
    distances, energies = np.array(seen).T
    assert distances.min() > 0.5
    assert np.isfinite(energies).all()
    assert energies.min() > -0.5


@pytest.mark.parametrize("double", [False, True])
def test_dynamics_conserves_energy(potential: NativeCommittee, double: bool) -> None:
    atoms = bulk("Pt", cubic=True) * (2, 1, 1)
    atoms.calc = (potential.double() if double else potential).calculator()
    thermalize_momenta(atoms, temperature_K=1500, rng=np.random.default_rng(2))
    before = atoms.get_total_energy()
    energies: list[float] = []
    dynamics = VelocityVerlet(atoms, 1 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=1)
    dynamics.run(150)
    assert np.abs(np.array(energies) - before).max() / len(atoms) < 1e-3
    assert abs(np.mean(energies[-50:]) - np.mean(energies[:50])) / len(atoms) < 2e-4
