"""pymatgen's entries: every form of the JSON, and no module imported that a file names."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from alflow.errors import StructureError
from alflow.labelers import (
    one_theory,
)
from alflow.labelers._entries import read_entries
from alflow.structures import Structure
from tests.labelers.foreign_files import alloy, examples_at, frames_at, only


def entry_of(atoms: Atoms, data: dict[str, Any] | None = None, **parameters: Any) -> Any:
    from pymatgen.entries.computed_entries import ComputedStructureEntry, ConstantEnergyAdjustment

    return ComputedStructureEntry(
        Structure.from_atoms(atoms).to_pymatgen(),
        atoms.get_potential_energy(),
        energy_adjustments=[ConstantEnergyAdjustment(-3.0)],
        parameters=parameters,
        data=data,
        entry_id="mp-1",
    )


def as_json(value: Any) -> str:
    from monty.json import MontyEncoder

    return json.dumps(value, cls=MontyEncoder)


@pytest.mark.parametrize("form", ["list", "mapping", "single", "entries", "gz"])
def test_entries_in_every_form(tmp_path: Path, form: str) -> None:
    atoms = alloy(2)
    entry = entry_of(atoms)
    assert entry.energy == pytest.approx(atoms.get_potential_energy() - 3)
    forms = {"mapping": {"a": entry}, "single": entry, "entries": {"entries": [entry]}}
    text = as_json(forms.get(form, [entry]))
    path = tmp_path / ("e.json.gz" if form == "gz" else "e.json")
    path.write_bytes(gzip.compress(text.encode()) if form == "gz" else text.encode())
    (example,) = examples_at(path)
    assert example.properties.energy == atoms.get_potential_energy()
    assert example.properties.forces is None
    assert example.structure == Structure.from_pymatgen(entry.structure)


@pytest.mark.parametrize("packed", [False, True])
def test_the_limit_holds_for_the_content_and_not_for_the_compressed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    text = (as_json([entry_of(alloy(2))]) + " " * 20_000).encode()
    path = tmp_path / ("e.json.gz" if packed else "e.json")
    path.write_bytes(gzip.compress(text) if packed else text)
    monkeypatch.setattr("alflow.labelers._entries._MAX_BYTES", len(text))
    assert len(examples_at(path)) == 1
    monkeypatch.setattr("alflow.labelers._entries._MAX_BYTES", len(text) - 1)
    with pytest.raises(StructureError, match="GB of JSON; split it"):
        list(read_entries(path))


@pytest.mark.parametrize("kind", [list, np.array])
def test_forces_of_entries(tmp_path: Path, kind: Any) -> None:
    atoms = alloy(2)
    path = tmp_path / "e.json"
    path.write_text(as_json([entry_of(atoms, {"forces": kind(atoms.get_forces().tolist())})]))
    (example,) = examples_at(path)
    np.testing.assert_array_equal(example.properties.forces, atoms.get_forces())


def test_moments_and_charge_of_entries(tmp_path: Path) -> None:
    entry = entry_of(alloy(2))
    entry.structure.add_site_property("magmom", [0.6, 0.0, 0.1, 0.0])
    entry.structure.set_charge(1)
    path = tmp_path / "e.json"
    with pytest.warns(UserWarning, match="oxidation states"):
        path.write_text(as_json(entry))
    (example,) = examples_at(path)
    assert example.structure.moments is not None
    assert example.structure.moments.tolist() == [0.6, 0.0, 0.1, 0.0]
    assert example.structure.charge == 1


@pytest.mark.parametrize("nickel", [0, 2])
def test_oxidation_states_are_no_charge(tmp_path: Path, nickel: int) -> None:
    entry = entry_of(alloy(2))
    entry.structure.add_oxidation_state_by_element({"Ni": nickel, "Pt": 0})
    path = tmp_path / "e.json"
    path.write_text(as_json(entry))
    frame = only(path)
    if nickel:
        assert "its charge, 2, is the sum of oxidation states" in frame.detail
    else:
        assert frame.example is not None
        assert frame.example.structure.charge == 0


@pytest.fixture
def trap_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that pymatgen's own decoder would import."""
    name = "alflow_test_trap"
    (tmp_path / f"{name}.py").write_text(
        "class Trap:\n    @classmethod\n    def from_dict(cls, d):\n        return cls()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def test_no_module_is_imported_that_a_file_names(tmp_path: Path, trap_module: str) -> None:
    from monty.json import MontyDecoder

    trap = {"@module": trap_module, "@class": "Trap"}
    raw = json.loads(as_json(entry_of(alloy(2))))
    raw["data"] = raw["parameters"]["x"] = raw["structure"]["properties"]["x"] = trap
    raw["structure"]["sites"][0]["properties"]["x"] = trap
    path = tmp_path / "e.json"
    path.write_text(json.dumps([raw]))
    frames_at(path)
    assert trap_module not in sys.modules
    MontyDecoder().process_decoded(trap)
    assert trap_module in sys.modules  # the trap works


def test_entries_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    def raw(**changes: Any) -> dict[str, Any]:
        return {**json.loads(as_json(entry_of(alloy(2)))), **changes}

    mixed = raw()
    mixed["structure"]["sites"][0]["species"][0]["occu"] = 0.5
    other = raw()
    other["structure"]["@class"] = "Molecule"
    damaged = raw()
    del damaged["structure"]["lattice"]
    entries = [
        (raw(structure=None), "no structure"),
        (raw(energy="-3"), "'-3' where a number"),
        (raw(structure={**raw()["structure"], "charge": 10**400}), "OverflowError"),
        (raw(energy=float("nan")), "not finite"),
        (raw(**{"@class": "GibbsComputedStructureEntry"}), "'GibbsComputedStructureEntry', not"),
        (raw(data={"forces": [[0, 0, 0]]}), "forces of shape (1, 3)"),
        (raw(data={"forces": {"@module": "os", "@class": "system"}}), "'system'"),
        (mixed, "partially occupied"),
        (other, "'Molecule', not Structure"),
        (damaged, "KeyError"),
        ("text", "no entry"),
    ]
    path = tmp_path / "e.json"
    path.write_text(json.dumps([entry for entry, _ in entries]))
    found = frames_at(path)
    assert [frame.example for frame in found] == [None] * len(entries)
    for frame, (_, told) in zip(found, entries, strict=True):
        assert told in frame.detail


@pytest.mark.parametrize(
    ("content", "told"),
    [("{", "as JSON"), ("[]", "no ComputedStructureEntry"), ("3", "no Comp"), ('{"nextid": 2}', "ASE's database")],
)
def test_other_json_is_one_error(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "e.json"
    path.write_text(content)
    with pytest.raises(StructureError, match=told):
        frames_at(path)


def test_entries_of_two_functionals_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    titles = ["PAW_PBE Ni_pv 06Sep2000", "PAW_PBE Pt 05Jan2001"]
    pbe = [entry_of(alloy(i), run_type="GGA", potcar_symbols=titles) for i in range(3)]
    u = entry_of(alloy(4), run_type="GGA", potcar_symbols=titles, hubbards={"Ni": 6.2})
    scan = entry_of(alloy(5), run_type="R2SCAN", potcar_symbols=titles)
    path.write_text(as_json([scan, u, *pbe]))
    kept, differences = one_theory(frames_at(path))
    assert [frame.example is not None for frame in kept] == [False, False, True, True, True]
    assert kept[0].detail == "functional R2SCAN, most have GGA"
    assert kept[1].detail == ("dataset of Ni PAW_PBE Ni_pv 06Sep2000, U = 6.2 eV, most have PAW_PBE Ni_pv 06Sep2000")
    assert [(d.setting, d.labels, d.kept) for d in differences] == [
        ("functional", 4, True),
        ("functional", 1, False),
        ("dataset of Ni", 4, True),
        ("dataset of Ni", 1, False),
    ]
