"""The ASE calculator, the conformance check and the adapter for foreign calculators."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.optimize import BFGS

from alflow.errors import PotentialError
from alflow.potentials import (
    CalculatorCommittee,
    Committee,
    CommitteeCalculator,
    CommitteeSpec,
    NativeCommittee,
    Prediction,
    TrainingSpec,
    check_committee,
    train_committee,
)
from alflow.potentials._evaluator import NativeEvaluator
from tests.potentials.conftest import cells, odd_ones


def test_calculator_gives_the_mean_and_the_spreads(committee: NativeCommittee) -> None:
    atoms = cells(4, 6)[3]
    p = committee.predict([atoms])
    atoms.calc = committee.calculator()
    assert atoms.get_potential_energy() == pytest.approx(p.energy_mean[0])
    np.testing.assert_allclose(atoms.get_forces(), p.force_mean[0])
    assert p.stress_mean is not None
    np.testing.assert_allclose(atoms.get_stress(voigt=False), p.stress_mean[0], atol=1e-14)
    results = atoms.calc.results
    np.testing.assert_allclose(results["energies_committee"], p.energy[:, 0], rtol=1e-12)
    for name in ("energy_spread", "force_spread", "stress_spread", "energy_error", "force_error", "stress_error", "u"):
        assert results[name] == pytest.approx(float(getattr(p, name)[0]))


def test_calculator_keeps_its_neighbour_list_while_it_can(committee: NativeCommittee) -> None:
    calculator = committee.calculator()
    rng = np.random.default_rng(0)

    def agrees(atoms: Atoms) -> NativeEvaluator:
        p = committee.predict([atoms])
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(p.energy_mean[0], abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), p.force_mean[0], atol=1e-9)
        if p.stress_mean is not None and atoms.pbc.all():
            np.testing.assert_allclose(atoms.get_stress(voigt=False), p.stress_mean[0], atol=1e-12)
        assert calculator._moving is not None
        evaluator = calculator._moving[2]
        assert isinstance(evaluator, NativeEvaluator)
        return evaluator

    atoms = cells(4, 6)[3]
    first = agrees(atoms)
    for _ in range(5):
        atoms.positions += rng.normal(size=atoms.positions.shape) * 0.02
        atoms.set_cell(atoms.cell.array * 1.002, scale_atoms=True)
        assert agrees(atoms) is first
    assert first.n_searches == 1
    atoms.positions[0] += atoms.cell.array.sum(axis=0)  # another image of the same atom
    agrees(atoms)
    atoms.positions[1] += [1.0, 0.3, 0.0]
    agrees(atoms)
    assert first.n_searches >= 2
    atoms.symbols[0] = "Pt" if atoms.symbols[0] == "Ni" else "Ni"
    assert agrees(atoms) is not first
    for other in odd_ones():
        agrees(other)


def test_calculator_drives_a_relaxation(committee: NativeCommittee) -> None:
    atoms = cells(4, 6)[3]
    atoms.calc = committee.calculator()
    atoms.rattle(0.1, seed=1)
    before = np.abs(atoms.get_forces()).max()
    BFGS(atoms, logfile=None).run(fmax=before / 10, steps=20)
    assert np.abs(atoms.get_forces()).max() < before


def test_molecules_have_no_stress_and_unknown_elements_are_named(committee: NativeCommittee) -> None:
    atoms = Atoms("NiPt", positions=[[0, 0, 0], [2.4, 0, 0]])
    atoms.calc = committee.calculator()
    assert np.isfinite(atoms.get_forces()).all()
    assert "stress" not in atoms.calc.results
    water = molecule("H2O")
    water.calc = committee.calculator()
    with pytest.raises(PotentialError, match=r"Ni, Pt.*H, O"):
        water.get_potential_energy()


def test_a_single_member_predicts_but_has_no_spread(labelled: list[Atoms]) -> None:
    spec = CommitteeSpec(channels=4, l_max=1, n_members=1)
    single = train_committee(labelled[:5], spec, TrainingSpec(max_epochs=1))
    atoms = labelled[0].copy()
    atoms.calc = single.calculator()
    atoms.get_potential_energy()
    assert "u" not in atoms.calc.results
    with pytest.raises(PotentialError, match="two members"):
        _ = single.predict([atoms]).u


def test_native_committee_conforms(committee: NativeCommittee) -> None:
    assert isinstance(committee, Committee)
    check_committee(committee, [*odd_ones()[:3], *cells(4)], tolerance=1e-3)


class Wrong:
    """A committee that breaks one promise."""

    def __init__(self, committee: NativeCommittee, spoil: Any) -> None:
        self._committee, self._spoil = committee, spoil

    def __getattr__(self, name: str) -> Any:
        return getattr(self._committee, name)

    def predict(self, structures: Any, **kwargs: Any) -> Prediction:
        honest = self._committee.predict(structures, **kwargs)
        return dataclasses.replace(honest, **self._spoil(honest, structures))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p, s: {"forces": tuple(1.3 * f for f in p.forces)}, "gradient of the energy"),
        (lambda p, s: {"stress": None if p.stress is None else -p.stress}, "strain"),
        (lambda p, s: {"energy": p.energy + [np.asarray(x.positions)[0, 0] for x in s]}, "rotated"),
        (lambda p, s: {"energy": p.energy[:, :1]}, "energy is"),
        (lambda p, s: {"forces": tuple(f[:1] for f in p.forces)}, "forces"),
    ],
    ids=["forces", "stress", "invariance", "energy shape", "force shape"],
)
def test_broken_promises_are_named(committee: NativeCommittee, spoil: Any, message: str) -> None:
    with pytest.raises(PotentialError, match=message):
        check_committee(Wrong(committee, spoil), odd_ones()[-4:], tolerance=1e-3)


def test_ase_calculators_as_a_committee() -> None:
    members = [LennardJones(sigma=s, epsilon=0.1, rc=6.0, smooth=True) for s in (2.2, 2.25)]
    committee = CalculatorCommittee(members, ["Ni", "Pt"])
    assert isinstance(committee, Committee)
    rattled = bulk("Ni", cubic=True)
    rattled.rattle(0.05, seed=1)
    p = committee.predict([rattled])
    rattled.calc = members[1]
    assert p.energy[1, 0] == pytest.approx(rattled.get_potential_energy())
    np.testing.assert_allclose(p.forces[0][1], rattled.get_forces())
    assert p.u[0] > 0
    with pytest.raises(PotentialError, match="Cu"):
        committee.predict([bulk("Cu")])
    with pytest.raises(PotentialError, match="describe"):
        committee.predict([rattled], features=True)
    with pytest.raises(PotentialError, match="calculators"):
        committee.save("x")


def test_members_without_stress_give_none() -> None:
    class Bare(LennardJones):  # type: ignore[misc]
        implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, ["energy", "forces"], system_changes)
            self.results.pop("stress", None)

    crystal = bulk("Ni", cubic=True)
    crystal.calc = CommitteeCalculator(CalculatorCommittee([Bare(epsilon=e) for e in (0.1, 0.2)], ["Ni"]))
    assert np.isfinite(crystal.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError):
        crystal.get_stress()


def test_adapter_conforms(tmp_path: Path) -> None:
    committee = CalculatorCommittee([EMT(), EMT()], ["Ni", "Pt"], describe=lambda s: np.array([s.n_atoms, s.volume]))
    structures = cells(4, 4)
    check_committee(committee, structures, tolerance=1e-3)
    atoms = structures[0]
    atoms.calc = committee.with_calibration(None).calculator()
    expected = atoms.copy()
    expected.calc = EMT()
    assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(force_consistent=True))
