"""The labeler espresso, with a stand-in that answers with recorded outputs of pw.x."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from alflow.config import CampaignConfig
from alflow.errors import ConfigError, FailureKind, LabelFailure, TheoryError
from alflow.labelers import EspressoLabeler, WorkerConfig, get_labeler, labeler_for_theory
from alflow.structures import Structure
from tests.labelers.test_pw_output import NICKEL, RECORDED, SILICON
from tests.labelers.test_upf import VERSION_2

STAND_IN = """
import hashlib, re, shutil, sys
from pathlib import Path

recorded, name, mood = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
text = (recorded / f"{name}.out").read_text()
banner = text.splitlines()[0]
if mood == "silent":
    sys.exit()
if "-in" not in sys.argv:
    print(banner)
    sys.exit(1)
sums = iter([hashlib.md5(path.read_bytes()).hexdigest() for path in sorted(Path("pseudo").iterdir())] * 2)
text = re.sub("sum: [0-9a-f]+", lambda _: "sum: " + next(sums), text)
xml = (recorded / f"{name}.xml").read_text()
patient = "cg" in Path("pw.in").read_text()
error = "     Error in routine {} (1):\\n     {}\\n"
if mood == "unconverged" or (mood == "stubborn" and not patient):
    text = text.replace("convergence has been achieved in", "convergence NOT achieved after")
    print(text)
    sys.exit("STOP 2")
if mood in {"lost", "overlap", "memory"}:
    print(banner)
    print(error.format(*{
        "lost": ("readpp", "file ./pseudo/Si.UPF not found"),
        "overlap": ("check_atoms", "atoms #   1 and #   2 overlap!"),
        "memory": ("allocate_fft", "cannot allocate memory"),
    }[mood]))
    sys.exit(1)
if mood == "cut":
    text = text[: text.index("!")]
if mood == "energy":
    text = text.replace("-15.65210736", "-15.65210436")
if mood == "other file":
    text = re.sub("sum: [0-9a-f]+", "sum: " + 32 * "0", text)
if mood == "moved":
    xml = xml.replace('index="1">1.889726', 'index="1">1.989726')
if mood == "doubtful":
    xml = xml.replace("<convergence_achieved>true", "<convergence_achieved>false")
if mood == "inaccurate":
    xml = re.sub("<scf_error>.*?<", "<scf_error>1.0e-5<", xml)
if mood == "rough":
    text = re.sub("SCF correction =.*", "SCF correction =     0.001000", text)
print(text)
if mood != "no numbers":
    Path("out/pwscf.xml").write_text(xml)
Path("out/pwscf.save").mkdir()
Path("out/pwscf.save/wfc1.dat").write_bytes(bytes(1000))
if mood == "slow":
    __import__("time").sleep(60)
sys.exit(3 if mood == "bad exit" else 0)
"""
POTENTIALS = {
    "Si": ("Si", "NC", "SLA PZ NOGX NOGC", 4),
    "Ni": ("Ni", "US", " SLA  PW   PBE  PBE", 10),
    "O": ("O", "PAW", "PBE", 6),
    "Al": ("Al", "NC", "SLA-PW-PSX-PSC", 3),
}
PHYSICS: dict[str, Any] = {"pseudopotentials": {"Si": "Si.UPF"}, "ecutwfc": 35, "k_spacing": 1.2}
NI_PHYSICS: dict[str, Any] = {"pseudopotentials": {"Ni": "Ni.UPF", "O": "O.UPF"}, "ecutwfc": 35, "k_spacing": 1.3}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a stand-in and pseudopotentials, which are heads only."""
    (tmp_path / "pw.py").write_text(STAND_IN)
    (tmp_path / "potentials").mkdir()
    for name, (element, kind, functional, valence) in POTENTIALS.items():
        text = VERSION_2.format(element=element, kind=kind, functional=functional, valence=valence)
        (tmp_path / "potentials" / f"{name}.UPF").write_text(text)
    return tmp_path


def worker(place: Path, mood: str = "good", name: str = "si", **more: Any) -> WorkerConfig:
    entry = {"command": [sys.executable, str(place / "pw.py"), str(RECORDED), name, mood], "free_disk_gb": 0}
    return WorkerConfig.model_validate({"programs": {"espresso": entry | {"potentials": place / "potentials"} | more}})


def made(place: Path, mood: str = "good", name: str = "si", physics: Any = None, **more: Any) -> EspressoLabeler:
    labeler = get_labeler("espresso", PHYSICS | (physics or {}), worker=worker(place, mood, name, **more))
    assert isinstance(labeler, EspressoLabeler)
    return labeler


def nickel(place: Path, mood: str = "good", **physics: Any) -> EspressoLabeler:
    return made(place, mood, "ni", NI_PHYSICS | {"spin": "collinear"} | physics)


def test_a_label_with_its_evidence(place: Path) -> None:
    result = made(place, physics={"smearing": "gaussian"}).label(SILICON, place / "job")
    properties, evidence = result.properties, result.evidence
    assert properties.energy == pytest.approx(-212.957768, abs=1e-6)
    assert properties.energy_extrapolated == pytest.approx(properties.energy - evidence["smearing_energy"] / 2)
    assert properties.moments is None
    assert evidence["converged"] is True
    assert "achieved in 9 iterations" in evidence["convergence"]
    assert (evidence["version"], evidence["k_mesh"], evidence["nspin"]) == ("6.7MaX", [2, 2, 2], 1)
    assert (evidence["smearing"], evidence["degauss_ry"], evidence["charge"]) == ("gaussian", 0.01, 0.0)
    assert evidence["conv_thr_ry"] == 2e-9
    assert result.warnings == ("free and extrapolated energy differ by 7.4 meV/atom, above 2: reduce the smearing",)
    json.dumps(dict(evidence), allow_nan=False)


def test_what_is_large_or_known_does_not_stay(place: Path) -> None:
    files = made(place).label(SILICON, place / "job").files
    assert {"run-1/pw.in", "run-1/pw.out", "run-1/out/pwscf.xml"} <= set(files)
    assert not [file for file in files if file.endswith((".dat", ".UPF"))]
    assert made(place).parse(place / "job").properties.energy == pytest.approx(-212.957768, abs=1e-6)


@pytest.mark.parametrize("mood", ["unconverged", "overlap", "cut"])
def test_what_is_large_or_known_does_not_stay_of_failures_either(place: Path, mood: str) -> None:
    with pytest.raises(LabelFailure):
        made(place, mood).label(SILICON, place / "job")
    left = [path.name for path in (place / "job").rglob("*") if path.is_file()]
    assert "pw.in" in left
    assert not [name for name in left if name.endswith((".dat", ".UPF"))]


def test_moments_start_and_come_back(place: Path) -> None:
    result = nickel(place).label(NICKEL, place / "job")
    assert result.properties.moments is not None
    assert result.properties.moments.tolist() == [0.8643, 0.8642]
    assert result.properties.total_moment == pytest.approx(1.5579, abs=1e-4)
    assert result.evidence["nspin"] == 2
    assert result.evidence["starting_moments"] == [2.0, 1.0]
    text = (place / "job" / "run-1" / "pw.in").read_text()
    assert "starting_magnetization(1) = 0.2\n" in text
    assert "starting_magnetization(2) = 0.1\n" in text
    assert "\nNi1 58.6934 Ni.UPF\n" in text


@pytest.mark.parametrize(
    ("mood", "kind", "words"),
    [
        ("unconverged", FailureKind.NOT_CONVERGED, "convergence NOT achieved after"),
        ("doubtful", FailureKind.NOT_CONVERGED, "achieved in 9 iterations"),
        ("inaccurate", FailureKind.NOT_CONVERGED, r"accuracy 2\.0e-05 Ry, wanted 2\.0e-09"),
        ("lost", FailureKind.MISSING_FILE, r"readpp: file \./pseudo/Si\.UPF not found"),
        ("overlap", FailureKind.CRASHED, r"check_atoms: atoms #   1 and #   2 overlap!"),
        ("memory", FailureKind.MEMORY, "cannot allocate memory"),
        ("cut", FailureKind.TRUNCATED, "ends before convergence"),
        ("no numbers", FailureKind.TRUNCATED, r"wrote no out/pwscf\.xml"),
        ("bad exit", FailureKind.CRASHED, "exit code 3"),
        ("energy", FailureKind.INCONSISTENT, r"printed an energy of -15\.65210436 Ry but wrote -15\.65210736"),
        ("other file", FailureKind.INCONSISTENT, "none of the theory's: a file changed"),
        ("moved", FailureKind.INCONSISTENT, "the geometry changed"),
    ],
)
def test_every_end_is_recognised_as_what_it_is(place: Path, mood: str, kind: FailureKind, words: str) -> None:
    with pytest.raises(LabelFailure, match=words) as caught:
        made(place, mood).label(SILICON, place / "job")
    assert caught.value.kind is kind
    climbed = 3 if kind is FailureKind.NOT_CONVERGED else 1
    assert len(list((place / "job").glob("run-*"))) == climbed


def test_a_run_that_is_ended_leaves_nothing_large(place: Path) -> None:
    with pytest.raises(LabelFailure) as caught:
        made(place, "slow", wall_seconds=3).label(SILICON, place / "job")
    assert caught.value.kind is FailureKind.WALL_TIME
    out = place / "job" / "run-1" / "out"
    assert (out / "pwscf.save").is_dir(), "it had begun to write"
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["pwscf.xml"]


def test_patience_is_tried_before_giving_up(place: Path) -> None:
    result = made(place, "stubborn").label(SILICON, place / "job")
    assert (result.evidence["rung"], result.evidence["runs"]) == (2, 3)
    first, last = ((place / "job" / f"run-{n}" / "pw.in").read_text() for n in (1, 3))
    physics = (
        "ecutwfc",
        "ecutrho",
        "smearing",
        "degauss",
        "occupations",
        "conv_thr",
        "tot_charge",
        "scf_must_converge",
    )
    for name in physics:
        assert [x for x in first.splitlines() if name in x] == [x for x in last.splitlines() if name in x] != []
    assert first[first.index("ATOMIC_SPECIES") :] == last[last.index("ATOMIC_SPECIES") :]


def test_forces_of_a_rough_density_carry_a_warning(place: Path) -> None:
    warnings = made(place, "rough").label(SILICON).warnings
    assert [w for w in warnings if "an error of 0.026 eV/Å in the forces: lower conv_thr" in w]


def test_a_cutoff_below_the_suggestion_carries_a_warning(place: Path) -> None:
    assert not made(place).label(SILICON).warnings
    warnings = made(place, physics={"ecutwfc": 20}).label(SILICON).warnings
    assert warnings == ("ecutwfc: 20 Ry is below the 35 Ry that Si.UPF suggests",)


def test_the_cutoff_of_elements_that_are_not_there_is_no_matter(place: Path) -> None:
    hard = VERSION_2.replace("3.5e1", "9e1").format(element="Al", kind="NC", functional="SLA PZ NOGX NOGC", valence=3)
    (place / "potentials" / "Al.UPF").write_text(hard)
    both = {"pseudopotentials": {"Si": "Si.UPF", "Al": "Al.UPF"}}
    assert not made(place, physics=both).label(SILICON).warnings


# -- theory ----------------------------------------------------------------------------------------------------------


def test_the_theory_is_resolved_and_makes_the_same_labeler(place: Path) -> None:
    spec = made(place).theory()
    assert spec.code == "quantum-espresso 6.7"
    assert spec.settings["ecutrho"] == 140.0
    again = labeler_for_theory(
        "espresso", json.loads(json.dumps(spec.settings)), spec.fingerprint, worker=worker(place)
    )
    assert again.theory() == spec
    assert nickel(place).theory().settings["ecutrho"] == 280.0


def test_the_content_of_potentials_counts_and_not_their_name(place: Path) -> None:
    spec = made(place).theory()
    folder = place / "potentials"
    (folder / "Other.UPF").write_bytes((folder / "Si.UPF").read_bytes())
    renamed = made(place, physics={"pseudopotentials": {"Si": "Other.UPF"}}).theory()
    assert renamed.fingerprint == spec.fingerprint
    (folder / "Si.UPF").write_text((folder / "Si.UPF").read_text() + "\n")
    assert made(place).theory().fingerprint != spec.fingerprint
    with pytest.raises(TheoryError, match="labels of two theories never mix"):
        labeler_for_theory("espresso", spec.settings, spec.fingerprint, worker=worker(place))


@pytest.mark.parametrize(
    "change",
    [
        {"ecutwfc": 40},
        {"ecutrho": 200},
        {"k_spacing": 1.0},
        {"smearing": "gaussian"},
        {"degauss": 0.02},
        {"occupations": "fixed"},
        {"spin": "collinear"},
        {"charge": "background"},
        {"input_dft": "pbesol"},
        {"conv_thr": 1e-8},
    ],
    ids=str,
)
def test_physics_changes_the_fingerprint(place: Path, change: dict[str, Any]) -> None:
    assert made(place, physics=change).theory().fingerprint != made(place).theory().fingerprint


def test_place_command_and_patch_version_do_not_change_the_fingerprint(place: Path) -> None:
    spec = made(place, version="7.3.1").theory()
    assert made(place, version="7.3.2").theory().fingerprint == spec.fingerprint
    assert made(place, version="7.4").theory().fingerprint != spec.fingerprint
    other = WorkerConfig.model_validate(
        {"programs": {"pw": {"command": ["mpirun", "pw.x"], "version": "7.3", "potentials": place / "potentials"}}}
    )
    assert get_labeler("espresso", PHYSICS | {"program": "pw"}, worker=other).theory().fingerprint == spec.fingerprint


def test_another_version_than_declared_gives_no_label(place: Path) -> None:
    assert made(place, version="6.7").label(SILICON).evidence["version"] == "6.7MaX"
    for version in ("7.3", "6.7.1"):
        with pytest.raises(LabelFailure, match=rf"pw\.x 6\.7MaX ran, but .* is version {version}") as caught:
            made(place, version=version).label(SILICON)
        assert caught.value.kind is FailureKind.INCONSISTENT


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("physics", "more", "words"),
    [
        ({}, {"potentials": None}, "has no `potentials`"),
        ({"pseudopotentials": {"Si": "Gone.UPF"}}, {}, r"Gone\.UPF cannot be read .No such file"),
        ({"pseudopotentials": {"Al": "Si.UPF"}}, {}, r"Si\.UPF is for Si, not for Al"),
        (
            {"pseudopotentials": {"Ni": "Ni.UPF", "Al": "Al.UPF"}},
            {},
            r"different functionals, SLA PW PSX PSC .Al\.UPF. and SLA PW PBX PBC .Ni\.UPF.",
        ),
        ({"pseudopotentials": {"Si": "../Si.UPF"}}, {}, "pseudopotentials"),
        ({"pseudopotentials": {}}, {}, "pseudopotentials"),
        ({"pseudopotentials": {"Sx": "Si.UPF"}}, {}, "no element 'Sx'"),
        ({"program": "espreso"}, {}, "no program 'espreso': did you mean 'espresso'"),
        ({"spin": "collinear", "occupations": "fixed"}, {}, "needs occupations: smearing"),
        ({"ecutrho": 100}, {}, "at least 4 ecutwfc, 140 Ry"),
        ({"input_dft": "pbe0"}, {}, "input_dft"),
        ({"ecutwf": 30}, {}, "ecutwfc"),
        ({}, {"command": ["no-such-pw.x"]}, "cannot be started to learn its version"),
        ({}, {"version": "seven"}, "version 'seven' is not one of"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(
    place: Path, physics: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        made(place, physics=physics, **more).theory()


def test_a_program_without_banner_is_not_pw(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not print the banner of pw\.x"):
        made(place, "silent").theory()


def test_a_potential_that_changes_later_is_another_theory(place: Path) -> None:
    labeler = made(place)
    labeler.theory()
    file = place / "potentials" / "Si.UPF"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(LabelFailure, match=r"Si\.UPF was changed since it was read") as caught:
        labeler.label(SILICON)
    assert caught.value.kind is FailureKind.INCONSISTENT


def test_a_potential_that_vanishes_later(place: Path) -> None:
    labeler = made(place)
    (place / "potentials" / "Si.UPF").unlink()
    with pytest.raises(LabelFailure, match=r"Si\.UPF is gone: restore it") as caught:
        labeler.label(SILICON)
    assert caught.value.kind is FailureKind.MISSING_FILE


def many_moments() -> Structure:
    atoms = bulk("Ni", cubic=True) * (3, 1, 1)
    atoms.set_initial_magnetic_moments(np.linspace(0.1, 1.2, 12))
    return Structure.from_atoms(atoms)


@pytest.mark.parametrize(
    ("atoms", "physics", "words"),
    [
        (bulk("Cu"), {}, "no parameters for Cu"),
        (molecule("O2"), {}, "0 periodic directions; it handles 3"),
        (Atoms("O2", cell=[9, 9, 9], pbc=True, magmoms=[1, 1]), {"spin": "none"}, "magnetic moments, which it would"),
        (Atoms("O", cell=[9, 9, 9], pbc=True, magmoms=[[0, 0, 1]]), {}, "non-collinear"),
        (Atoms("O", cell=[9, 9, 9], pbc=True, info={"charge": 1}), {}, "a charge of \\+1"),
        (Atoms("O", cell=[9, 9, 9], pbc=True, info={"charge": 7}), {"spin": "none", "charge": "background"}, "-1 val"),
        (Atoms("NiO", cell=[9, 9, 9], pbc=True), {"starting_moments": {"Ni": 1}}, "no starting moment for O"),
        (Atoms("O", cell=[9, 9, 9], pbc=True, magmoms=[7]), {}, "7 µB on O, which has 6 valence"),
        (many_moments(), {}, "12 different pairs of element and moment; pw.x takes 10"),
        (molecule("O2"), {"vacuum": 8}, r"0\.0 Å of vacuum along cell vector 1"),
        (fcc111("Ni", (1, 1, 2), vacuum=3.0), {"vacuum": 8, "spin": "none"}, r"6\.0 Å of vacuum along cell vector 3"),
        (
            Atoms("Ni2", positions=[[0, 0, 1], [0, 0, 17]], cell=[4, 4, 20], pbc=[True, True, False]),
            {"vacuum": 8, "spin": "none"},
            r"4\.0 Å of vacuum along cell vector 3",
        ),
        (
            Atoms("O", cell=[9, 9, 9], pbc=True, info={"charge": 1}),
            {"spin": "none", "charge": "background", "occupations": "fixed"},
            "5 valence electrons, which occupations: fixed cannot pair",
        ),
    ],
)
def test_structures_that_cannot_be_computed_are_refused(
    place: Path, atoms: Atoms | Structure, physics: dict[str, Any], words: str
) -> None:
    structure = atoms if isinstance(atoms, Structure) else Structure.from_atoms(atoms)
    labeler = nickel(place, **physics)
    with pytest.raises(LabelFailure, match=words) as caught:
        labeler.label(structure, place / "job")
    assert caught.value.kind is FailureKind.REFUSED
    assert not (place / "job").exists()


def test_elements_without_moments_are_computed_unpolarised(place: Path) -> None:
    labeler = nickel(place, starting_moments={"Ni": 0.0, "O": 0.0})
    labeler.prepare(Structure.from_atoms(Atoms("NiO", cell=[4, 4, 4], pbc=True)), place / "job")
    text = (place / "job" / "run-1" / "pw.in").read_text()
    assert "nspin" not in text
    assert "starting_magnetization" not in text


def test_charge_and_vacuum_are_computed_where_the_settings_say_so(place: Path) -> None:
    labeler = nickel(place, charge="background", vacuum=5)
    atoms = molecule("O2")
    atoms.center(vacuum=3.0)
    atoms.info["charge"] = -1
    labeler.prepare(Structure.from_atoms(atoms), place / "job")
    text = (place / "job" / "run-1" / "pw.in").read_text()
    assert "tot_charge = -1\n" in text
    assert "K_POINTS gamma\n" in text
    assert "tstress = .false.\n" in text


@pytest.mark.parametrize(
    ("smearing", "share"),
    [("gaussian", 2), ("fermi-dirac", 2), ("methfessel-paxton", None), ("marzari-vanderbilt", None)],
)
def test_the_extrapolated_energy_depends_on_the_smearing(place: Path, smearing: str, share: int | None) -> None:
    result = made(place, physics={"smearing": smearing}).label(SILICON)
    free, entropy = result.properties.energy, result.evidence["smearing_energy"]
    assert entropy < 0
    expected = None if share is None else pytest.approx(free - entropy / share)
    assert result.properties.energy_extrapolated == expected


def test_the_files_of_the_page_are_valid(place: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "labelers.md").read_text(encoding="utf-8")
    section = page[page.index("## `espresso`") :]
    local, campaign = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)[:2])
    theory = CampaignConfig.model_validate(campaign).theory
    assert theory.labeler == "espresso"
    (place / "potentials" / "Si.pz-vbc.UPF").write_bytes((place / "potentials" / "Si.UPF").read_bytes())
    local["programs"]["espresso"]["potentials"] = place / "potentials"
    labeler = get_labeler("espresso", theory.settings, worker=WorkerConfig.model_validate(local))
    assert labeler.theory().code == "quantum-espresso 6.7"
