"""What is missing for a labeler on this machine, and what it says to a small crystal."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from typing import Any

import pytest

from alflow.labelers import (
    CalculatorSettings,
    Examined,
    ProgramSettings,
    TheorySpec,
    WorkerConfig,
    examine_labeler,
)
from alflow.labelers._gpaw import GpawLabeler


def examine(name: str, settings: dict[str, Any] | None = None, **options: Any) -> dict[str, Examined]:
    given = {"worker": WorkerConfig(), "directory": Path(), **options}
    return {found.what: found for found in examine_labeler(name, settings or {}, **given)}


def test_all_is_well() -> None:
    found = examine("emt", elements=("Ni", "Pt"))
    assert {what: item.ok for what, item in found.items()} == {"labeler": True, "computes": True, "trial": True}
    assert "3 periodic directions" in found["computes"].text
    assert found["trial"].text.startswith("NiPt in ")
    assert "eV/atom; analytic potential" in found["trial"].text
    assert "trial" not in examine("emt", run=False)


def test_elements_that_it_does_not_know() -> None:
    found = examine("emt", elements=("Fe", "Pt"))
    assert found["elements"].ok is False
    assert "nothing for Fe" in found["elements"].text
    assert found["trial"].text.startswith("Pt2 in ")


def test_no_such_labeler() -> None:
    found = examine("emtt")
    assert list(found) == ["labeler"]
    assert "did you mean 'emt'" in found["labeler"].text


def test_a_program_that_nobody_described() -> None:
    found = examine("vasp", worker=WorkerConfig(programs={"vasp-6": ProgramSettings(command=("vasp_std",))}))
    assert found["program"].ok is False
    assert "no entry 'vasp' under `programs` (it has vasp-6)" in found["program"].text
    assert found["labeler"].ok is False


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    program = ProgramSettings(command=("no-such-program", "-x"), potentials=tmp_path / "none", version="6.4.2")
    found = examine("vasp", worker=WorkerConfig(programs={"vasp": program}))
    assert "no-such-program is not on this machine: correct `programs: vasp: command`" in found["program"].text
    assert "does not exist: correct `programs: vasp: potentials`" in found["potentials"].text
    there = examine("vasp", worker=WorkerConfig(programs={"vasp": ProgramSettings(command=(sys.executable, "-x"))}))
    assert (there["program"].ok, there["program"].text) == (True, f"{sys.executable} -x")


def test_variables_in_the_folder_of_potentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = ProgramSettings(command=(sys.executable,), potentials=Path("${SOME_POTENTIALS}"), version="6.4.2")
    worker = WorkerConfig(programs={"vasp": program})
    monkeypatch.delenv("SOME_POTENTIALS", raising=False)
    missing = examine("vasp", worker=worker)["potentials"]
    assert missing.ok is False
    assert "the environment variable SOME_POTENTIALS is not set" in missing.text
    monkeypatch.setenv("SOME_POTENTIALS", str(tmp_path))
    found = examine("vasp", worker=worker)["potentials"]
    assert (found.ok, found.text) == (True, str(tmp_path))


def test_a_program_that_needs_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.machinery.ModuleSpec("gpaw", None)
    monkeypatch.setattr("alflow.labelers._gpaw.importlib.util.find_spec", lambda _: spec)
    monkeypatch.setattr(GpawLabeler, "theory", lambda _: TheorySpec(labeler="gpaw", settings={}, code="gpaw 26.7"))
    found = examine("gpaw", {"setups": {"Al": "paw"}}, run=False)
    assert (found["program"].ok, found["program"].text) == (True, sys.executable)
    assert found["labeler"].ok is True


def test_a_calculation_that_fails(tmp_path: Path) -> None:
    worker = WorkerConfig(
        labelers={
            "broken": CalculatorSettings(calculator="tests.loop.calculators.Broken", convergence="analytic"),
            "plain": CalculatorSettings(calculator="ase.calculators.emt.EMT", periodic_directions=(0,)),
        }
    )
    found = examine("ase", {"calculator": "broken"}, worker=worker, elements=("Cu",))
    assert found["trial"].ok is False
    assert "the code is not installed properly" in found["trial"].text
    refused = examine("ase", {"calculator": "plain"}, worker=worker, elements=("Cu",))["trial"]
    assert refused.ok is None
    assert "--structure" in refused.text


def test_files_are_listed_with_their_hashes(tmp_path: Path) -> None:
    file = tmp_path / "potential.txt"
    file.write_text("0.5\n")
    entry = CalculatorSettings(
        calculator="tests.loop.calculators.FromFile",
        arguments={"potential": str(file)},
        files={"potential": file},
        convergence="analytic",
    )
    found = examine("ase", {"calculator": "pot"}, worker=WorkerConfig(labelers={"pot": entry}), elements=("Cu",))
    assert found["files"].text.startswith("potential ")
    assert found["trial"].ok is True
