"""The same crystal in other clothes: what a labeler says about it, and what that means for targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from ase.build import bulk, molecule
from pydantic import BaseModel

from alflow.errors import StructureError
from alflow.labelers import (
    Capabilities,
    EmtLabeler,
    InProcessLabeler,
    Noise,
    TheorySpec,
    WorkerConfig,
    below_noise,
    get_labeler,
    measure_noise,
    small_crystal,
)
from alflow.labelers._noise import disguises
from alflow.labelers._result import RawOutcome
from alflow.structures import DuplicatePolicy, Properties, Structure, find_isometry


class Settings(BaseModel):
    """None."""


class Noisy(InProcessLabeler):
    """EMT with errors that depend on the cell as those of a coarse k-mesh do: known ones."""

    name = "noisy"
    settings_model: type[BaseModel] = Settings

    def __init__(self, errors: Mapping[int, tuple[float, float, float]]) -> None:
        self.errors = errors
        self.calls = 0

    @classmethod
    def create(cls, settings: BaseModel, *, worker: WorkerConfig, directory: Path) -> Self:
        raise NotImplementedError

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def theory(self) -> TheorySpec:
        return TheorySpec(labeler=self.name, settings={}, code="1.0")

    def compute(self, structure: Structure, directory: Path | None) -> RawOutcome:
        found = get_labeler("emt").label(structure).properties
        energy, force, stress = self.errors.get(self.calls, (0.0, 0.0, 0.0))
        self.calls += 1
        assert found.forces is not None
        assert found.stress is not None
        push = np.zeros_like(found.forces)
        push[0, 0], push[1, 0] = force, -force
        return RawOutcome(
            structure=structure,
            properties=Properties(
                energy=found.energy + energy * structure.n_atoms,
                forces=found.forces + push,
                stress=found.stress + np.diag([0.0, stress, 0.0]),
            ),
            evidence={"converged": True, "convergence": "exact"},
        )


def crystal() -> Structure:
    return small_crystal(("Ni", "Pt"))


def test_the_disguises_are_the_same_crystal() -> None:
    found = disguises(crystal())
    assert [d.structure.n_atoms for d in found] == [2, 2, 4]
    for disguise in found:
        assert find_isometry(crystal(), disguise.structure, DuplicatePolicy.identical()) is not None
        assert not np.allclose(disguise.structure.cell, crystal().cell)


def test_emt_has_no_noise() -> None:
    """Forces and stress are compared after they are turned back, so only rounding is left."""
    label = EmtLabeler().label(crystal()).properties
    assert label.forces is not None
    assert label.stress is not None
    assert np.abs(label.forces).max() > 0.1
    assert np.abs(label.stress - np.trace(label.stress) / 3 * np.eye(3)).max() > 0.001
    found = list(measure_noise(EmtLabeler(), crystal()))
    assert [d.name for d in found] == ["another cell", "turned and moved", "doubled"]
    for difference in found:
        assert difference.energy < 1e-9
        assert difference.force is not None
        assert difference.force < 1e-9
        assert difference.stress is not None
        assert difference.stress < 1e-9


def test_the_largest_differences_are_the_noise() -> None:
    labeler = Noisy({1: (0.002, 0.0, 0.0), 2: (-0.003, 0.01, 0.0), 3: (0.001, 0.02, 0.004)})
    noise = Noise(structure="NiPt", disguises=tuple(measure_noise(labeler, crystal())))
    assert (noise.energy, noise.force, noise.stress) == pytest.approx((0.003, 0.02, 0.004))
    kept = noise.to_dict()
    assert (kept["energy"], kept["structure"], len(kept["disguises"])) == (noise.energy, "NiPt", 3)


def test_charge_and_moments_go_along() -> None:
    one = crystal()
    magnetic = Structure(
        cell=one.cell,
        pbc=one.pbc,
        numbers=one.numbers,
        positions=one.positions,
        charge=1.0,
        moments=np.array([[0.0, 0.0, 2.0], [1.0, 0.0, 0.0]]),
    )
    _, turned, doubled = (d.structure for d in disguises(magnetic))
    assert doubled.charge == 2.0
    assert doubled.moments is not None
    assert doubled.moments.tolist() == [[0.0, 0.0, 2.0], [1.0, 0.0, 0.0]] * 2
    assert turned.moments is not None
    cosine = turned.moments[0] @ turned.cell[2] / (2 * np.linalg.norm(turned.cell[2]))
    assert cosine == pytest.approx(one.cell[2, 2] / np.linalg.norm(one.cell[2]))


def test_noise_needs_a_crystal() -> None:
    with pytest.raises(StructureError, match="0 directions"):
        disguises(Structure.from_atoms(molecule("H2O")))


def test_targets_below_twice_the_noise() -> None:
    noise: dict[str, Any] = {"energy": 0.002, "force": 0.01, "stress": None}
    targets = {"energy": 0.003, "force": 0.02, "stress": 1e-9}
    [sentence] = below_noise(noise, targets)
    assert "target energy: 0.003 eV/atom" in sentence
    assert below_noise(None, targets) == []


@pytest.mark.parametrize("elements", [("Cu",), ("Ni", "Pt"), ("Al", "Ni", "Pt")])
def test_the_small_crystal_is_reasonable(elements: tuple[str, ...]) -> None:
    found = small_crystal(elements)
    assert set(found.elements) == set(elements[:2])
    assert EmtLabeler().refuses(found) is None
    volume = sum(Structure.from_atoms(bulk(e)).volume for e in (elements * 2)[:2])
    assert 0.7 < found.volume / volume < 1.4
