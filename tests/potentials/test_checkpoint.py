"""Committees on disk."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from alflow.errors import CheckpointError
from alflow.potentials import (
    Calibration,
    Committee,
    KindCalibration,
    NativeCommittee,
    Targets,
    load_committee,
)


def test_round_trip_is_exact(committee: NativeCommittee, labelled: list[Atoms], tmp_path: Path) -> None:
    kind = KindCalibration(a=1.5, c=0.01, shape=0.5, q90=None, n_fit=3, n_conformal=0)
    judged = committee.with_calibration(Calibration(energy=kind)).with_targets(Targets(energy=0.1))
    path = tmp_path / "committee.pt"
    judged.save(path)
    read = load_committee(path)
    assert isinstance(read, Committee)
    assert isinstance(read, NativeCommittee)
    assert (read.targets, read.calibration, read.elements) == (judged.targets, judged.calibration, judged.elements)
    assert (read.seed, read.spec, read.r_max) == (judged.seed, judged.spec, judged.r_max)
    one, other = read.predict(labelled, features=True), judged.predict(labelled, features=True)
    np.testing.assert_array_equal(one.energy, other.energy)
    np.testing.assert_array_equal(one.stress, other.stress)
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.u, other.u)
    assert list(tmp_path.iterdir()) == [path]


def test_missing_and_damaged_files_are_named(committee: NativeCommittee, tmp_path: Path) -> None:
    path = tmp_path / "committee.pt"
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_committee(path)
    committee.save(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a checkpoint", whole[:100] + b"\0" * 500 + whole[600:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"committee\.pt") as caught:
            load_committee(path)
        assert "weights_only" not in str(caught.value)


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


def test_nothing_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "committee.pt"
    torch.save({"format": "alflow committee", "version": 1, "spec": Exploit()}, path)
    with pytest.raises(CheckpointError):
        load_committee(path)
    path.write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(CheckpointError):
        load_committee(path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", 99, "version 99"),
        ("format", "something else", "holds no"),
        ("weights", torch.zeros(2, 3), "shape"),
        ("numbers", [28], "shape"),
        ("references", [1.0, float("nan")], "reference"),
        ("spec", "{}x", "damaged"),
        ("constants", {}, "damaged"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    committee: NativeCommittee, tmp_path: Path, key: str, value: object, message: str
) -> None:
    path = tmp_path / "committee.pt"
    committee.save(path)
    content = torch.load(path, weights_only=True)
    content[key] = value
    del content["sha256"]  # as another alflow may have written it
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        load_committee(path)


def test_files_of_version_1_predict_the_same(committee: NativeCommittee, labelled: list[Atoms], tmp_path: Path) -> None:
    """Their angular functions were not damped by 1 / (l + 1), so their weights were smaller by as much."""
    path = tmp_path / "committee.pt"
    committee.save(path)
    content = torch.load(path, weights_only=True)
    layout = committee.core.network.layout
    views = layout.views(content["weights"])
    for degree in range(committee.spec.l_max + 1):
        views["density"][:, degree] /= degree + 1
        views["message"][:, :, degree] /= degree + 1
    del content["sha256"], content["familiar"]
    torch.save({**content, "version": 1}, path)
    read = load_committee(path)
    np.testing.assert_allclose(read.predict(labelled).energy, committee.predict(labelled).energy, rtol=1e-12)
    assert read.predict(labelled).distance is None
