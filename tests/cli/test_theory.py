"""Theories: which there are, what differs, and which count for which."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from alflow.ledger import Ledger, TheoryRow, open_ledger

if TYPE_CHECKING:
    from tests.cli.conftest import Campaign, Run


@pytest.fixture
def ledger(campaign: Campaign) -> Iterator[Ledger]:
    with open_ledger(campaign.url, create=False) as opened:
        yield opened


@pytest.fixture
def dft(ledger: Ledger) -> TheoryRow:
    """A second theory, by another labeler."""
    settings = {"mode": {"name": "pw", "ecut": 400}, "xc": "PBE"}
    return ledger.theories.register("dft", "gpaw", settings, "gpaw 25.1", {"Ni": "a" * 64}, "12ab" * 16)


def test_ls(alflow: Run, campaign: Campaign, dft: TheoryRow, ledger: Ledger) -> None:
    ledger.theories.set_noise(dft.id, {"energy": 0.00125})
    table = alflow("theory", "ls").stdout
    assert "gpaw 25.1" in table
    assert "0.00125" in table
    first, second = alflow("theory", "ls", "--json").json()
    assert (first["name"], first["labeler"], first["labels"], first["noise"]) == ("emt", "emt", 2, None)
    assert (second["id"], second["labels"], second["noise"], second["counts_as"]) == (dft.id, 0, 0.00125, None)
    assert alflow("theory", "ls", "--csv").stdout.startswith("id,name,labeler,code,labels,")


def test_show_one(alflow: Run, campaign: Campaign, dft: TheoryRow) -> None:
    text = alflow("theory", "show", "12ab").stdout
    assert "setting      mode.ecut: 400" in text
    assert f"file         Ni: {'a' * 64}" in text
    assert "noise        not measured" in text
    found = alflow("theory", "show", dft.id, "--json").json()
    assert (found["fingerprint"], found["labels"], found["equations"]) == (dft.fingerprint, 0, [])
    assert "emt" in alflow("theory", "show", "emd", code=1).stderr


def test_show_what_differs(alflow: Run, campaign: Campaign, dft: TheoryRow, ledger: Ledger) -> None:
    settings = {"mode": {"name": "pw", "ecut": 500}, "xc": "PBE"}
    files = {"Ni": "b" * 64, "Pt": "c" * 64}
    ledger.theories.register("dft-500", "gpaw", settings, "gpaw 25.1", files, "34cd" * 16)
    found = alflow("theory", "show", "dft", "dft-500", "--json").json()["differences"]
    assert {row["what"]: (row["one"], row["other"]) for row in found} == {
        "setting mode.ecut": (400, 500),
        "file Ni": ("a" * 64, "b" * 64),
        "file Pt": (None, "c" * 64),
    }
    lines = alflow("theory", "show", "dft", "dft-500").stdout.splitlines()
    assert lines[0].split() == ["What", "dft", "dft-500"]
    assert any(line.split() == ["setting", "mode.ecut", "400", "500"] for line in lines)
    assert "one theory" in alflow("theory", "show", "dft", dft.id, code=1).stderr


def test_equate_and_withdraw(alflow: Run, campaign: Campaign, dft: TheoryRow, ledger: Ledger) -> None:
    said = alflow("theory", "equate", "emt", "dft", "--reason", "for this test").stderr
    assert "labels of emt count as labels of dft from now on: 2 labels" in said
    assert "no structure has labels of both" in said
    [row] = ledger.equations.list()
    assert (row.counts_as, row.reason) == (dft.id, "for this test")
    assert len(ledger.labels.accepted(dft.id)) == 2
    assert alflow("theory", "ls", "--json").json()[0]["counts_as"] == ["dft"]
    assert "for this test (no structure" in alflow("theory", "show", "dft").stdout
    assert "already" in alflow("theory", "equate", "emt", "dft", "-r", "again", code=1).stderr

    gone = alflow("theory", "equate", "emt", "dft", "--withdraw", "-r", "a mistake", "--json").json()
    assert gone["withdrawn"] is not None
    assert ledger.labels.accepted(dft.id) == []
    assert "withdrawn" in alflow("theory", "show", "dft").stdout


def test_a_label_is_shown_and_exported_once(alflow: Run, campaign: Campaign, dft: TheoryRow, ledger: Ledger) -> None:
    from ase.io import read

    alflow("theory", "equate", "emt", "dft", "--reason", "for this test")
    labels = alflow("show", campaign.ids[0], "--json").json()["labels"]
    assert [label["theory"]["name"] for label in labels] == ["emt"]
    alflow("export", "state=labelled", "--theory", "dft", "--output", "out.extxyz")
    infos = [atoms.info for atoms in read("out.extxyz", ":")]
    assert {info["alflow_theory_fingerprint"] for info in infos} == {dft.fingerprint}
    assert {info["alflow_equated_fingerprint"] for info in infos} == {ledger.theories.get("emt").fingerprint}
