"""The blocks of docs/labelers.md run, and say what is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ase import Atoms
from ase.build import bulk, molecule

from alflow.errors import FailureKind
from alflow.labelers import WorkerConfig, check_labeler, get_labeler, labeler_names
from alflow.labelers import _conformance as conformance
from alflow.structures import Structure

TEXT = (Path(__file__).parents[2] / "docs" / "labelers.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
YAML = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Names after all blocks ran, and what they printed under ``printed``."""
    names: dict[str, Any] = {}
    for block in PYTHON:
        exec(block, names)
    return names | {"printed": capsys.readouterr().out}


def test_the_python_blocks_run(ran: dict[str, Any]) -> None:
    assert "analytic potential" in ran["printed"]
    assert "None ase 3." in ran["printed"]
    assert "('input.json', 'outcome.json')" in ran["printed"]


def test_the_labeler_of_the_page_keeps_its_promises(ran: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    labeler = ran["SpringLabeler"](ran["SpringSettings"](stiffness=2.0))
    # It is not installed, so the check cannot find it by its name.
    monkeypatch.setattr(
        conformance, "get_labeler", lambda _, settings, worker: ran["SpringLabeler"](ran["SpringSettings"](**settings))
    )
    atoms = molecule("H2O")
    atoms.rattle(0.1)
    check_labeler(labeler, [Structure.from_atoms(atoms), Structure.from_atoms(bulk("Cu"))])


def test_the_worker_file_of_the_page_works() -> None:
    worker = WorkerConfig.model_validate(yaml.safe_load(YAML[0]))
    name = yaml.safe_load(YAML[1])["theory"]["name"]
    labeler = get_labeler("ase", {"calculator": name}, worker=worker)
    atoms = Atoms(
        "Ar4", cell=[4, 4, 4], pbc=True, scaled_positions=[[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    )
    atoms.rattle(0.1)
    check_labeler(labeler, [Structure.from_atoms(atoms)], worker=worker)


def test_every_labeler_and_every_cause_is_on_the_page() -> None:
    for name in labeler_names():
        assert f"| `{name}` |" in TEXT
    elsewhere = {FailureKind.WORKER_DIED, FailureKind.CANCELLED}  # causes that the queue gives
    for kind in set(FailureKind) - elsewhere:
        assert f"`{kind}`" in TEXT, kind


def test_the_templates_of_the_page_are_valid(tmp_path: Path) -> None:
    [file] = [block for block in YAML if "templates:" in block]
    content = yaml.safe_load(file)
    content["templates"]["springs"]["folder"] = str(tmp_path)
    (tmp_path / "input.txt").write_text("read {{ structure }}, write {{ result }}\n")
    [campaign] = [block for block in YAML if "labeler: command" in block]
    settings = yaml.safe_load(campaign)["theory"]["settings"]
    labeler = get_labeler("command", settings, worker=WorkerConfig.model_validate(content))
    assert labeler.theory().code == "springs 2.1"
