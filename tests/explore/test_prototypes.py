from __future__ import annotations

import numpy as np
import pytest
import spglib
from ase.build import bulk
from ase.data import chemical_symbols

from alflow.errors import ConfigError, StructureError
from alflow.explore import PROTOTYPES, elemental_volume, prototype
from alflow.explore._prototypes import nearest_distance, reference_volume

SPACE_GROUPS = {
    "fcc": 225,
    "bcc": 229,
    "hcp": 194,
    "dhcp": 194,
    "sc": 221,
    "diamond": 227,
    "beta_tin": 141,
    "simple_hexagonal": 191,
}


@pytest.mark.parametrize("name", PROTOTYPES)
def test_prototypes_have_their_space_group_and_are_primitive(name: str) -> None:
    lattice = prototype(name)
    dataset = spglib.get_symmetry_dataset((lattice.cell, lattice.fractional, [1] * lattice.n_sites))  # type: ignore[arg-type]
    assert dataset is not None
    assert dataset.number == SPACE_GROUPS[name]
    assert lattice.volume_per_site == pytest.approx(1.0)
    assert lattice.scaled(11.0).volume_per_site == pytest.approx(11.0)
    primitive = spglib.find_primitive((lattice.cell, lattice.fractional, [1] * lattice.n_sites))  # type: ignore[arg-type]
    assert primitive is not None
    assert len(primitive[2]) == lattice.n_sites


def test_nearest_distances_are_those_of_the_textbook() -> None:
    assert nearest_distance("fcc") == pytest.approx(4 ** (1 / 3) / 2**0.5)
    assert nearest_distance("hcp") == pytest.approx(nearest_distance("fcc"))
    assert nearest_distance("bcc") == pytest.approx(2 ** (1 / 3) * 3**0.5 / 2)
    assert nearest_distance("sc") == pytest.approx(1.0)
    assert nearest_distance("diamond") == pytest.approx(2 * 3**0.5 / 4)


@pytest.mark.parametrize(("element", "crystal"), [("Ni", "fcc"), ("Nb", "bcc"), ("Si", "diamond"), ("Po", "sc")])
def test_an_element_has_its_measured_volume_in_its_own_crystal(element: str, crystal: str) -> None:
    if element == "Po":  # its entry in the table counts as close-packed
        assert reference_volume("Po") == pytest.approx(38.1)
        return
    atoms = bulk(element)
    assert elemental_volume(element, crystal) == pytest.approx(atoms.get_volume() / len(atoms))


def test_open_crystals_are_larger_and_every_element_has_a_volume() -> None:
    volumes = [elemental_volume("Cu", name) for name in ("fcc", "bcc", "sc", "diamond")]
    assert volumes == sorted(volumes)
    assert 1.3 < volumes[-1] / volumes[0] < 1.6
    for element in chemical_symbols[1:104]:
        assert 3.5 < elemental_volume(element, "fcc") < 120.0, element


def test_a_table_goes_before_the_measured_volume() -> None:
    assert elemental_volume("Ni", "fcc", {"Ni": 12.0}) == pytest.approx(12.0)
    assert elemental_volume("Ni", "bcc", {"Ni": 12.0}) == pytest.approx(
        12.0 * elemental_volume("Ni", "bcc") / 10.903552
    )
    assert reference_volume("Ni", {"Ni": 12.0}) == 12.0
    assert elemental_volume("Pt", "fcc", {"Ni": 12.0}) == elemental_volume("Pt", "fcc")


def test_unknown_names_are_named() -> None:
    with pytest.raises(ConfigError, match=r"fccc.*known are fcc"):
        prototype("fccc")
    with pytest.raises(StructureError, match="Xx"):
        elemental_volume("Xx", "fcc")
    assert np.isfinite(elemental_volume("Md", "fcc"))
