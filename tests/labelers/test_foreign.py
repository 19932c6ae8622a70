"""Labels of other programs' files: every number in alflow's units and signs, and a reason for each that is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from alflow.errors import UserError
from alflow.labelers import (
    ForeignFrame,
    ForeignKind,
    ForeignSettings,
    find_foreign,
    one_theory,
    read_vasp_run,
)
from alflow.structures import LabelledStructure, Properties, Structure
from tests.labelers.foreign_files import alloy, examples_at, frames_at, only, write_deepmd

# -- trees of folders ----------------------------------------------------------------------------------------------


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
