"""Labels of other programs' files: every number in alflow's units and signs, and a reason for each that is refused."""

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
from ase.build import bulk
from ase.calculators.emt import EMT

from alflow.errors import StructureError, UserError
from alflow.labelers import (
    ForeignFrame,
    ForeignKind,
    ForeignSettings,
    find_foreign,
    one_theory,
    read_foreign,
    read_vasp_run,
)
from alflow.structures import LabelledStructure, Properties, Structure

Array = np.ndarray[Any, Any]


def frames_at(path: Path) -> list[ForeignFrame]:
    return [frame for source in find_foreign(path) for frame in read_foreign(source)]


def only(path: Path) -> ForeignFrame:
    (frame,) = frames_at(path)
    return frame


def examples_at(path: Path) -> list[LabelledStructure]:
    found = frames_at(path)
    assert [frame.refused for frame in found] == [""] * len(found)
    return [frame.example for frame in found if frame.example is not None]


def alloy(seed: int, symbols: str = "NiPt3") -> Atoms:
    """Atoms off their places in a skewed cell: no component of the stress vanishes."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
    atoms.symbols = symbols
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.05, 0.05, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
    atoms.calc = EMT()
    return atoms


def virial_of(atoms: Atoms, step: float = 1e-5) -> Array:
    """−∂E/∂ε by central differences of the energy alone, ε symmetric, eV."""
    virial = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            energies = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[i, j] += sign * step / 2
                strain[j, i] += sign * step / 2
                strained = atoms.copy()
                strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
                strained.calc = EMT()
                energies.append(strained.get_potential_energy())
            virial[i, j] = -(energies[0] - energies[1]) / (2 * step)
    return virial


def write_deepmd(folder: Path, images: list[Atoms], *, dtype: str = "f8", sets: int = 1, virial: bool = True) -> Path:
    """What dpdata writes: all images have the species of the first, in its order."""
    folder.mkdir(parents=True)
    names = sorted(set(images[0].symbols))
    (folder / "type.raw").write_text("".join(f"{names.index(s)}\n" for s in images[0].symbols))
    (folder / "type_map.raw").write_text("".join(f"{name}\n" for name in names))
    for number, part in enumerate(np.array_split(np.arange(len(images)), sets)):
        path = folder / f"set.{number:03d}"
        path.mkdir()
        chosen = [images[i] for i in part]
        arrays = {
            "coord": [a.positions.ravel() for a in chosen],
            "box": [a.cell.array.ravel() for a in chosen],
            "energy": [a.get_potential_energy() for a in chosen],
            "force": [a.get_forces().ravel() for a in chosen],
        }
        if virial:
            arrays["virial"] = [virial_of(a).ravel() for a in chosen]
        for name, values in arrays.items():
            np.save(path / f"{name}.npy", np.array(values, dtype=dtype))
    return folder


# -- DeePMD --------------------------------------------------------------------------------------------------------


def test_virial_becomes_the_stress_and_nothing_else_changes(tmp_path: Path) -> None:
    images = [alloy(seed) for seed in range(3)]
    found = examples_at(write_deepmd(tmp_path / "data", images, sets=2))
    assert len(found) == 3
    for example, atoms in zip(found, images, strict=True):
        assert example.structure == Structure.from_atoms(atoms)
        given = example.properties
        assert given.energy == atoms.get_potential_energy()
        np.testing.assert_array_equal(given.forces, atoms.get_forces())
        expected = atoms.get_stress(voigt=False)
        assert np.abs(expected).min() > 1e-4
        assert given.stress is not None
        np.testing.assert_allclose(given.stress, expected, atol=1e-8)


def test_single_precision_and_frames_without_virial(tmp_path: Path) -> None:
    atoms = alloy(1)
    (example,) = examples_at(write_deepmd(tmp_path / "data", [atoms], dtype="f4", virial=False))
    assert example.properties.stress is None
    assert example.properties.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(example.structure.positions, atoms.positions, atol=1e-6)


def test_frames_of_mixed_species_with_padding(tmp_path: Path) -> None:
    atoms = alloy(1)
    folder = write_deepmd(tmp_path / "data", [atoms, atoms])
    np.save(folder / "set.000" / "real_atom_types.npy", np.array([[0, 1, 1, 1], [1, 0, 0, -1]]))
    first, second = examples_at(folder)
    assert (first.structure.formula, second.structure.formula) == ("NiPt3", "Ni2Pt")
    np.testing.assert_array_equal(second.structure.positions, atoms.positions[:3])
    assert second.properties.forces is not None
    np.testing.assert_array_equal(second.properties.forces, atoms.get_forces()[:3])


def test_molecules_have_no_cell_and_no_stress(tmp_path: Path) -> None:
    folder = write_deepmd(tmp_path / "data", [alloy(1)])
    (folder / "nopbc").touch()
    (example,) = examples_at(folder)
    assert example.structure.n_periodic == 0
    assert example.properties.stress is None


def damage_type_map(folder: Path) -> None:
    (folder / "type_map.raw").unlink()


def damage_element(folder: Path) -> None:
    (folder / "type_map.raw").write_text("Ni Xx")


def damage_types(folder: Path) -> None:
    (folder / "type_map.raw").write_text("Ni")


def damage_sets(folder: Path) -> None:
    (folder / "set.000").rename(folder / "raw")


def damage_energy(folder: Path) -> None:
    (folder / "set.000" / "energy.npy").unlink()


def damage_number(folder: Path) -> None:
    np.save(folder / "set.000" / "energy.npy", np.zeros(2))


def damage_shape(folder: Path) -> None:
    np.save(folder / "set.000" / "force.npy", np.zeros((1, 9)))


def damage_nan(folder: Path) -> None:
    np.save(folder / "set.000" / "energy.npy", np.array([np.nan]))


def damage_virial(folder: Path) -> None:
    np.save(folder / "set.000" / "virial.npy", np.arange(9.0).reshape(1, 9))


def damage_digits(folder: Path) -> None:
    np.save(folder / "set.000" / "energy.npy", np.array([-3e6], dtype="f4"))


def damage_parameters(folder: Path) -> None:
    np.save(folder / "set.000" / "fparam.npy", np.array([[0.1]]))


def damage_file(folder: Path) -> None:
    (folder / "set.000" / "coord.npy").write_bytes(b"no array")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_type_map, "no type_map.raw"),
        (damage_element, "'Xx'"),
        (damage_types, "types reach 1, type_map.raw names 1"),
        (damage_sets, "no folder set.*"),
        (damage_energy, "no energy.npy"),
        (damage_number, "2 in energy.npy, 1 in coord.npy"),
        (damage_shape, "force.npy has shape (1, 9); expected (frames, 12)"),
        (damage_nan, "energy.npy holds values that are not finite"),
        (damage_virial, "not symmetric"),
        (damage_digits, "steps of 0.25 eV"),
        (damage_parameters, "electronic temperature"),
        (damage_file, "data"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, damage: Any, told: str) -> None:
    folder = write_deepmd(tmp_path / "data", [alloy(1)])
    damage(folder)
    frame = only(tmp_path)
    assert frame.example is None
    assert frame.refused
    assert told in f"{frame.origin}: {frame.detail}"


class Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    folder = write_deepmd(tmp_path / "data", [alloy(1)])
    trap = np.array([None], dtype=object)
    trap[0] = Trap(tmp_path / "sprung")
    np.save(folder / "set.000" / "energy.npy", trap)
    assert "pickle" in only(folder).detail
    assert not (tmp_path / "sprung").exists()


def test_dpgen_tree_gives_its_data_and_not_the_tasks_again(tmp_path: Path) -> None:
    for i in range(2):
        fp = tmp_path / f"iter.{i:06d}" / "02.fp"
        write_deepmd(fp / "data.000", [alloy(i)])
        (fp / "task.000.000000").mkdir()
        (fp / "task.000.000000" / "OUTCAR").write_text("what a task left")
    (tmp_path / "iter.000000" / "00.train").mkdir()
    sources = list(find_foreign(tmp_path))
    assert [source.kind for source in sources] == [ForeignKind.DEEPMD, ForeignKind.UNREAD] * 2
    found = frames_at(tmp_path)
    assert sum(frame.example is not None for frame in found) == 2
    assert {frame.refused for frame in found if frame.example is None} == {"task of dpgen whose labels stand in data.*"}


def test_a_folder_that_cannot_be_entered_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fp = tmp_path / "02.fp"
    write_deepmd(fp / "data.001", [alloy(1)])
    (fp / "data.000").mkdir()
    closed, iterdir, is_file = fp / "data.000", Path.iterdir, Path.is_file

    def guarded(path: Path) -> Path:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return path

    monkeypatch.setattr(Path, "iterdir", lambda path: iterdir(guarded(path)))
    monkeypatch.setattr(Path, "is_file", lambda path: is_file(guarded(path.parent) / path.name))
    refused, usable = frames_at(tmp_path)
    assert (refused.refused, refused.origin) == ("cannot be read", str(closed))
    assert usable.example is not None


def test_links_are_followed_once(tmp_path: Path) -> None:
    write_deepmd(tmp_path / "real" / "data", [alloy(1)])
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real" / "back").symlink_to(tmp_path / "tree", target_is_directory=True)
    assert len(list(find_foreign(tmp_path / "tree"))) == 1
    assert len(list(find_foreign(tmp_path))) == 1


# -- pymatgen's entries --------------------------------------------------------------------------------------------


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


# -- which labels stay ---------------------------------------------------------------------------------------------


def told(cutoff: int, *, kind: str = "vasp", symbols: str = "NiPt3", **datasets: str) -> ForeignFrame:
    example = LabelledStructure(structure=Structure.from_atoms(alloy(0, symbols)), properties=Properties(energy=0.0))
    settings = ForeignSettings(kind=kind, shared=(("cutoff", f"{cutoff} eV"),), species=tuple(datasets.items()))
    return ForeignFrame(origin="x", example=example, settings=settings)


def kept(frames: list[ForeignFrame], elements: list[str] | None = None) -> list[bool]:
    found, _ = one_theory(frames, elements)
    return [frame.example is not None for frame in found]


def test_most_decide_and_datasets_only_where_the_element_is_shared() -> None:
    assert kept([told(520), told(400), told(400)]) == [False, True, True]
    assert kept([told(400, Ni="a"), told(400, Pt="b"), told(400, Ni="c", Pt="b"), told(400, Ni="c")]) == [
        False,
        True,
        True,
        True,
    ]
    agreeing = [told(400, Ni="a"), told(400, Pt="b"), told(400)]
    assert one_theory(agreeing) == (agreeing, [])


def test_kinds_do_not_compare_and_what_says_nothing_stays() -> None:
    silent = ForeignFrame(origin="x", example=told(1).example)
    refused = ForeignFrame(origin="x", refused="cut off", settings=told(1).settings)
    assert kept([told(520), told(400, kind="entries"), silent, refused]) == [True, True, True, False]


def test_other_elements_have_no_say() -> None:
    frames = [told(520, symbols="Cu4"), told(520, symbols="Cu4"), told(400)]
    assert kept(frames) == [True, True, False]
    assert kept(frames, ["Ni", "Pt"]) == [True, True, True]


# -- VASP ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> Path:
    path = shared_data / "vasp"
    if not path.is_dir():
        pytest.skip(f"no recorded runs of VASP at {path}: set ALFLOW_TEST_DATA to a folder that holds them")
    return path


def test_a_folder_with_both_files_is_read_once(recorded: Path) -> None:
    run = read_vasp_run(recorded / "relaxation")
    for path in ("relaxation", "relaxation/OUTCAR", "relaxation/vasprun.xml.gz"):
        found = examples_at(recorded / path)
        assert [e.properties.energy for e in found] == [step.properties.energy for step in run.steps]
        for example, step in zip(found, run.steps, strict=True):
            assert example.structure == step.structure
            np.testing.assert_array_equal(example.properties.stress, step.properties.stress)


def test_names_of_several_runs_in_one_folder(recorded: Path, tmp_path: Path) -> None:
    for name in ("OUTCAR", "vasprun.xml.gz"):
        target = name.removesuffix(".gz") + ".relax1" + (".gz" if name.endswith(".gz") else "")
        (tmp_path / target).symlink_to(recorded / "relaxation" / name)
        (tmp_path / name).symlink_to(recorded / "static_silicon" / name)
    (tmp_path / "OUTCAR.relax2.bz2").touch()
    sources = list(find_foreign(tmp_path))
    assert [source.path.name for source in sources] == [tmp_path.name, "vasprun.xml.relax1.gz", "OUTCAR.relax2.bz2"]
    assert [frame.refused for frame in frames_at(tmp_path)] == ["", "", "", "", "compressed otherwise than by gzip"]


def test_what_runs_are_refused_for(recorded: Path) -> None:
    found: dict[str, list[ForeignFrame]] = {}
    for frame in frames_at(recorded / "single"):
        found.setdefault(Path(frame.origin.partition(",")[0]).name, []).append(frame)
    refused = {name: [f.refused for f in frames if f.refused] for name, frames in found.items()}
    assert {name: reasons for name, reasons in refused.items() if reasons} == {
        "OUTCAR.NiO_SOC.gz": ["non-collinear"],
        "vasprun.bad.xml.gz": ["cut off"],
        "vasprun.dfpt.unconverged.xml.gz": ["not converged"],
    }
    assert sum(f.example is not None for f in found["vasprun.md.xml.gz"]) == 10
    assert sum(f.example is not None for f in found["vasprun.bad.xml.gz"]) == 1


def test_a_run_that_was_cut_off_before_its_first_step(recorded: Path, tmp_path: Path) -> None:
    text = (recorded / "static_silicon" / "OUTCAR").read_text()
    (tmp_path / "OUTCAR").write_text(text[: len(text) // 3])
    assert only(tmp_path).refused == "cut off before its first step"
    (tmp_path / "OUTCAR").write_bytes(gzip.compress(text.encode())[:2000])
    (tmp_path / "OUTCAR").rename(tmp_path / "OUTCAR.gz")
    assert only(tmp_path).refused == "cut off before its first step"


def test_settings_of_both_files_are_the_same(recorded: Path, tmp_path: Path) -> None:
    for name in ("relaxation", "static_silicon", "fe_monomer"):
        alone = tmp_path / name
        alone.mkdir()
        (alone / "OUTCAR").symlink_to(recorded / name / "OUTCAR")
        settings = {frame.settings for frame in [*frames_at(recorded / name), *frames_at(alone)]}
        assert len(settings) == 1


def test_functionals_of_runs_are_told_apart(recorded: Path) -> None:
    frames = frames_at(recorded)
    _, differences = one_theory(frames)
    values = {d.value for d in differences if d.setting == "functional"}
    assert values == {"GGA = PE", "METAGGA = R2SCAN", "GGA = PE, exact exchange 0.25, screened 0.207"}
    kept_cutoffs = [d.value for d in differences if d.setting == "cutoff" and d.kept]
    assert kept_cutoffs == ["184.009 eV"]


def test_hubbard_u_of_an_outcar(recorded: Path, tmp_path: Path) -> None:
    text = gzip.decompress((recorded / "single" / "OUTCAR.NiO_SOC.gz").read_bytes()).decode()
    text = text.replace("LNONCOLLINEAR =      T", "LNONCOLLINEAR =      F").replace(
        "LSORBIT =      T", "LSORBIT =      F"
    )
    (tmp_path / "OUTCAR").write_text(text)
    frame = only(tmp_path)
    assert frame.settings is not None
    assert frame.settings.species == (
        ("Ni", "PAW_PBE Ni_pv 06Sep2000, U = 5 eV"),
        ("O", "PAW_PBE O 08Apr2002"),
    )


# -- other paths ---------------------------------------------------------------------------------------------------


def test_one_error_for_what_is_none_of_these(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        list(find_foreign(tmp_path / "gone"))
    (tmp_path / "x.txt").touch()
    with pytest.raises(UserError, match="labels are read from extended XYZ"):
        list(find_foreign(tmp_path / "x.txt"))
    assert not list(find_foreign(tmp_path))
