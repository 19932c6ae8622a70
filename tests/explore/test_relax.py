from __future__ import annotations

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from alflow.explore import RelaxSettings, RelaxStop, relax_batch
from alflow.structures import Structure
from tests.explore.committees import CalculatorCommittee


def disordered(seed: int, n: int = 1) -> list[Structure]:
    """Small strained and rattled Ni-Pt cells."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        atoms = bulk("Ni", cubic=True, a=3.7)
        atoms.symbols[int(rng.integers(4))] = "Pt"
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        made.append(Structure.from_atoms(atoms))
    return made


def test_the_result_is_that_of_ase(emt: CalculatorCommittee) -> None:
    starts = disordered(0, 4)
    results = relax_batch(emt, starts)
    for start, result in zip(starts, results, strict=True):
        assert result.converged
        assert result.residual < 0.01
        assert result.stress_residual < 1e-3
        atoms = start.to_atoms()
        atoms.calc = EMT()
        BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.003, steps=300)
        assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-3)
        assert result.structure.volume == pytest.approx(atoms.get_volume(), rel=1e-3)


def test_one_call_per_step_for_those_that_are_left(emt: CalculatorCommittee) -> None:
    calls: list[tuple[str, int, int | None]] = []
    results = relax_batch(emt, disordered(1, 5), progress=lambda *report: calls.append(report))
    assert emt.calls == max(r.steps for r in results) == len(calls)
    assert emt.evaluated == sum(r.steps for r in results)
    assert calls[-1] == ("relaxing", 5, 5)


def test_a_structure_relaxes_the_same_in_any_company(emt: CalculatorCommittee) -> None:
    starts = [*disordered(2, 2), Structure.from_atoms(bulk("Cu"))]
    together = relax_batch(emt, starts)
    alone = relax_batch(emt, starts[1:2])
    assert alone[0].steps == together[1].steps
    assert alone[0].structure == together[1].structure


def test_the_cell_is_stretched_and_never_turned(emt: CalculatorCommittee) -> None:
    (start,) = disordered(3)
    (result,) = relax_batch(emt, [start])
    stretch = np.linalg.inv(start.cell) @ result.structure.cell
    assert np.allclose(stretch, stretch.T, atol=1e-10)
    assert np.linalg.norm(stretch - np.eye(3)) > 0.01


def test_symmetry_is_kept(emt: CalculatorCommittee) -> None:
    start = Structure.from_atoms(bulk("NiPt", "rocksalt", a=4.4))
    (result,) = relax_batch(emt, [start])
    atoms = result.structure
    fractional = atoms.positions @ np.linalg.inv(atoms.cell)
    dataset = spglib.get_symmetry_dataset((atoms.cell.tolist(), fractional.tolist(), atoms.numbers.tolist()))
    assert dataset is not None
    assert dataset.number == 225


def test_the_result_turns_with_the_start(emt: CalculatorCommittee) -> None:
    (start,) = disordered(4)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = start.with_geometry(cell=start.cell @ rotation, positions=start.positions @ rotation)
    here, there = relax_batch(emt, [start, turned])
    assert np.allclose(here.structure.positions @ rotation, there.structure.positions, atol=1e-5)
    assert here.steps == there.steps


def test_it_stops_where_the_committee_does_not_know() -> None:
    committee = CalculatorCommittee(EMT(), spread=0.05)  # sure only where energies and forces are small
    start = disordered(5)[0]
    (result,) = relax_batch(committee, [start], RelaxSettings(u_limit=0.5))
    assert result.stop is RelaxStop.UNCERTAIN
    assert not result.converged
    assert result.u > 0.5
    assert result.u == pytest.approx(committee.predict([result.structure]).u[0])


def test_a_budget_of_steps_is_kept_and_the_last_geometry_given(emt: CalculatorCommittee) -> None:
    (start,) = disordered(6)
    (result,) = relax_batch(emt, [start], RelaxSettings(max_steps=3))
    assert result.stop is RelaxStop.MAX_STEPS
    assert result.steps == 3
    (prediction,) = emt.predict([result.structure]).energy_mean
    assert result.energy == pytest.approx(prediction)


def test_a_cell_that_runs_away_is_given_up(emt: CalculatorCommittee) -> None:
    far = Structure.from_atoms(bulk("Cu", a=4.6))
    (result,) = relax_batch(emt, [far], RelaxSettings(max_volume_change=0.1))
    assert result.stop is RelaxStop.VOLUME
    assert result.structure.volume < far.volume / 1.1


def test_steps_are_limited(emt: CalculatorCommittee) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.positions[0] += 0.5
    start = Structure.from_atoms(atoms)
    (result,) = relax_batch(emt, [start], RelaxSettings(max_steps=2, max_step=0.02))
    moved = result.structure.positions - start.positions
    assert np.linalg.norm(moved, axis=1).max() < 0.06


def test_molecules_and_slabs_keep_their_cell(emt: CalculatorCommittee) -> None:
    molecule = Structure.from_atoms(Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.6]]))
    slab = Structure.from_atoms(fcc111("Cu", (1, 1, 3), vacuum=6.0))
    for start, result in zip((molecule, slab), relax_batch(emt, [molecule, slab]), strict=True):
        assert result.converged
        assert np.array_equal(result.structure.cell, start.cell)
        assert result.residual < 0.01


def test_the_cell_can_be_held(emt: CalculatorCommittee) -> None:
    (start,) = disordered(7)
    (result,) = relax_batch(emt, [start], RelaxSettings(relax_cell=False))
    assert result.converged
    assert np.array_equal(result.structure.cell, start.cell)
    assert result.stress_residual == 0.0


class Broken(EMT):  # type: ignore[misc]
    """Answers with nan."""

    def calculate(self, *arguments: object, **named: object) -> None:
        super().calculate(*arguments, **named)
        self.results["energy"] = float("nan")


def test_what_is_not_a_number_ends_the_relaxation() -> None:
    (start,) = disordered(8)
    (result,) = relax_batch(CalculatorCommittee(Broken()), [start])
    assert result.stop is RelaxStop.STALLED
    assert result.steps == 1
    assert np.isnan(result.energy)


def test_nothing_to_relax_is_no_work(emt: CalculatorCommittee) -> None:
    assert relax_batch(emt, []) == []
    assert emt.calls == 0
