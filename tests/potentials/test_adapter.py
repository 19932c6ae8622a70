"""ASE calculators as a committee: what they cannot do is said, and what they can do is held to the protocol."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from alflow.errors import PotentialError, StructureError
from alflow.potentials import CalculatorCommittee, check_committee
from tests.potentials.conftest import cells, odd_ones


class Partial(Calculator):  # type: ignore[misc]  # ASE carries no types
    """Harmonic atoms around their centre, with parts left out or spoilt."""

    def __init__(self, results: dict[str, Any], implemented: list[str]) -> None:
        super().__init__()
        self.given = results
        self.implemented_properties: list[str] = implemented

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        from_centre = self.atoms.positions - self.atoms.positions.mean(axis=0)
        self.results = {"energy": float(0.5 * np.sum(from_centre**2)), "forces": -from_centre} | self.given


class Failing(EMT):  # type: ignore[misc]  # ASE carries no types
    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("out of cheese")


def test_calculators_without_features_conform() -> None:
    check_committee(CalculatorCommittee([EMT(), EMT()], ["Ni", "Pt"]), [*odd_ones()[:3], *cells(3)], tolerance=1e-3)


def test_where_there_is_no_stress_it_is_nan_and_the_rest_conforms() -> None:
    members = [Partial({}, ["energy", "forces"]) for _ in range(2)]
    committee = CalculatorCommittee(members, ["Ni", "Pt"])
    molecule = Atoms("Ni3", positions=[[0, 0, 0], [2.2, 0, 0], [0, 2.3, 0.1]])
    boxed = molecule.copy()
    boxed.cell, boxed.pbc = np.eye(3) * 12, True
    p = committee.predict([molecule, boxed])
    assert p.stress is not None
    assert np.isnan(p.stress).all()
    assert np.isnan(p.stress_spread).all()
    assert np.isfinite(p.u).all()
    check_committee(committee, [molecule, boxed], tolerance=1e-3)
    mixed = CalculatorCommittee([EMT(), members[0]], ["Ni", "Pt"]).predict([boxed])
    assert mixed.stress is not None
    assert np.isfinite(mixed.stress[0]).all()
    assert np.isnan(mixed.stress[1]).all()


@pytest.mark.parametrize(
    ("calculator", "message"),
    [
        (Partial({}, ["energy"]), "no forces"),
        (Partial({"energy": np.nan}, ["energy", "forces"]), "not finite"),
        (Partial({"forces": np.full((1, 3), np.inf)}, ["energy", "forces"]), "not finite"),
        (Partial({"forces": np.zeros((2, 3))}, ["energy", "forces"]), "shape"),
        (Partial({"stress": np.full(6, np.nan)}, ["energy", "forces", "stress"]), "stress is not finite"),
        (Failing(), "out of cheese"),
    ],
    ids=["no forces", "nan energy", "infinite forces", "shape", "nan stress", "failure"],
)
def test_what_a_calculator_does_wrong_is_said_with_its_place(calculator: Any, message: str) -> None:
    committee = CalculatorCommittee([EMT(), calculator], ["Ni", "Pt"])
    with pytest.raises(PotentialError, match=rf"member 1 \(\w+\), structure 0 \(\w+\): .*{message}"):
        committee.predict(cells(1))


def test_what_is_no_calculator_is_refused() -> None:
    for wrong in (EMT, None, "emt"):
        with pytest.raises(PotentialError, match="member 1"):
            CalculatorCommittee([EMT(), wrong], ["Ni"])
    with pytest.raises(PotentialError, match="at least one"):
        CalculatorCommittee([], ["Ni"])
    with pytest.raises(PotentialError, match="which elements"):
        CalculatorCommittee([EMT()], [])
    with pytest.raises(StructureError):
        CalculatorCommittee([EMT()], ["Nickel"])


def test_elements_stand_in_order_of_atomic_number() -> None:
    assert CalculatorCommittee([LennardJones()], ["Pt", "Ni", "Pt"]).elements == ("Ni", "Pt")
