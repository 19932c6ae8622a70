from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import alflow.config
from alflow.config import load_campaign
from alflow.errors import ConfigError
from alflow.labelers import get_labeler

if TYPE_CHECKING:
    from tests.config.conftest import Fail, Load


def test_the_least_file(load: Load, tmp_path: Path) -> None:
    loaded = load("")
    assert loaded.config.elements == ("Ni", "Pt")
    assert loaded.config.theory.labeler == "emt"
    assert [source.kind for source in loaded.config.sources] == ["enumerate", "relax", "dynamics"]
    assert loaded.directory == tmp_path
    assert loaded.ledger_url == f"sqlite:///{tmp_path}/campaign.db"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("elements: [Ni, Pr, Xq]", "campaign.yaml:1:20: elements[2]: there is no element 'Xq'"),
        ("elements: [ni, Pt]", "1:12: elements[0]: there is no element 'ni'; did you mean 'Ni'?"),
        ("elements: [Ni, Ni]", "1:1: elements: Ni is listed more than once: keep one"),
        ("elements: []", "1:1: elements: must not be empty"),
        ("elements: [No, false]", "elements[1]: expected text, found False"),
        ("selction: {batch: 3}", "1:1: selction: this key is not known; did you mean `selection`?"),
        ("batch: 3", "1:1: batch: this key is not known; did you mean `selection.batch`?"),
        ("selection: {batch: many}", "1:13: selection.batch: expected an integer, found 'many'"),
        ("theory: {labeller: emt}", "1:10: theory.labeller: this key is not known; did you mean `labeler`?"),
        ("theory: {labeler: etm}", "1:10: theory.labeler: there is no labeler 'etm': did you mean 'emt'?"),
        (
            "theory:\n  labeler: emt\n  settings:\n    asap_cutof: true",
            "4:5: theory.settings.asap_cutof: this key is not known; did you mean `asap_cutoff`?",
        ),
        ("theory:\n  labeler: replay", "theory.settings.path: this key is missing"),
        (
            "theory:\n  labeler: replay\n  settings: {path: no.extxyz}",
            "3:14: theory.settings.path: no.extxyz does not exist; paths start from the folder of the campaign file",
        ),
        (
            "sources:\n  - kind: enumerat",
            "2:5: sources[0].kind: there is no kind 'enumerat'; did you mean 'enumerate'?",
        ),
        ("sources:\n  - max_atoms: 3", "2:5: sources[0]: `kind` is missing; add one of enumerate, perturb"),
        (
            "sources:\n  - kind: enumerate\n    max_atom: 3",
            "3:5: sources[0].max_atom: this key is not known; did you mean `max_atoms`?",
        ),
        (
            "sources:\n  - {kind: enumerate, parents: [fc]}",
            "2:33: sources[0].parents[0]: 'fc' is neither a prototype nor a file; did you mean 'fcc'?",
        ),
        (
            "sources:\n  - {kind: enumerate, elements: [Cu]}",
            "sources[0].elements[0]: 'Cu' is not among the campaign's elements; they are Ni, Pt",
        ),
        (
            "sources:\n  - {kind: enumerate, volumes: {Nj: 11.0}}",
            "sources[0].volumes.Nj: there is no element 'Nj'; did you mean",
        ),
        (
            "sources:\n  - kind: files\n    paths: [campain.yaml]",
            "did you mean 'campaign.yaml'?",
        ),
        ("sources: []", "1:1: sources: must not be empty"),
        ("approval: manul", "approval: 'manul' is not known; did you mean 'manual'? (valid: auto, manual)"),
        ("name: my campaign", "1:1: name: "),
        ("ledger: campaign.db", "1:1: ledger: this is no ledger: write sqlite:///campaign.db"),
        ("ledger: mysql://h/d", "ledger: this is no ledger"),
        ("version: 7", "1:1: version: version 7 is newer than this alflow, which reads up to 1: upgrade alflow"),
        ("version: one", "1:1: version: 'one' is no version of the campaign file: write `version: 1`"),
        ("seed: 1\nseed: 2", "campaign.yaml:2:1: `seed` stands here and in line 1: keep one"),
        ("filters: {min_volume_per_atom: 200}", "1:1: filters: min_volume_per_atom (200.0) must be below"),
    ],
)
def test_every_mistake_is_one_message_with_its_place(fail: Fail, text: str, expected: str) -> None:
    message = fail(text)
    assert expected in message
    assert message.startswith("campaign.yaml:")
    assert len(message.splitlines()) == 1


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist: `alflow init` writes one"):
        load_campaign(tmp_path / "campaign.yaml")


def test_several_mistakes_are_listed(fail: Fail) -> None:
    lines = fail("seed: -1\nelements: [Ni, Xq]\nbudget: {label: 3}").splitlines()
    assert lines[0] == "campaign.yaml has 3 problems:"
    assert [line.split(":")[1] for line in lines[1:]] == ["1", "2", "3"]


def test_files_are_found_from_the_folder_of_the_campaign(load: Load, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.cif").write_text("")
    loaded = load(
        "sources:\n  - {kind: files, paths: [in/*.cif, in/a.cif]}\n  - {kind: enumerate, parents: [in/a.cif]}"
    )
    assert len(loaded.config.sources) == 2


def test_the_name_of_the_theory_names_the_calculator(load: Load) -> None:
    assert load("theory: {labeler: ase, name: my-pbe}").config.theory.settings == {"calculator": "my-pbe"}
    named = load("theory: {labeler: ase, name: my-pbe, settings: {calculator: other}}").config.theory
    assert named.settings == {"calculator": "other"}


def test_elements_that_the_labeler_lacks_are_named_at_their_line(load: Load) -> None:
    load("").require_labeler(get_labeler("emt"))
    with pytest.raises(
        ConfigError, match=r"campaign\.yaml:2:16: elements\[1\]: the labeler 'emt' has no Fe; it knows Ag"
    ):
        load("seed: 1\nelements: [Ni, Fe]").require_labeler(get_labeler("emt"))


def test_reading_a_campaign_is_light() -> None:
    code = (
        "import sys, alflow.config; "
        "print(sorted({'torch', 'pymatgen', 'prefect', 'fastapi', 'sqlalchemy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_face_is_exactly_all() -> None:
    public = {name for name in vars(alflow.config) if not name.startswith("_")}
    assert public == set(alflow.config.__all__)


def test_the_section_committee_says_which_potential(load: Load) -> None:
    assert load("committee: {n_members: 3}").config.committee.kind == "native"
    assert load("committee: {kind: mace, channels: 8}").config.committee.kind == "mace"
    for text, message in (
        ("committee: {foundation: a.model}", r"committee\.foundation: .*it belongs to `kind: mace`"),
        ("committee: {kind: mase}", r"committee\.kind: there is no kind 'mase'; did you mean 'mace'"),
        ("committee: {kind: mace, foundation: a.model}", r"committee\.trust_foundation: .*execute code"),
        ("committee: {kind: mace, foundation: a.model, trust_foundation: true}", r"committee\.foundation: .*not exist"),
        ("explorer: {calculators: [emt]}", r"explorer.*: the calculators never explore.*set `rounds`"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(text)
