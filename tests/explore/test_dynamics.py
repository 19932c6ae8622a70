from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.units import kB

from alflow.explore import DynamicsSettings, WalkStop, run_dynamics
from alflow.structures import Structure
from tests.explore.committees import CalculatorCommittee, SpringCommittee

COPPER = Structure.from_atoms(bulk("Cu", cubic=True) * (2, 1, 1))


def test_springs_and_velocities_have_the_temperature_of_the_thermostat() -> None:
    committee = SpringCommittee(2.0)
    temperatures = [300.0, 900.0] * 8
    settings = DynamicsSettings(steps=1500, save_every=5, timestep=4.0, friction=0.05)
    walks = run_dynamics(committee, [COPPER] * 16, temperatures, settings, rng=np.random.default_rng(0))
    for temperature in (300.0, 900.0):
        frames = [f for w in walks if w.temperature == temperature for f in w.frames[60:]]
        kinetic = np.mean([f.kinetic_temperature for f in frames])
        # Equipartition: each of the 3 (n - 1) coordinates relative to the centre of mass holds kT/2.
        potential = np.mean([f.energy for f in frames]) / (kB * 1.5 * (COPPER.n_atoms - 1))
        assert kinetic == pytest.approx(temperature, rel=0.06)
        assert potential == pytest.approx(temperature, rel=0.06)
    assert committee.calls == 1501


def test_the_centre_of_mass_rests() -> None:
    settings = DynamicsSettings(steps=50, save_every=50)
    (walk,) = run_dynamics(SpringCommittee(), [COPPER], [600.0], settings, rng=np.random.default_rng(1))
    (frame,) = walk.frames
    assert frame.step == 50
    assert np.allclose(frame.structure.positions.mean(axis=0), COPPER.positions.mean(axis=0))
    assert np.linalg.norm(frame.structure.positions - COPPER.positions, axis=1).max() > 0.05
    assert np.array_equal(frame.structure.cell, COPPER.cell)


def test_a_walker_ends_where_the_committee_does_not_know() -> None:
    settings = DynamicsSettings(steps=200, save_every=10, u_limit=2.0)
    committee = SpringCommittee(spread=0.2)
    hot, cold = run_dynamics(committee, [COPPER] * 2, [2000.0, 20.0], settings, rng=np.random.default_rng(2))
    assert hot.stop is WalkStop.UNCERTAIN
    assert hot.frames[-1].u > 2.0
    assert all(f.u <= 2.0 for f in hot.frames[:-1])
    assert hot.frames[-1].step < 200
    assert cold.stop is WalkStop.FINISHED
    assert [f.step for f in cold.frames] == list(range(10, 201, 10))


def test_walkers_repeat_and_do_not_notice_each_other() -> None:
    settings = DynamicsSettings(steps=20, save_every=20)

    def positions(temperatures: list[float], seed: int = 3) -> list[Structure]:
        rng = np.random.default_rng(seed)
        walks = run_dynamics(SpringCommittee(), [COPPER] * len(temperatures), temperatures, settings, rng=rng)
        return [w.frames[-1].structure for w in walks]

    assert positions([300.0, 600.0]) == positions([300.0, 600.0])
    assert positions([300.0, 600.0])[0] == positions([300.0, 900.0])[0]
    assert positions([300.0])[0] == positions([300.0, 900.0])[0]
    assert positions([300.0]) != positions([300.0], seed=4)


def test_what_explodes_is_ended() -> None:
    settings = DynamicsSettings(steps=100, save_every=1, timestep=20.0)
    (walk,) = run_dynamics(SpringCommittee(500.0), [COPPER], [5000.0], settings, rng=np.random.default_rng(5))
    assert walk.stop is WalkStop.EXPLODED
    assert len(walk.frames) < 100
    for frame in walk.frames:
        assert np.isfinite(frame.structure.positions).all()


def test_a_real_crystal_stays_one(emt: CalculatorCommittee) -> None:
    settings = DynamicsSettings(steps=60, save_every=20, timestep=4.0)
    reports: list[tuple[str, int, int | None]] = []
    walks = run_dynamics(
        emt, [COPPER], [300.0], settings, rng=np.random.default_rng(6), progress=lambda *r: reports.append(r)
    )
    assert walks[0].stop is WalkStop.FINISHED
    assert reports[-1] == ("dynamics", 60, 60)
    assert emt.calls == 61
    atoms = walks[0].frames[-1].structure.to_atoms()
    atoms.calc = EMT()
    assert walks[0].frames[-1].energy == pytest.approx(atoms.get_potential_energy())


def test_impossible_walkers_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="2 walkers but 1"):
        run_dynamics(SpringCommittee(), [COPPER] * 2, [300.0], rng=rng)
    with pytest.raises(ValueError, match="at least two atoms"):
        run_dynamics(SpringCommittee(), [Structure.from_atoms(bulk("Cu"))], [300.0], rng=rng)
    assert run_dynamics(SpringCommittee(), [], [], rng=rng) == []
