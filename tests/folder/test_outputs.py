"""What is kept of a calculation that is over: nothing that a reader needs is lost, and it is found again."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from alflow.folder.outputs import PRUNED, archive_of, bytes_in, compress, find_outputs, prune


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Inputs, text outputs, small and large binary files, bulk of which some is text."""
    run = tmp_path / "job-7" / "attempt-1" / "run-1"
    run.mkdir(parents=True)
    (run.parent / "input.json").write_text("{}")
    (run / "INCAR").write_text("ENCUT = 500\n")
    (run / "OUTCAR").write_text("energy\n" * 300_000)  # 2 MB of text
    (run / "CHGCAR").write_text("0.1 0.2\n" * 10)
    (run / "WAVECAR").write_bytes(bytes(5000))
    (run / "small.bin").write_bytes(bytes(5000))
    (run / "large.bin").write_bytes(bytes(2_000_000))
    (run / "link").symlink_to(run / "OUTCAR")
    return run.parent


def names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


def test_pruning_leaves_inputs_and_texts_and_says_what_is_gone(directory: Path) -> None:
    before = names(directory)
    assert prune(directory, above_mb=1.0) == {
        "run-1/CHGCAR": 80,
        "run-1/WAVECAR": 5000,
        "run-1/large.bin": 2_000_000,
    }
    gone = {"run-1/CHGCAR", "run-1/WAVECAR", "run-1/large.bin"}
    assert names(directory) == (before - gone) | {PRUNED}
    assert set(json.loads((directory / PRUNED).read_text())["removed"]) == gone
    assert prune(directory, above_mb=1.0) == {}
    assert prune(directory, above_mb=0.001) == {"run-1/small.bin": 5000}
    assert set(json.loads((directory / PRUNED).read_text())["removed"]) == gone | {"run-1/small.bin"}
    assert bytes_in(directory) > 2_000_000, "text is kept, however large"


def test_compressing_keeps_every_file_and_is_found(directory: Path, tmp_path: Path) -> None:
    before = {name: (directory / name).read_bytes() for name in names(directory) if not name.endswith("link")}
    size = bytes_in(directory)
    archive = compress(directory)
    assert not directory.exists()
    assert archive == archive_of(directory) == find_outputs(str(directory))
    assert [path.name for path in archive.parent.iterdir()] == ["attempt-1.tar.gz"]
    assert archive.stat().st_size < size / 100
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "again", filter="tar")
    again = tmp_path / "again" / "attempt-1"
    assert {name: (again / name).read_bytes() for name in before} == before


def test_a_directory_stays_where_it_cannot_be_compressed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = names(directory)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alflow.folder.outputs.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        compress(directory)
    assert names(directory) == before
    assert [path.name for path in directory.parent.iterdir()] == ["attempt-1"]
    assert find_outputs(directory) == directory


def test_what_is_gone_is_not_found(tmp_path: Path) -> None:
    assert find_outputs(tmp_path / "job-1" / "attempt-1") is None
