from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from alflow.errors import ConfigError, StructureError
from alflow.explore import EnumerateSettings, EnumerateSource, ExploreContext, Proposal, elemental_volume


def propose(
    settings: EnumerateSettings, elements: tuple[str, ...] = ("Pt", "Ni"), directory: Path | None = None
) -> list[Proposal]:
    context = ExploreContext(rng=np.random.default_rng(0), elements=elements, directory=directory or Path.cwd())
    return list(EnumerateSource(settings).propose(context))


def test_a_binary_on_fcc_up_to_six_atoms() -> None:
    proposals = propose(EnumerateSettings(max_atoms=6))
    assert len(proposals) == 2 + 2 + 6 + 19 + 28 + 80
    assert len({p.structure.content_hash for p in proposals}) == len(proposals)
    assert [p.structure.n_atoms for p in proposals] == sorted(p.structure.n_atoms for p in proposals)
    for p in proposals:
        expected = sum(n * elemental_volume(e, "fcc") for e, n in p.structure.composition.items())
        assert p.structure.volume == pytest.approx(expected)
        assert p.parameters["species"].count("Ni") == p.structure.composition.get("Ni", 0)


def test_pure_elements_can_be_left_out_and_volumes_given() -> None:
    proposals = propose(EnumerateSettings(max_atoms=2, pure_elements=False, volumes={"Ni": 12.0, "Pt": 16.0}))
    assert [p.structure.reduced_formula for p in proposals] == ["NiPt", "NiPt"]
    assert proposals[0].structure.volume == pytest.approx(28.0)


def test_cells_of_a_parent_with_two_sites_count_atoms() -> None:
    assert {p.structure.n_atoms for p in propose(EnumerateSettings(parents=("hcp",), max_atoms=5))} == {2, 4}


def test_three_species_and_several_parents() -> None:
    proposals = propose(EnumerateSettings(parents=("fcc", "bcc"), max_atoms=2), ("Au", "Cu", "Ag"))
    assert [p.parameters["parent"] for p in proposals] == ["fcc"] * 9 + ["bcc"] * 9


def test_a_parent_from_a_file_keeps_its_spectators(tmp_path: Path) -> None:
    write(tmp_path / "mgo.cif", bulk("MgO", "rocksalt", a=4.21))
    settings = EnumerateSettings(parents=("mgo.cif",), max_atoms=4, elements=("Mg", "Ca"))
    proposals = propose(settings, ("Mg", "Ca", "O"), tmp_path)
    assert [p.structure.formula for p in proposals] == ["CaO", "MgO", "CaMgO2", "CaMgO2"]
    assert proposals[1].structure.volume == pytest.approx(4.21**3 / 4)
    assert proposals[0].structure.volume > proposals[2].structure.volume / 2 > proposals[1].structure.volume


def test_what_cannot_be_a_parent_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'fccc' is neither a prototype"):
        propose(EnumerateSettings(parents=("fccc",)), directory=tmp_path)
    write(tmp_path / "cu.extxyz", bulk("Cu"))
    with pytest.raises(ConfigError, match="no site of Ni, Pt"):
        propose(EnumerateSettings(parents=("cu.extxyz",)), directory=tmp_path)
    write(tmp_path / "molecule.extxyz", Atoms("Ni2", positions=[[0, 0, 0], [0, 0, 2.2]]))
    with pytest.raises(ConfigError, match="exactly one crystal"):
        propose(EnumerateSettings(parents=("molecule.extxyz",)), directory=tmp_path)
    with pytest.raises(StructureError, match="Xx"):
        propose(EnumerateSettings(elements=("Ni", "Xx")))
    with pytest.raises(ConfigError, match="max_labelings"):
        propose(EnumerateSettings(max_atoms=8, max_labelings=1000))
