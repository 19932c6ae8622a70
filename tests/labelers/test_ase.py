from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from alflow.errors import ConfigError, FailureKind, LabelFailure, TheoryError
from alflow.labelers import CalculatorSettings, Labeler, WorkerConfig, check_labeler, get_labeler, labeler_for_theory
from alflow.structures import Structure


def worker(calculator: str, **entry: Any) -> WorkerConfig:
    return WorkerConfig(labelers={"test": CalculatorSettings(calculator=calculator, **entry)})


def make(calculator: str, **entry: Any) -> Labeler:
    return get_labeler("ase", {"calculator": "test"}, worker=worker(calculator, **entry))


def test_emt_through_ase_equals_emt(alloy: Structure) -> None:
    ours, direct = make("ase.calculators.emt.EMT").label(alloy), get_labeler("emt").label(alloy)
    assert ours.properties.energy == direct.properties.energy
    assert ours.evidence["convergence"] == "analytic potential, nothing to converge"


def test_it_keeps_the_promises_of_a_labeler(alloy: Structure, water: Structure) -> None:
    local = worker("ase.calculators.emt.EMT", elements=["Ni", "Pt", "H", "O"])
    check_labeler(get_labeler("ase", {"calculator": "test"}, worker=local), [alloy, water], worker=local)


@pytest.mark.parametrize(
    ("mood", "kind"),
    [
        ("scf", FailureKind.NOT_CONVERGED),
        ("kohn-sham", FailureKind.NOT_CONVERGED),
        ("unconverged", FailureKind.NOT_CONVERGED),
        ("unsure", FailureKind.NOT_CONVERGED),
        ("disk", FailureKind.DISK_FULL),
        ("memory", FailureKind.MEMORY),
        ("file", FailureKind.MISSING_FILE),
        ("time", FailureKind.WALL_TIME),
        ("eof", FailureKind.TRUNCATED),
        ("import", FailureKind.UNAVAILABLE),
        ("property", FailureKind.REFUSED),
        ("bug", FailureKind.CRASHED),
        ("nan", FailureKind.IMPLAUSIBLE),
        ("net", FailureKind.IMPLAUSIBLE),
        ("huge", FailureKind.IMPLAUSIBLE),
        ("relaxes", FailureKind.INCONSISTENT),
        ("no-stress", FailureKind.INCONSISTENT),
    ],
)
def test_every_way_to_fail_has_its_cause(moody: str, alloy: Structure, mood: str, kind: FailureKind) -> None:
    with pytest.raises(LabelFailure) as caught:
        make(moody, arguments={"mood": mood}).label(alloy)
    assert caught.value.kind is kind


def test_silence_about_convergence_says_what_to_write(moody: str, alloy: Structure) -> None:
    with pytest.raises(LabelFailure, match="set `convergence` to the attribute"):
        make(moody, arguments={"mood": "unsure"}).label(alloy)
    result = make(moody, arguments={"mood": "unsure"}, convergence="analytic").label(alloy)
    assert result.evidence == {"converged": True, "convergence": "declared analytic in the worker's file"}


def test_a_stress_of_a_molecule_is_refused(moody: str, water: Structure) -> None:
    with pytest.raises(LabelFailure, match="vacuum"):
        make(moody, arguments={"mood": "vacuum-stress"}).label(water)


def test_free_energy_is_the_label_and_the_other_is_kept(moody: str, alloy: Structure) -> None:
    result = make(moody, arguments={"entropy": 0.003}).label(alloy)
    assert result.properties.energy == pytest.approx(-4.012)
    assert result.properties.energy_extrapolated == pytest.approx(-4.0)
    assert "reduce the smearing" in result.warnings[0]


def test_the_traceback_stays_with_the_files(moody: str, alloy: Structure, tmp_path: Path) -> None:
    with pytest.raises(LabelFailure, match="ZeroDivisionError: oops"):
        make(moody, arguments={"mood": "bug"}).label(alloy, tmp_path / "job")
    assert "ZeroDivisionError" in (tmp_path / "job" / "traceback.txt").read_text()


@pytest.mark.parametrize(("reuse", "more"), [(True, 0), (False, 2)])
def test_reuse_keeps_one_calculator(moody: str, alloy: Structure, reuse: bool, more: int) -> None:
    labeler = make(moody, reuse=reuse)
    labeler.label(alloy)
    kind = importlib.import_module(moody.rpartition(".")[0]).Moody
    made = kind.made
    labeler.label(alloy)
    labeler.label(alloy)
    assert kind.made == made + more


def test_moments_do_not_matter_to_analytic_potentials_and_are_refused_by_others(moody: str, alloy: Structure) -> None:
    atoms = alloy.to_atoms()
    atoms.set_initial_magnetic_moments([1.0] * 4)
    make("ase.calculators.emt.EMT").label(atoms)
    with pytest.raises(LabelFailure, match="initial magnetic moments, which it would ignore"):
        make(moody).label(atoms)


# -- the theory --------------------------------------------------------------------------------------------------------


def test_defaults_of_the_class_are_resolved(moody: str) -> None:
    arguments = make(moody).theory().settings["arguments"]
    assert arguments == {"stiffness": 1.0, "mood": "fine", "file": None, "entropy": 0.0}


def test_a_default_written_out_is_the_same_theory(moody: str) -> None:
    assert make(moody).theory().fingerprint == make(moody, arguments={"stiffness": 1.0}).theory().fingerprint
    assert make(moody).theory().fingerprint != make(moody, arguments={"stiffness": 2.0}).theory().fingerprint


def test_the_name_of_the_entry_is_not_physics(moody: str) -> None:
    entry = CalculatorSettings(calculator=moody)
    local = WorkerConfig(labelers={"one": entry, "two": entry})
    one, two = (get_labeler("ase", {"calculator": name}, worker=local).theory() for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint


def test_arguments_that_are_not_physics_stay_out(moody: str) -> None:
    assert (
        make(moody, not_physics=["stiffness"]).theory().fingerprint
        == make(moody, arguments={"stiffness": 5.0}, not_physics=["stiffness"]).theory().fingerprint
    )


def test_files_count_by_content(moody: str, tmp_path: Path) -> None:
    a, b = tmp_path / "a.UPF", tmp_path / "b.UPF"
    a.write_text("pseudo")
    b.write_text("pseudo")

    def fingerprint(path: Path) -> str:
        return make(moody, arguments={"file": str(path)}, files={"Ni": path}).theory().fingerprint

    assert fingerprint(a) == fingerprint(b)
    before = fingerprint(a)
    a.write_text("another")
    assert fingerprint(a) != before
    with pytest.raises(ConfigError, match=r"c\.UPF \(Ni\) does not exist"):
        fingerprint(tmp_path / "c.UPF")


def test_a_recorded_theory_must_agree_with_the_local_file(moody: str) -> None:
    spec = make(moody).theory()
    again = labeler_for_theory("ase", spec.settings, spec.fingerprint, worker=worker(moody))
    assert again.theory() == spec
    with pytest.raises(TheoryError, match="differs from the recorded theory in stiffness"):
        labeler_for_theory("ase", spec.settings, spec.fingerprint, worker=worker(moody, arguments={"stiffness": 3.0}))
    with pytest.raises(TheoryError, match=r"is ase\.calculators\.emt\.EMT, but"):
        labeler_for_theory("ase", spec.settings, spec.fingerprint, worker=worker("ase.calculators.emt.EMT"))
    with pytest.raises(TheoryError, match="code version"):
        labeler_for_theory("ase", spec.settings, spec.fingerprint, worker=worker(moody, code="moody 2.0"))


def test_a_ledger_cannot_choose_what_runs(moody: str, alloy: Structure) -> None:
    recorded = {"calculator": "test", "import_path": "os.system", "arguments": {"command": "touch /tmp/owned"}}
    with pytest.raises(TheoryError):
        get_labeler("ase", recorded, worker=worker(moody))
    with pytest.raises(ConfigError):
        get_labeler("ase", recorded)


# -- the worker's file -------------------------------------------------------------------------------------------------


def test_an_unknown_entry_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="there is no calculator 'tset': did you mean 'test'"):
        get_labeler("ase", {"calculator": "tset"}, worker=worker("ase.calculators.emt.EMT"))
    with pytest.raises(ConfigError, match=r"describe it under `labelers` in alflow-worker\.yaml"):
        get_labeler("ase", {"calculator": "test"})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no.such.Package", "cannot be imported"),
        ("ase.calculators.emt.Emt", "has no 'Emt'"),
        ("ase.calculators.emt.beta", "is not a class or function"),
    ],
)
def test_a_wrong_import_path_is_a_sentence(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(path).theory()


def test_wrong_arguments_are_a_sentence(moody: str) -> None:
    with pytest.raises(ConfigError, match="calculator 'test' of the worker's file cannot be made: TypeError"):
        make("ase.calculators.singlepoint.SinglePointCalculator").theory()


def test_the_environment_is_filled_in_and_no_shell_runs(moody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFLOW_TEST_MOOD", "fine")
    arguments = {"mood": "${ALFLOW_TEST_MOOD}", "file": "$(touch owned) `id` $HOME"}
    resolved = make(moody, arguments=arguments).theory().settings["arguments"]
    assert resolved["mood"] == "fine"
    assert resolved["file"] == "$(touch owned) `id` $HOME"
    monkeypatch.delenv("ALFLOW_TEST_MOOD")
    with pytest.raises(ConfigError, match="environment variable ALFLOW_TEST_MOOD is not set"):
        make(moody, arguments=arguments).theory()
