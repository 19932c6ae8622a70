"""Any program by templates: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.units import Bohr, Rydberg
from pydantic import ValidationError

from alflow.errors import ConfigError, FailureKind, LabelFailure, TheoryError
from alflow.labelers import (
    CommandLabeler,
    CommandSettings,
    ProgramSettings,
    TemplateSettings,
    WorkerConfig,
    check_labeler,
    get_labeler,
    labeler_for_theory,
    read_vasp_run,
)
from alflow.labelers._command import read_result, write_structure
from alflow.structures import Structure

#: springs to the origin, of a stiffness that an input file says; needs nothing but Python
PROGRAM = """\
import json
import sys

stiffness = float(open("input.txt").read().split()[1])
atoms = json.load(open(sys.argv[1]))
print("springs 2.1.7")
x = atoms["positions"]
atoms["energy"] = stiffness / 2 * sum(c * c for row in x for c in row)
atoms["forces"] = [[-stiffness * c for c in row] for row in x]
del atoms["pbc"], atoms["charge"]
json.dump(atoms, open("{{ result }}", "w"))
print("converged in 1 step")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of templates."""
    place = tmp_path / "templates"
    (place / "data").mkdir(parents=True)
    (place / "program.py").write_text(PROGRAM)
    (place / "input.txt").write_text("stiffness 1.5\nread {{structure}}\n")
    (place / "data" / "potential.bin").write_bytes(b"\0{{ anything }}")
    return place


def worker_of(folder: Path, program: dict[str, Any] | None = None, **changes: Any) -> WorkerConfig:
    template = {
        "code": "springs",
        "folder": folder,
        "arguments": ["program.py", "{{ structure }}"],
        "structure": {"file": "in/atoms.json", "format": "json"},
        "result": {"file": "out/result.json", "format": "json"},
        "converged": {"file": "stdout.txt", "must": r"^converged in \d+", "must_not": "^WARNING"},
        "version": {"file": "stdout.txt", "pattern": r"^springs (\S+)"},
        "stress": False,
        "net_force_limit": None,
    }
    settings = {"command": [sys.executable], "version": "2.1.4", "free_disk_gb": 0.0, **(program or {})}
    return WorkerConfig(
        programs={"springs": ProgramSettings.model_validate(settings)},
        templates={"springs": TemplateSettings.model_validate(template | changes)},
    )


def labeler_of(folder: Path, program: dict[str, Any] | None = None, **changes: Any) -> CommandLabeler:
    made = get_labeler("command", {"program": "springs"}, worker=worker_of(folder, program, **changes))
    assert isinstance(made, CommandLabeler)
    return made


def crystal() -> Structure:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=2)
    return Structure.from_atoms(atoms)


def failure_of(labeler: CommandLabeler) -> LabelFailure:
    with pytest.raises(LabelFailure) as caught:
        labeler.label(crystal())
    return caught.value


def test_it_keeps_the_promises_of_a_labeler(folder: Path) -> None:
    worker = worker_of(folder)
    check_labeler(get_labeler("command", {"program": "springs"}, worker=worker), [crystal()], worker=worker)


def test_templates_go_in_and_a_result_comes_out(folder: Path, tmp_path: Path) -> None:
    result = labeler_of(folder).label(crystal(), tmp_path / "job")
    run = tmp_path / "job" / "run-1"
    assert (run / "input.txt").read_text() == "stiffness 1.5\nread in/atoms.json\n"
    assert (run / "data" / "potential.bin").read_bytes() == b"\0{{ anything }}"
    assert result.evidence["command"] == [sys.executable, "program.py", "in/atoms.json"]
    assert result.evidence["convergence"] == "stdout.txt says: converged in 1 step"
    assert result.properties.energy == pytest.approx(0.75 * np.square(crystal().positions).sum())


def test_templates_that_change_under_a_labeler_change_nothing(folder: Path, tmp_path: Path) -> None:
    labeler = labeler_of(folder)
    theory = labeler.theory()
    (folder / "input.txt").write_text("stiffness 3.0\n")
    (folder / "data" / "potential.bin").unlink()
    labeler.label(crystal(), tmp_path / "job")
    assert (tmp_path / "job" / "run-1" / "input.txt").read_text() == "stiffness 1.5\nread in/atoms.json\n"
    assert labeler.theory() == theory


def test_the_theory_is_code_arguments_and_the_content_of_the_templates(folder: Path, tmp_path: Path) -> None:
    spec = labeler_of(folder).theory()
    assert spec.code == "springs 2.1.4"
    assert set(spec.files) == {"program.py", "input.txt", "data/potential.bin"}
    same = labeler_of(folder.rename(tmp_path / "elsewhere"), {"version": "2.1.9", "command": [sys.executable, "-B"]})
    assert same.theory().fingerprint == spec.fingerprint
    folder = tmp_path / "elsewhere"
    assert labeler_of(folder, {"version": "2.2"}).theory().fingerprint != spec.fingerprint
    assert labeler_of(folder, arguments=["program.py"]).theory().fingerprint != spec.fingerprint
    (folder / "data" / "potential.bin").write_bytes(b"\0other")
    assert labeler_of(folder).theory().fingerprint != spec.fingerprint
    with pytest.raises(TheoryError, match="never mix"):
        labeler_for_theory("command", spec.settings, spec.fingerprint, worker=worker_of(folder))
    with pytest.raises(TheoryError, match="recorded with"):
        get_labeler("command", spec.settings, worker=worker_of(folder, arguments=["program.py"]))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"converged": {"file": "stdout.txt", "must": "^done"}}, FailureKind.NOT_CONVERGED, "no line of stdout.txt"),
        (
            {"converged": {"file": "stdout.txt", "must": "converged", "must_not": "in 1 step"}},
            FailureKind.NOT_CONVERGED,
            "stdout.txt says: converged in 1 step",
        ),
        ({"converged": {"file": "log", "must": "."}}, FailureKind.TRUNCATED, "wrote no log"),
        ({"result": {"file": "input.json", "format": "json"}}, None, ""),
        ({"version": {"file": "stdout.txt", "pattern": r"release (\S+)"}}, FailureKind.INCONSISTENT, "which version"),
        (
            {"version": {"file": "stdout.txt", "pattern": r"^(\S+) in"}},
            FailureKind.INCONSISTENT,
            "correct its `version`",
        ),
        ({"result": {"file": "result.xyz", "format": "extxyz"}}, FailureKind.TRUNCATED, "cannot be read as extxyz"),
        ({"stress": True}, FailureKind.INCONSISTENT, "no stress"),
    ],
)
def test_no_label_without_evidence(
    folder: Path, changes: dict[str, Any], kind: FailureKind | None, message: str
) -> None:
    labeler = labeler_of(folder, **changes)
    if kind is None:
        assert labeler.label(crystal()).properties.forces is not None
        return
    failure = failure_of(labeler)
    assert failure.kind is kind
    assert message in failure.message


@pytest.mark.parametrize(
    ("program", "kind", "message"),
    [
        (PROGRAM.replace('x = atoms["positions"]', "sys.exit('no licence')"), FailureKind.CRASHED, "no licence"),
        (PROGRAM.replace("json.dump", "str.strip; #"), FailureKind.TRUNCATED, "wrote no result.json"),
        (PROGRAM.replace('atoms["forces"]', "forces"), FailureKind.TRUNCATED, "it has no forces"),
        (PROGRAM.replace("del ", "x[0][0] += 0.1; del "), FailureKind.INCONSISTENT, "the geometry changed"),
        (PROGRAM.replace("del ", "atoms['symbols'][0] = 'Au'; del "), FailureKind.INCONSISTENT, "computed AuCu3"),
    ],
)
def test_programs_that_go_wrong(folder: Path, program: str, kind: FailureKind, message: str) -> None:
    (folder / "program.py").write_text(program)
    failure = failure_of(labeler_of(folder))
    assert failure.kind is kind
    assert message in failure.message


def test_what_the_workers_file_may_not_say(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no program 'spring'.*did you mean 'springs'"):
        get_labeler("command", {"program": "spring"}, worker=worker_of(folder))
    with pytest.raises(ConfigError, match=r"no template 'springs'.*under `templates`"):
        get_labeler("command", {"program": "springs"}, worker=worker_of(folder).model_copy(update={"templates": {}}))
    with pytest.raises(ConfigError, match="needs `version`"):
        labeler_of(folder, {"version": None})
    with pytest.raises(ConfigError, match="takes no `potentials`"):
        labeler_of(folder, {"potentials": folder})
    with pytest.raises(ConfigError, match="does not exist"):
        labeler_of(folder / "none")
    with pytest.raises(ConfigError, match="stdin: inp is not among the templates"):
        labeler_of(folder, stdin="inp")
    with pytest.raises(ConfigError, match=r"input.txt of the templates would be written over"):
        labeler_of(folder, result={"file": "input.txt", "format": "json"})
    with pytest.raises(ConfigError, match="arguments: there is no placeholder 'energy'"):
        labeler_of(folder, arguments=["{{ energy }}"])
    (folder / "more.txt").write_text("\nuse {{ Structure }}\n")
    with pytest.raises(ConfigError, match=r"more.txt, line 2: .*did you mean 'structure'"):
        labeler_of(folder)
    (folder / "more.txt").rename(folder / "run.json")
    with pytest.raises(ConfigError, match=r"run.json of the templates would be written over"):
        labeler_of(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"structure": {"file": "../atoms.json", "format": "json"}},
        {"structure": {"file": "/etc/atoms", "format": "json"}},
        {"structure": {"file": "-o", "format": "json"}},
        {"structure": {"file": "a; rm b", "format": "json"}},
        {"result": {"file": "out.pckl", "format": "pickle"}},
        {"result": {"file": "in/atoms.json", "format": "json"}},
        {"converged": {"file": "stdout.txt", "must": "("}},
        {"version": {"file": "stdout.txt", "pattern": "version"}},
        {"structure": {"file": "POSCAR", "format": "vasp"}, "charge": True},
        {"structure": {"file": "POSCAR", "format": "vasp"}, "moments": "collinear"},
    ],
)
def test_what_no_workers_file_may_say(folder: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        worker_of(folder, **changes)


@pytest.mark.parametrize("file_format", ["extxyz", "vasp", "gen"])
def test_structures_are_written_exactly_and_in_order(tmp_path: Path, file_format: str) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.numbers[[0, 2]] = 79
    atoms.rattle(0.1, seed=3)
    atoms.set_cell(atoms.cell.array + 0.01 * np.arange(9).reshape(3, 3), scale_atoms=True)
    structure = Structure.from_atoms(atoms)
    write_structure(structure, tmp_path / "file", file_format)
    back = read(tmp_path / "file", format=file_format)
    assert back.get_chemical_symbols() == atoms.get_chemical_symbols()
    np.testing.assert_allclose(back.cell, atoms.cell, atol=1e-7)
    np.testing.assert_allclose(back.positions, atoms.positions, atol=1e-7)


def test_charge_and_moments_stand_in_json(tmp_path: Path) -> None:
    one = crystal()
    structure = Structure(
        cell=one.cell,
        pbc=one.pbc,
        numbers=one.numbers,
        positions=one.positions,
        charge=-1.0,
        moments=np.array([1.0, 0.0, -1.0, 0.5]),
    )
    write_structure(structure, tmp_path / "file", "json")
    content = json.loads((tmp_path / "file").read_text())
    assert (content["charge"], content["moments"], content["pbc"]) == (-1.0, [1.0, 0.0, -1.0, 0.5], [True] * 3)


def test_results_in_extended_xyz(tmp_path: Path) -> None:
    structure = crystal()
    atoms = structure.to_atoms()
    results = {"energy": -3.0, "free_energy": -3.5, "forces": np.ones((4, 3)), "stress": np.arange(6.0) / 100}
    frames = [atoms.copy(), atoms.copy()]
    frames[1].calc = SinglePointCalculator(frames[1], **results)
    write(tmp_path / "out.xyz", frames, format="extxyz")
    computed, properties = read_result(tmp_path / "out.xyz", "extxyz", structure)
    assert np.abs(computed.positions - structure.positions).max() < 1e-7
    assert (properties.energy, properties.energy_extrapolated) == (-3.5, -3.0)
    assert properties.stress is not None
    assert properties.stress[1, 2] == pytest.approx(0.03)


#: what pw.x prints, as far as positions, energy, forces and stress go
PW = """\
     Program PWSCF v.7.2 starts on  1Jan2024 at 12: 0: 0
     bravais-lattice index     =            0
     lattice parameter (alat)  =      10.0000  a.u.
     number of atoms/cell      =            2
     number of atomic types    =            1
     celldm(1)=  10.000000  celldm(2)=   0.000000  celldm(3)=   0.000000

     crystal axes: (cart. coord. in units of alat)
               a(1) = (   1.000000   0.000000   0.000000 )
               a(2) = (   0.000000   1.000000   0.000000 )
               a(3) = (   0.000000   0.000000   1.000000 )

   Cartesian axes

     site n.     atom                  positions (alat units)
         1           Si  tau(   1) = (   0.0000000   0.0000000   0.0000000  )
         2           Si  tau(   2) = (   0.2500000   0.2500000   0.3000000  )

     number of k points=     1
                       cart. coord. in units 2pi/alat
        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000

     End of self-consistent calculation

          k = 0.0000 0.0000 0.0000 (   113 PWs)   bands (ev):

    -5.6000   6.3000   6.3000   6.3000

     highest occupied level (ev):     6.3000

!    total energy              =     -15.50000000 Ry

     convergence has been achieved in   7 iterations

     Forces acting on atoms (cartesian axes, Ry/au):

     atom    1 type  1   force =     0.00000000    0.00000000    0.01000000
     atom    2 type  1   force =     0.00000000    0.00000000   -0.01000000

          total   stress  (Ry/bohr**3)                   (kbar)     P=      147.11
   0.00100000   0.00000000   0.00000000         147.11        0.00        0.00
   0.00000000   0.00100000   0.00000000           0.00      147.11        0.00
   0.00000000   0.00000000   0.00100000           0.00        0.00      147.11

   JOB DONE.
"""


def test_results_of_quantum_espresso(tmp_path: Path) -> None:
    (tmp_path / "pw.out").write_text(PW)
    cell = 10 * Bohr * np.eye(3)
    asked = Structure(
        cell=cell,
        pbc=np.ones(3, dtype=bool),
        numbers=np.array([14, 14]),
        positions=np.array([[0.0, 0.0, 0.0], [0.25, 0.25, 0.3]]) @ cell,
    )
    computed, properties = read_result(tmp_path / "pw.out", "espresso-out", asked)
    assert np.abs(computed.positions - asked.positions).max() < 1e-5
    assert properties.energy == pytest.approx(-15.5 * Rydberg)
    assert properties.forces is not None
    assert properties.forces[:, 2] == pytest.approx(np.array([0.01, -0.01]) * Rydberg / Bohr)
    assert properties.stress is not None
    assert properties.stress == pytest.approx(-0.001 * Rydberg / Bohr**3 * np.eye(3))


@pytest.mark.parametrize(("name", "file_format"), [("vasprun.xml.gz", "vasp-xml"), ("OUTCAR", "vasp-out")])
def test_results_of_vasp(shared_data: Path, tmp_path: Path, name: str, file_format: str) -> None:
    recorded = shared_data / "vasp" / "static_silicon"
    if not recorded.is_dir():
        pytest.skip(f"no recorded run of VASP at {recorded}")
    content = (recorded / name).read_bytes()
    file = tmp_path / name.removesuffix(".gz")
    file.write_bytes(gzip.decompress(content) if name.endswith(".gz") else content)
    step = read_vasp_run(recorded).steps[0]
    computed, properties = read_result(file, file_format, step.structure)
    assert computed.formula == step.structure.formula
    np.testing.assert_allclose(computed.positions, step.structure.positions, atol=1e-4)
    expected = step.properties
    assert properties.energy == pytest.approx(expected.energy, abs=1e-5)
    for one, other, tolerance in (
        (properties.forces, expected.forces, 1e-5),
        (properties.stress, expected.stress, 1e-4),
    ):
        assert one is not None
        assert other is not None
        assert np.abs(one - other).max() < tolerance


def test_settings_forbid_what_they_do_not_know() -> None:
    with pytest.raises(ValidationError):
        CommandSettings.model_validate({"program": "springs", "command": ["rm"]})
