"""``alflow import``: what users have becomes labels, and the table says what became of every frame."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from alflow.ledger import open_ledger
from alflow.loop import _people
from alflow.structures import Structure

if TYPE_CHECKING:
    from ase import Atoms

    from tests.cli.conftest import Campaign, Run


def alloy(number: int, symbols: str = "NiPt3") -> Atoms:
    rng = np.random.default_rng(number)
    atoms = bulk("Cu", "fcc", a=3.8 + 0.03 * number, cubic=True)
    atoms.symbols = symbols
    atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
    atoms.calc = EMT()
    return atoms


def write_deepmd(folder: Path, images: list[Atoms]) -> None:
    """Images of one sequence of species, as dpgen's 02.fp holds them."""
    (folder / "set.000").mkdir(parents=True)
    names = sorted(set(images[0].symbols))
    (folder / "type.raw").write_text("".join(f"{names.index(s)}\n" for s in images[0].symbols))
    (folder / "type_map.raw").write_text("\n".join(names))
    arrays = {
        "coord": [a.positions.ravel() for a in images],
        "box": [a.cell.array.ravel() for a in images],
        "energy": [a.get_potential_energy() for a in images],
        "force": [a.get_forces().ravel() for a in images],
        "virial": [-a.get_volume() * a.get_stress(voigt=False).ravel() for a in images],
    }
    for name, values in arrays.items():
        np.save(folder / "set.000" / f"{name}.npy", np.array(values))


def rows_of(table: str) -> list[dict[str, str]]:
    with Path(table).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def imported(campaign: Campaign) -> dict[str, Any]:
    """Labels in the ledger by the hash of their structure."""
    with open_ledger(campaign.url, create=False) as ledger:
        theory = ledger.theories.get("emt")
        ids = ledger.campaigns.get(campaign.name).id
        labels = ledger.labels.accepted(theory.id, ids)
        rows = {row.structure_id: row for row in ledger.candidates("", campaign=ids)}
        structures = ledger.pool.structures([rows[label.structure_id].id for label in labels])
        return {s.content_hash: label.properties for s, label in zip(structures, labels, strict=True)}


def test_a_dpgen_tree(alflow: Run, campaign: Campaign) -> None:
    images = [alloy(i) for i in range(3)]
    write_deepmd(Path("work/iter.000000/02.fp/data.000"), images[:2])
    write_deepmd(Path("work/iter.000001/02.fp/data.000"), images[2:])
    write_deepmd(Path("work/iter.000001/02.fp/data.001"), [alloy(5, "Cu4")])
    Path("work/iter.000001/02.fp/task.000.000000").mkdir()
    found = alflow("import", "work", "--theory", "emt", "--table", "what.csv", "--json").json()
    assert (found["taken"], found["already_known"], found["duplicates"]) == (3, 0, 0)
    assert len(found["refused"]) == 2
    rows = rows_of("what.csv")
    assert [row["outcome"] for row in rows] == ["taken", "taken", "taken", "refused", "refused"]
    assert rows[3]["detail"] == "holds Cu, which the campaign does not"
    assert rows[3]["formula"] == "Cu4"
    assert rows[0]["origin"] == "work/iter.000000/02.fp/data.000/set.000, frame 0"
    assert float(rows[0]["energy"]) == images[0].get_potential_energy()
    assert "energy" in alflow("show", rows[0]["candidate"]).stdout
    labels = imported(campaign)
    for atoms in images:
        given = labels[Structure.from_atoms(atoms).content_hash]
        np.testing.assert_allclose(given.forces, atoms.get_forces(), atol=1e-12)
        np.testing.assert_allclose(given.stress, atoms.get_stress(voigt=False), atol=1e-12)


def test_again_and_turned_nothing_is_taken(alflow: Run, campaign: Campaign) -> None:
    images = [alloy(i) for i in range(2)]
    write_deepmd(Path("data"), images)
    assert "taken" in alflow("import", "data", "--theory", "emt").stdout
    again = alflow("import", "data", "data", "--theory", "emt", "--table", "again.csv", "--json").json()
    assert (again["taken"], again["already_known"]) == (0, 2)
    assert [row["outcome"] for row in rows_of("again.csv")] == ["known already"] * 2
    assert again["largest_energy_difference"] == 0
    turned = images[0].copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    turned.calc = EMT()
    write_deepmd(Path("turned"), [turned])
    found = alflow("import", "turned", "--theory", "emt", "--json").json()
    assert (found["taken"], found["duplicates"]) == (0, 1)
    assert found["largest_energy_difference"] == pytest.approx(0, abs=1e-9)


def test_copies_with_other_energies_are_told(alflow: Run, campaign: Campaign) -> None:
    images = [alloy(i) for i in range(2)]
    write_deepmd(Path("data"), images)
    first = alflow("import", "data", "--theory", "emt")
    assert "differ" not in first.stdout
    energies = [atoms.get_potential_energy() for atoms in images]
    np.save("data/set.000/energy.npy", np.array([energies[0], energies[1] - 0.2]))
    copies = Path("copies")
    Path("data").rename(copies)
    found = alflow("import", "copies", "--theory", "emt", "--table", "what.csv")
    assert "by at most 50 meV/atom (copies/set.000, frame 1)" in found.stdout
    assert [float(row["energy_difference_per_atom"]) for row in rows_of("what.csv")] == pytest.approx([0, -0.05])


def test_an_ase_database_with_rows_that_are_no_labels(alflow: Run, campaign: Campaign) -> None:
    atoms, bare = alloy(1), alloy(2)
    bare.calc = None
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    kept = atoms.copy()
    kept.calc = SinglePointCalculator(kept, **results)
    with connect("labels.db") as database:
        database.write(bare)
        database.write(kept)
    found = alflow("import", "labels.db", "--theory", "emt", "--table", "what.csv")
    assert "no usable label" in found.stdout
    assert [row["outcome"] for row in rows_of("what.csv")] == ["refused", "taken"]
    given = imported(campaign)[Structure.from_atoms(atoms).content_hash]
    np.testing.assert_allclose(given.stress, atoms.get_stress(voigt=False), atol=1e-12)


def test_entries_without_forces_are_labels_and_other_settings_are_told(alflow: Run, campaign: Campaign) -> None:
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    entries = []
    for number, run_type in enumerate(["GGA", "GGA", "R2SCAN"]):
        atoms = alloy(number)
        structure = Structure.from_atoms(atoms).to_pymatgen()
        entry = ComputedStructureEntry(structure, atoms.get_potential_energy(), parameters={"run_type": run_type})
        entries.append(entry.as_dict())
    Path("entries.json").write_text(json.dumps(entries))
    found = alflow("import", "entries.json", "--theory", "emt")
    assert "R2SCAN" in found.stdout
    assert "settings other than those of most" in found.stdout
    assert "import the others apart" in found.stdout
    labels = imported(campaign)
    taken = [Structure.from_atoms(alloy(i)).content_hash in labels for i in range(3)]
    assert taken == [True, True, False]
    assert labels[Structure.from_atoms(alloy(0)).content_hash].forces is None


def test_vasp_runs_of_two_cutoffs(alflow: Run, shared_data: Path) -> None:
    recorded = shared_data / "vasp" / "single" / "vasprun.Al.xml.gz"
    if not recorded.is_file():
        pytest.skip(f"no recorded run of VASP at {recorded}: set ALFLOW_TEST_DATA to a folder that holds it")
    alflow("init", "--elements", "Al", "--labeler", "emt", "--name", "al")
    text = gzip.decompress(recorded.read_bytes()).decode()
    for name, cutoff in [("a", 400), ("b", 680), ("c", 680)]:
        run = Path("runs") / name
        run.mkdir(parents=True)
        (run / "vasprun.xml").write_text(text.replace("680.00000000", f"{cutoff}.00000000"))
    found = alflow("import", "runs", "--theory", "emt", "--table", "what.csv", "--json").json()
    assert (found["taken"], found["already_known"], len(found["refused"])) == (2, 2, 2)
    assert found["settings"] == [
        {"setting": "cutoff", "value": "680 eV", "labels": 4, "kept": True},
        {"setting": "cutoff", "value": "400 eV", "labels": 2, "kept": False},
    ]
    rows = rows_of("what.csv")
    assert [row["outcome"] for row in rows] == ["refused"] * 2 + ["taken"] * 2 + ["known already"] * 2
    assert rows[0]["detail"] == "cutoff 400 eV, most have 680 eV"
    assert rows[2]["origin"] == "runs/b/vasprun.xml, step 1"
    assert alflow("import", "runs/a", "--theory", "emt", "--json").json()["settings"] == []


def test_stopped_in_the_middle_it_leaves_whole_labels(
    alflow: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_deepmd(Path("data"), [alloy(i) for i in range(4)])
    before, original, calls = len(imported(campaign)), _people._import, []

    def stop_late(*arguments: Any) -> Any:
        result = original(*arguments)
        calls.append(result)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(_people, "_import", stop_late)
        alflow("import", "data", "--theory", "emt", "--table", "what.csv", code=130)
    assert not list(Path().glob("*what.csv*"))
    assert len(imported(campaign)) == before + 2
    found = alflow("import", "data", "--theory", "emt", "--table", "what.csv", "--json").json()
    assert (found["taken"], found["already_known"]) == (2, 2)


def test_doubtful_labels_are_asked_about(alflow: Run, campaign: Campaign) -> None:
    frames = []
    for number in range(1, 7):
        atoms = alloy(number)
        energy = atoms.get_potential_energy() - 3.0 * len(atoms) * (number % 2)  # every other one of another code
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        frames.append(atoms)
    write("mixed.extxyz", frames, format="extxyz")
    error = " ".join(alflow("import", "mixed.extxyz", "--theory", "emt").stderr.split())
    assert "are all of one theory, of the whole cell, and in eV?" in error
    assert "no label has forces" in error


def test_one_impossible_frame_keeps_no_other_out(alflow: Run, campaign: Campaign) -> None:
    frames = []
    for number in (1, 2, 3):
        atoms = alloy(number)
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy())
        frames.append(atoms)
    frames[1].positions[1] = frames[1].positions[0]
    frames[1].calc = SinglePointCalculator(frames[1], energy=-1.0)
    write("three.extxyz", frames, format="extxyz")
    found = alflow("import", "three.extxyz", "--theory", "emt", "--json").json()
    assert (found["taken"], len(found["refused"])) == (2, 1)
    assert "three.extxyz, frame 1" in found["refused"][0]


def test_what_is_refused_at_once(alflow: Run, campaign: Campaign) -> None:
    Path("notes.txt").touch()
    Path("empty").mkdir()
    Path("known.csv").touch()
    before = len(imported(campaign))
    cases: list[tuple[list[object], str]] = [
        (["notes.txt"], "labels are read from"),
        (["gone"], "no such file or folder"),
        (["empty"], "neither runs of VASP"),
        ([campaign.file], "name at least one file"),
        (["empty", "--table", "known.csv"], "exists already"),
        (["empty", "--table", "no/such.csv"], "create it first"),
    ]
    for arguments, told in cases:
        error = alflow("import", *arguments, "--theory", "emt", code=1).stderr
        assert told in error.replace("\n", " ")
    assert len(imported(campaign)) == before


def test_a_theory_goes_by_the_beginning_of_its_fingerprint(alflow: Run, campaign: Campaign) -> None:
    write_deepmd(Path("data"), [alloy(1)])
    [theory] = alflow("theory", "ls", "--json").json()
    assert alflow("import", "data", "--theory", theory["fingerprint"][:12], "--json").json()["taken"] == 1
    error = alflow("import", "data", "--theory", "nothing-like-it", code=1).stderr
    assert "`alflow theory ls` shows all of them" in " ".join(error.split())


def test_nothing_usable_is_an_error_that_names_the_first(alflow: Run, campaign: Campaign) -> None:
    write_deepmd(Path("data"), [alloy(1)])
    Path("data/type_map.raw").unlink()
    found = alflow("import", "data", "--theory", "emt", "--table", "what.csv", code=1)
    assert "no type_map.raw" in found.stderr
    assert rows_of("what.csv")[0]["outcome"] == "refused"
