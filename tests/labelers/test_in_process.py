from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers import CalculatorSettings, Moments, RunState, WorkerConfig, get_labeler
from alflow.structures import Structure


def test_each_step_works_on_the_directory_alone(alloy: Structure, tmp_path: Path) -> None:
    directory = tmp_path / "job"
    get_labeler("emt").prepare(alloy, directory)
    handle = get_labeler("emt").submit(directory)
    assert get_labeler("emt").poll(handle) is RunState.FINISHED
    result = get_labeler("emt").parse(directory)
    direct = get_labeler("emt").label(alloy)
    assert result.structure.content_hash == alloy.content_hash
    assert result.properties.energy == direct.properties.energy
    np.testing.assert_array_equal(result.properties.forces, direct.properties.forces)
    np.testing.assert_array_equal(result.properties.stress, direct.properties.stress)
    assert result.files == ("input.json", "outcome.json")
    assert result.seconds > 0


def test_an_outcome_is_not_computed_twice(alloy: Structure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labeler = get_labeler("emt")
    first = labeler.label(alloy, tmp_path)
    monkeypatch.setattr(type(labeler), "compute", lambda *_: pytest.fail("computed again"))
    assert labeler.label(alloy, tmp_path).properties.energy == first.properties.energy


def test_a_failure_is_recorded_and_may_be_tried_again(moody: str, alloy: Structure, tmp_path: Path) -> None:
    local = WorkerConfig(labelers={"t": CalculatorSettings(calculator=moody, not_physics=("mood",))})
    bad = WorkerConfig(
        labelers={"t": CalculatorSettings(calculator=moody, not_physics=("mood",), arguments={"mood": "scf"})}
    )
    failing = get_labeler("ase", {"calculator": "t"}, worker=bad)
    failing.prepare(alloy, tmp_path)
    failing.submit(tmp_path)
    for _ in range(2):
        with pytest.raises(LabelFailure) as caught:
            failing.parse(tmp_path)
        assert caught.value.kind is FailureKind.NOT_CONVERGED
    result = get_labeler("ase", {"calculator": "t"}, worker=local).label(alloy, tmp_path)
    assert "failure.json" not in result.files


def test_a_directory_of_another_calculation_is_refused(alloy: Structure, water: Structure, tmp_path: Path) -> None:
    get_labeler("emt").label(alloy, tmp_path)
    for labeler, structure in ((get_labeler("emt"), water), (get_labeler("emt", {"asap_cutoff": True}), alloy)):
        with pytest.raises(LabelFailure, match="holds another calculation") as caught:
            labeler.label(structure, tmp_path)
        assert caught.value.kind is FailureKind.INCONSISTENT
    with pytest.raises(LabelFailure, match="prepared for another theory"):
        get_labeler("emt", {"asap_cutoff": True}).parse(tmp_path)


@pytest.mark.parametrize("name", ["input.json", "outcome.json"])
def test_half_a_file_is_truncated_and_no_file_is_missing(alloy: Structure, tmp_path: Path, name: str) -> None:
    labeler = get_labeler("emt")
    labeler.label(alloy, tmp_path)
    text = (tmp_path / name).read_text()
    for damaged in (text[: len(text) // 2], "[]", '{"version": 1}', ""):
        (tmp_path / name).write_text(damaged)
        with pytest.raises(LabelFailure) as caught:
            labeler.parse(tmp_path)
        assert caught.value.kind is FailureKind.TRUNCATED
    (tmp_path / name).unlink()
    with pytest.raises(LabelFailure) as caught:
        labeler.parse(tmp_path)
    assert caught.value.kind is FailureKind.MISSING_FILE


def test_the_gates_judge_what_is_read_and_not_only_what_was_computed(alloy: Structure, tmp_path: Path) -> None:
    labeler = get_labeler("emt")
    labeler.label(alloy, tmp_path)
    path = tmp_path / "outcome.json"
    content = json.loads(path.read_text())
    content["properties"]["forces"][0][0] += 1.0
    path.write_text(json.dumps(content))
    with pytest.raises(LabelFailure, match="net force"):
        labeler.parse(tmp_path)


def test_charge_and_moments_survive_the_record(tmp_path: Path, moody: str, alloy: Structure) -> None:
    charged = Structure(
        cell=alloy.cell,
        pbc=alloy.pbc,
        numbers=alloy.numbers,
        positions=alloy.positions,
        charge=1.0,
        moments=np.tile([0, 0, 1.0], (4, 1)),
    )
    entry = CalculatorSettings(calculator=moody, charge=True, moments=Moments.NONCOLLINEAR)
    labeler = get_labeler("ase", {"calculator": "t"}, worker=WorkerConfig(labelers={"t": entry}))
    assert labeler.label(charged, tmp_path).structure == charged
