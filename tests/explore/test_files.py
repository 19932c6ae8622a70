from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from alflow.errors import ConfigError, StructureError
from alflow.explore import ExploreContext, FilesSettings, FilesSource, check_source


def context(directory: Path) -> ExploreContext:
    return ExploreContext(rng=np.random.default_rng(0), elements=("Cu", "Au"), directory=directory)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "a.extxyz", [bulk("Cu", a=a) for a in (3.5, 3.6)])
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "POSCAR_1", bulk("Au"), format="vasp")
    write(tmp_path / "more" / "POSCAR_2", bulk("Al"), format="vasp")
    return tmp_path


def test_files_and_patterns_in_order(folder: Path) -> None:
    settings = FilesSettings(paths=("a.extxyz", "more/POSCAR_*", "a.*"), deliberate=True)
    proposals = check_source(FilesSource(settings), context(folder))
    assert [(p.parameters["file"], p.parameters["frame"]) for p in proposals] == [
        ("a.extxyz", 0),
        ("a.extxyz", 1),
        ("more/POSCAR_1", 0),
        ("more/POSCAR_2", 0),
    ]
    assert all(p.deliberate for p in proposals)
    assert [p.rejected for p in proposals] == [None, None, None, "holds Al, which the campaign does not"]


def test_a_path_may_be_absolute(folder: Path) -> None:
    settings = FilesSettings(paths=(str(folder / "a.extxyz"),))
    assert len(list(FilesSource(settings).propose(context(folder / "more")))) == 2


def test_nothing_found_and_too_much_found_are_errors(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"'b.\*' names no file below"):
        list(FilesSource(FilesSettings(paths=("b.*",))).propose(context(folder)))
    with pytest.raises(StructureError, match=r"a.extxyz: more than 1 structures"):
        list(FilesSource(FilesSettings(paths=("a.extxyz",), max_structures=1)).propose(context(folder)))
