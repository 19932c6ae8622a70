from __future__ import annotations

from pathlib import Path

import pytest

from alflow.errors import ConfigError
from alflow.labelers import WorkerConfig, load_worker_config

TEXT = """\
lease_seconds: 30
labelers:
  lj:
    calculator: ase.calculators.lj.LennardJones
    arguments: {sigma: 2.3, epsilon: 1e-1}
"""


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any configuration, in an empty folder."""
    home = tmp_path / "home"
    here = tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.chdir(here)
    return home


def test_without_a_file_there_are_defaults() -> None:
    assert load_worker_config() == WorkerConfig()


def test_a_named_file(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(TEXT)
    config = load_worker_config(tmp_path / "w.yaml")
    assert config.lease_seconds == 30
    assert config.labelers["lj"].arguments == {"sigma": 2.3, "epsilon": 0.1}
    with pytest.raises(ConfigError, match="does not exist"):
        load_worker_config(tmp_path / "x.yaml")


def test_the_order_of_the_search(tmp_path: Path, nobody: Path) -> None:
    campaign = tmp_path / "campaign"
    campaign.mkdir()
    (nobody / "alflow").mkdir()
    (nobody / "alflow" / "worker.yaml").write_text("batch: 7")
    assert load_worker_config(directory=campaign).batch == 7
    Path("alflow-worker.yaml").write_text("batch: 8")
    assert load_worker_config(directory=campaign).batch == 8
    (campaign / "alflow-worker.yaml").write_text("batch: 9")
    assert load_worker_config(directory=campaign).batch == 9


def test_a_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(TEXT.replace("arguments", "argument"))
    with pytest.raises(ConfigError, match=r"w\.yaml:5:5: labelers\.lj\.argument: .*did you mean `arguments`"):
        load_worker_config(tmp_path / "w.yaml")


@pytest.mark.parametrize("path", ["EMT", "os; rm", "a.b()", "a..b"])
def test_an_import_path_is_a_dotted_name(tmp_path: Path, path: str) -> None:
    (tmp_path / "w.yaml").write_text(f"labelers:\n  x:\n    calculator: '{path}'\n")
    with pytest.raises(ConfigError, match=r"labelers\.x\.calculator"):
        load_worker_config(tmp_path / "w.yaml")


@pytest.mark.parametrize(
    ("text", "labelled", "failed"),
    [
        ("batch: 2", "keep", "keep"),
        ("keep_files: true", "keep", "keep"),
        ("keep_files: false", "remove", "keep"),
        ("outputs: compress", "compress", "compress"),
        ("outputs: remove", "remove", "prune"),
        ("outputs: {labelled: prune}", "prune", "keep"),
    ],
)
def test_what_is_kept_of_calculations(tmp_path: Path, text: str, labelled: str, failed: str) -> None:
    (tmp_path / "w.yaml").write_text(text)
    outputs = load_worker_config(tmp_path / "w.yaml").outputs
    assert (outputs.labelled, outputs.failed) == (labelled, failed)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("keep_files: perhaps", "neither true nor false"),
        ("keep_files: true\noutputs: keep", "say the same thing"),
        ("outputs: squash", "'squash' is not known; valid: keep, prune, compress, remove"),
        ("outputs: {failed: remove}", r"w\.yaml:1:11: outputs\.failed"),
    ],
)
def test_what_cannot_be_said_of_outputs(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_worker_config(tmp_path / "w.yaml")


def test_slots_name_labelers_that_exist(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("slots: {vasp: 4}\n")
    assert load_worker_config(tmp_path / "w.yaml").slots == {"vasp": 4}
    (tmp_path / "w.yaml").write_text("slots:\n  vsap: 4\n")
    with pytest.raises(ConfigError, match=r"w\.yaml:1:1: slots: .*there is no labeler 'vsap': did you mean 'vasp'"):
        load_worker_config(tmp_path / "w.yaml")
    (tmp_path / "w.yaml").write_text("slots: {vasp: 0}\n")
    with pytest.raises(ConfigError, match=r"slots\.vasp"):
        load_worker_config(tmp_path / "w.yaml")


def test_relative_paths_start_from_the_file(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "alflow-worker.yaml").write_text(
        "scratch: jobs\n"
        "programs:\n"
        "  gpaw: {command: [gpaw/bin/python, -m, gpaw/x], potentials: ./setups}\n"
        "  espresso: {command: [pw.x], potentials: $PSEUDO/sssp}\n"
        "  vasp: {command: [/opt/vasp], potentials: ~/potcars}\n"
        "  siesta: {command: [siesta]}\n"
        "templates:\n"
        "  siesta: {code: siesta, folder: template, structure: {file: x.vasp, format: vasp},"
        " result: {file: out.xyz, format: extxyz}, converged: {file: out.txt, must: done}}\n"
    )
    found = load_worker_config(Path("../there/alflow-worker.yaml"))
    assert found.scratch == there / "jobs"
    gpaw, espresso, vasp = (found.program(name) for name in ("gpaw", "espresso", "vasp"))
    assert gpaw.command == (str(there / "gpaw/bin/python"), "-m", "gpaw/x")
    assert gpaw.potentials == there / "setups"
    assert (espresso.command, espresso.potentials) == (("pw.x",), Path("$PSEUDO/sssp"))
    assert (vasp.command, vasp.potentials) == (("/opt/vasp",), Path("~/potcars"))
    assert found.templates["siesta"].folder == there / "template"
