"""``alflow dedup``: the same groups as in memory, and nothing lost."""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from alflow.structures import DuplicatePolicy, LabelledStructure, find_duplicates
from tests.cli.dedup_files import frames, labelled, mixed, rattled, table, texts
from tests.disguises import disguise, jiggled

if TYPE_CHECKING:
    from tests.cli.conftest import Run


def partition(names: Sequence[Any]) -> set[frozenset[int]]:
    """Groups as sets of indices."""
    return {frozenset(i for i, other in enumerate(names) if other == name) for name in names}


# -- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relation", ["identical", "redundant", "same-phase"])
def test_groups_are_those_of_the_search_in_memory(alflow: Run, relation: str) -> None:
    structures = mixed()
    write("all.extxyz", structures)
    found = alflow("dedup", "all.extxyz", "--relation", relation, "--json").json()
    policy = getattr(DuplicatePolicy, relation.replace("-", "_"))()
    expected = find_duplicates([*frames("all.extxyz")], policy)
    assert partition([row["group"] for row in table()]) == partition(expected.tolist())
    assert (found["read"], found["unique"]) == (len(structures), expected.max() + 1)
    assert found["duplicates"] == found["read"] - found["unique"]
    assert found["policy"]["relation"] == relation.replace("-", "_")
    assert 1 < found["unique"] < found["read"], "a test of groups needs some"


def test_neither_the_order_nor_the_division_into_files_matters(alflow: Run) -> None:
    structures = mixed(4)
    write("all.extxyz", structures)
    alflow("dedup", "all.extxyz", "-o", "one.extxyz")
    groups = partition([row["group"] for row in table("one.csv")])
    turned = list(reversed(structures))
    write("b.extxyz", turned[:7])
    write("a.extxyz", turned[7:])
    alflow("dedup", "b.extxyz", "a.extxyz", "-o", "two.extxyz")
    there = partition([row["group"] for row in reversed(table("two.csv"))])
    assert there == groups
    assert sorted(map(str, texts("one.extxyz"))) == sorted(map(str, texts("two.extxyz")))


def test_every_format_is_compared_with_every_other(alflow: Run) -> None:
    copper = bulk("Cu", "fcc", a=3.6)
    write("POSCAR", copper * (1, 2, 1))
    write("cell.cif", bulk("Cu", "fcc", a=3.6, cubic=True))
    write("rows.db", [labelled(copper * (1, 1, 3), -3.0), bulk("Cu", "hcp", a=2.55)])
    write("frames.extxyz.gz", copper)
    alflow("dedup", "POSCAR", "cell.cif", "rows.db", "frames.extxyz.gz")
    rows = table()
    assert [row["file"] for row in rows] == ["POSCAR", "cell.cif", "rows.db", "rows.db", "frames.extxyz.gz"]
    assert [row["group"] for row in rows] == ["0", "0", "0", "1", "0"]
    assert rows[0]["duplicate_of"] == "rows.db#0"
    first, second = frames("unique.extxyz")
    assert LabelledStructure.from_atoms(first).properties.energy == -3.0
    assert [len(first), len(second)] == [3, 2]


def test_tolerances_can_be_set(alflow: Run) -> None:
    parent = rattled()
    write("all.extxyz", [parent, jiggled(parent, np.random.default_rng(0), 0.04)])
    counts = [
        alflow("dedup", "all.extxyz", "--force", "--json", *options).json()["unique"]
        for options in ([], ["--displacement", 0.05], ["--displacement", 0.03], ["-r", "same-phase"])
    ]
    assert counts == [2, 1, 2, 1]
    write("all.extxyz", [bulk("Cu", a=3.6), bulk("Cu", a=3.615), bulk("Cu", a=4.0)])
    counts = [
        alflow("dedup", "all.extxyz", "--force", "--json", *options).json()["unique"]
        for options in ([], ["--strain", 0.005], ["-r", "same-phase"], ["-r", "same-phase", "--any-volume"])
    ]
    assert counts == [3, 2, 2, 1]


def test_mirror_images_can_be_kept(alflow: Run) -> None:
    hand = rattled()
    other = hand.copy()
    other.set_cell(-hand.cell.array)
    other.positions = -hand.positions
    write("all.extxyz", [hand, other])
    assert alflow("dedup", "all.extxyz", "--json").json()["unique"] == 1
    assert {row["mirrored"] for row in table()} == {"", "yes"}
    again = alflow("dedup", "all.extxyz", "--force", "--keep-mirror-images")
    assert "mirror images apart" in again.stdout
    assert len(texts("unique.extxyz")) == 2


# -- what is written -------------------------------------------------------------------------------------------------


def test_kept_frames_are_those_of_the_input_to_the_letter(alflow: Run) -> None:
    structures = mixed(4)
    for number, atoms in enumerate(structures):
        atoms.info.update(note=f"frame {number}", weight=0.1 * number)
        atoms.arrays["tags_of_mine"] = np.arange(len(atoms))
    write("all.extxyz", structures)
    Path("all.extxyz").write_text(Path("all.extxyz").read_text().rstrip("\n"), encoding="utf-8")  # no last line break
    alflow("dedup", "all.extxyz", "--output", "kept.xyz.gz")
    rows, given = table("kept.csv"), texts("all.extxyz")
    kept = [number for number, row in enumerate(rows) if not row["duplicate_of"]]
    assert gzip.decompress(Path("kept.xyz.gz").read_bytes()).decode() == "".join(str(given[k]) for k in kept)
    assert [int(rows[k]["group"]) for k in kept] == list(range(len(kept))), "a group has the number of its frame"
    for row in rows:
        if row["duplicate_of"]:
            file, leader = row["duplicate_of"].split("#")
            assert file == "all.extxyz"
            assert rows[int(leader)]["group"] == row["group"]
            assert not rows[int(leader)]["duplicate_of"]


def test_the_table_says_how_far_a_duplicate_is(alflow: Run) -> None:
    parent = rattled(seed=3)
    doubled = parent * (2, 1, 1)
    one_off = parent.copy()
    one_off.positions[2] += [0.0, 0.006, 0.0]
    write("all.extxyz", [parent, doubled, one_off, parent])
    found = alflow("dedup", "all.extxyz", "--json").json()
    rows = {row["frame"]: row for row in table()}
    leader = next(row for row in rows.values() if not row["duplicate_of"])
    assert rows["1"]["copies"] == "2"
    other = rows["2"] if leader is not rows["2"] else rows["0"]
    # one atom of four moved by 0.006 Å; the best translation takes a part of it
    assert 0.003 < float(other["displacement"]) < 0.006
    assert float(other["rms"]) == pytest.approx(0.006 * np.sqrt(3) / 4, rel=1e-3)
    assert float(other["strain"]) < 1e-6
    assert found["exact_copies"] == (1 if leader is not rows["2"] else 0)
    assert (leader["displacement"], leader["rms"], leader["mirrored"], leader["copies"]) == ("", "", "", "")


def test_labelled_structures_are_kept_before_unlabelled_ones(alflow: Run) -> None:
    """A label is never dropped for a structure without one, even where that one has the smaller cell."""
    rng = np.random.default_rng(5)
    parents = [rattled(seed=k) for k in range(4)]
    larger = [disguise(parent * (2, 1, 1), rng) for parent in parents]
    named = parents[0].copy()
    named.info["REF_energy"] = -10.1
    write("bare.extxyz", parents)
    write("labels.extxyz", [*(labelled(atoms, -2.5 * len(atoms)) for atoms in larger), named])
    outcome = alflow("dedup", "bare.extxyz", "labels.extxyz", "--json").json()
    assert (outcome["labelled"], outcome["labelled_duplicates"], outcome["unique"]) == (5, 1, 4)
    examples = [LabelledStructure.from_atoms(atoms) for atoms in frames("unique.extxyz")]
    per_atom = [example.properties.energy / example.structure.n_atoms for example in examples]
    assert sorted(per_atom) == pytest.approx([-2.525, -2.5, -2.5, -2.5])
    assert outcome["largest_energy_difference"] == pytest.approx(0.025)
    assert outcome["largest_energy_difference_at"] == "labels.extxyz#4"
    alflow("dedup", "labels.extxyz", "bare.extxyz", "-o", "other.extxyz")
    assert sorted(map(str, texts("other.extxyz"))) == sorted(map(str, texts("unique.extxyz")))


def test_the_summary_for_people(alflow: Run) -> None:
    write("all.extxyz", [*mixed(3), labelled(rattled(seed=9), -4.0), labelled(rattled(seed=9), -4.1)])
    outcome = alflow("dedup", "all.extxyz")
    assert outcome.stdout.startswith("redundant: any atom 0.015 Å, strain 0.002\n")
    for words in ("read", "unique: kept", "duplicates", "of equal content", "with a label", "most duplicates", "Cu3Ni"):
        assert words in outcome.stdout
    assert "25 meV/atom, in the group of all.extxyz#" in outcome.stdout
    assert "also in" not in outcome.stdout
    for step in ("read", "group", "write"):
        assert f"  {step} " in outcome.stderr
    assert alflow("dedup", "all.extxyz", "--force", "--quiet").stderr == ""


def test_what_two_files_have_in_common(alflow: Run) -> None:
    """A test set that repeats the training set shows."""
    rng = np.random.default_rng(2)
    training = [rattled(seed=k) for k in range(5)]
    write("training.extxyz", [*training, training[4]])
    write("test.extxyz", [disguise(training[0], rng), rattled(seed=7), rattled(seed=8), disguise(training[1], rng)])
    outcome = alflow("dedup", "training.extxyz", "test.extxyz")
    assert "also in" in outcome.stdout
    found = alflow("dedup", "training.extxyz", "test.extxyz", "--force", "--json").json()["files"]
    assert [(row["file"], row["structures"], row["shared"]) for row in found] == [
        ("training.extxyz", 6, 2),
        ("test.extxyz", 4, 2),
    ]
    assert sum(row["kept"] for row in found) == 7


def test_the_example_of_the_documentation(alflow: Run) -> None:
    """The page shows what the command prints and writes."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "deduplication.md").read_text(encoding="utf-8")
    (program,) = (text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "mine.extxyz" in text)
    (command,) = re.findall(r"```sh\nalflow (.*?)\n```", page)
    printed, written = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    exec(program, {"bulk": bulk})
    assert alflow(*command.split()).stdout == printed
    assert Path("unique.csv").read_text(encoding="utf-8") == written


# -- wrong input -----------------------------------------------------------------------------------------------------


def test_nothing_is_written_over(alflow: Run) -> None:
    write("all.extxyz", rattled())
    Path("unique.csv").write_text("mine")
    assert "unique.csv exists already; --force writes over it" in alflow("dedup", "all.extxyz", code=1).stderr
    assert Path("unique.csv").read_text() == "mine"
    assert not list(Path().glob("*.work"))
    alflow("dedup", "all.extxyz", "--force")
    assert table()[0]["formula"] == "Cu4"
    assert "unique.extxyz exists already" in alflow("dedup", "all.extxyz", code=1).stderr
    alflow("dedup", "all.extxyz", "-o", "other.xyz", "-t", "groups.csv")
    assert Path("groups.csv").exists()
    assert not Path("other.csv").exists()


def test_names_are_checked_before_the_work_begins(alflow: Run) -> None:
    write("all.extxyz", rattled())
    Path("notes.txt").write_text("nothing")
    for arguments, words in (
        (["all.extxyz", "-o", "all.extxyz"], "all.extxyz is input and output"),
        (["all.extxyz", "-o", "out.cif"], "structures are written as extended XYZ"),
        (["all.extxyz", "-o", "no/out.xyz"], "the folder no does not exist"),
        (["all.extxyz", "-o", "out.xyz", "-t", "out.xyz"], "wanted for two outputs"),
        (["all.extxyz", "absent.extxyz"], "absent.extxyz: no such file"),
        (["all.extxyz", "notes.txt"], "structures are read from"),
    ):
        assert words in alflow("dedup", *arguments, code=1).stderr
    assert sorted(path.name for path in Path().iterdir()) == ["all.extxyz", "notes.txt"]


@pytest.mark.parametrize(
    "options",
    [
        ["--relation", "alike"],
        ["--relation", "identical", "--displacement", "0.1"],
        ["--relation", "same-phase", "--strain", "0.01"],
        ["--any-volume"],
        ["--displacement", "3"],
        ["--cross-check", "--keep-mirror-images"],
        [],
    ],
)
def test_wrong_usage(alflow: Run, options: list[str]) -> None:
    write("all.extxyz", rattled())
    alflow("dedup", *(["all.extxyz", *options] if options else []), code=2)
    assert not Path("unique.extxyz.work").exists()


def test_a_file_named_twice_is_read_once(alflow: Run) -> None:
    write("all.extxyz", rattled())
    assert alflow("dedup", "all.extxyz", "./all.extxyz", "--json").json()["read"] == 1


def damaged(path: str, n: int = 4, bad: int = 1) -> None:
    """Some frames of which one holds a letter where a number belongs."""
    found = []
    for number in range(n):
        write("frame.extxyz", rattled(seed=number))
        text = Path("frame.extxyz").read_text()
        found.append(text.replace("Cu       0", "Cu       x", 1) if number == bad else text)
        assert number != bad or found[-1] != text
    Path("frame.extxyz").unlink()
    Path(path).write_text("".join(found))


def test_bad_frames(alflow: Run) -> None:
    damaged("all.extxyz")
    failed = alflow("dedup", "all.extxyz", code=1)
    assert "error: all.extxyz, frame 1: cannot be read" in failed.stderr
    assert "--skip-bad leaves such frames out" in failed.stderr
    assert not Path("unique.extxyz").exists()
    outcome = alflow("dedup", "all.extxyz", "--skip-bad", "--json")
    assert "1 of them by an earlier run" in outcome.stderr
    found = outcome.json()
    assert (found["read"], found["unreadable"], found["unique"]) == (3, 1, 3)
    rows = table()
    assert [row["frame"] for row in rows] == ["0", "1", "2", "3"]
    assert [bool(row["error"]) for row in rows] == [False, True, False, False]
    assert "cannot be read" in rows[1]["error"]
    assert rows[1]["group"] == ""
    assert len(texts("unique.extxyz")) == 3


def test_frames_that_an_earlier_run_left_out_are_not_left_out_in_silence(alflow: Run) -> None:
    damaged("all.extxyz")
    alflow("dedup", "all.extxyz", "--skip-bad", "--keep-work")
    failed = alflow("dedup", "all.extxyz", "--force", code=1)
    assert "error: all.extxyz, frame 1: cannot be read" in failed.stderr
    assert "--skip-bad leaves such frames out" in failed.stderr
    alflow("dedup", "all.extxyz", "--force", "--skip-bad")


def test_a_truncated_file(alflow: Run) -> None:
    write("all.extxyz", [rattled(seed=k) for k in range(3)])
    text = Path("all.extxyz").read_text()
    Path("all.extxyz").write_text(text[: text.rindex("Lattice")])
    assert "all.extxyz, frame 2: the file ends within the frame" in alflow("dedup", "all.extxyz", code=1).stderr
    outcome = alflow("dedup", "all.extxyz", "--skip-bad")
    assert "unreadable: left out" in outcome.stdout
    assert "nothing behind it can be read" in table()[-1]["error"]
    assert len(texts("unique.extxyz")) == 2


def test_a_file_without_a_good_frame(alflow: Run) -> None:
    damaged("all.extxyz", n=1, bad=0)
    failed = alflow("dedup", "all.extxyz", "--skip-bad", code=1)
    assert "none of the files holds a structure that can be read" in failed.stderr
