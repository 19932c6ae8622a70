from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii

from alflow.explore import FilterSettings, check_filters, check_filters_batch
from alflow.potentials import Prediction, Targets
from alflow.structures import Structure

COPPER = Structure.from_atoms(bulk("Cu"))


def prediction(*largest: float) -> Prediction:
    forces = tuple(np.tile([[[force, 0.0, 0.0]]], (2, 1, 1)) for force in largest)
    n = len(largest)
    return Prediction(
        energy=np.zeros((2, n)), forces=forces, stress=None, n_atoms=np.ones(n, dtype=int), targets=Targets()
    )


def test_a_sound_crystal_passes() -> None:
    assert check_filters(COPPER) is None
    assert check_filters(COPPER, FilterSettings(), prediction(1.0)) is None


def test_the_reason_names_pair_distance_and_limit() -> None:
    close = Structure.from_atoms(Atoms("NiPt", positions=[[0, 0, 0], [0, 0, 1.2]], cell=[9, 9, 9], pbc=True))
    assert check_filters(close, FilterSettings(max_volume_per_atom=1000)) == (
        "Ni–Pt distance of 1.20 Å is 0.46 of the sum of the covalent radii; the limit is 0.6 (1.56 Å)"
    )
    assert check_filters(close, FilterSettings(max_volume_per_atom=1000, min_distance_factor=0.4)) is None
    assert check_filters(close, FilterSettings(max_volume_per_atom=1000, min_distance_factor=0.0)) is None


def test_atoms_on_one_place_are_a_reason_too() -> None:
    twice = Structure.from_atoms(Atoms("Ni2", cell=[3, 3, 3], pbc=True))
    assert "same place" in str(check_filters(twice))


def test_an_atom_too_close_to_its_own_image_is_seen() -> None:
    thin = Structure.from_atoms(Atoms("Cu", cell=[1.2, 6, 6], pbc=True))
    assert "Cu–Cu distance of 1.20 Å" in str(check_filters(thin))


def test_the_worst_pair_counts_relative_to_its_radii() -> None:
    factor = 0.9
    atoms = Atoms("HAuAu", positions=[[0, 0, 0], [0, 0, 1.6], [0, 0, 3.9]])
    reason = check_filters(Structure.from_atoms(atoms), FilterSettings(min_distance_factor=factor))
    worst = 2.3 / (2 * covalent_radii[79])
    assert worst < 1.6 / (covalent_radii[79] + covalent_radii[1])
    assert reason is not None
    assert reason.startswith(f"Au–Au distance of 2.30 Å is {worst:.2f}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (FilterSettings(max_volume_per_atom=11.0), "volume of 11.8 Å³/atom; the limit is 11"),
        (FilterSettings(min_volume_per_atom=12.0), "volume of 11.76 Å³/atom; the limit is 12"),
    ],
)
def test_volume_has_two_limits(settings: FilterSettings, words: str) -> None:
    assert words in str(check_filters(COPPER, settings))


def test_volume_is_a_matter_of_crystals_and_atoms_are_counted() -> None:
    molecule = Structure.from_atoms(Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.2]]))
    assert check_filters(molecule) is None
    assert "2 atoms; the limit is 1" in str(check_filters(molecule, FilterSettings(max_atoms=1)))


def test_predicted_forces_are_limited_also_where_they_are_not_a_number() -> None:
    reasons = check_filters_batch([COPPER] * 3, FilterSettings(max_force=5.0), prediction(1.0, 6.0, float("nan")))
    assert reasons[0] is None
    assert reasons[1] == "predicted force of 6.0 eV/Å on an atom; the limit is 5 eV/Å"
    assert reasons[2] is not None
    with pytest.raises(ValueError, match="predictions for 1"):
        check_filters_batch([COPPER] * 2, None, prediction(1.0))
