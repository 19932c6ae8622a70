"""Commands that drive a campaign, on a small one that labels with EMT."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ase.build import bulk
from ase.io import write

from alflow.labelers import get_labeler

if TYPE_CHECKING:
    from ase import Atoms

    from tests.cli.conftest import Campaign, Run, WriteTiny


def test_a_campaign_from_plan_to_report(alflow: Run, write_tiny: WriteTiny) -> None:
    write_tiny()
    planned = alflow("plan", "--json").json()
    assert {item["stream"] for item in planned["items"]} == {"design"}
    assert not Path("report.html").exists()

    first = alflow("run", "--rounds", "1", "--json")
    outcome = first.json()
    assert outcome["campaign"] == "tiny"
    assert (outcome["state"], outcome["rounds"], outcome["rule"]) == ("limit", 1, None)
    assert 0 < outcome["labels"] < 9
    assert first.stderr.splitlines()[0].startswith("Round 0")

    found = alflow("status", "--json").json()
    assert found["labels"] == outcome["labels"]
    assert (found["round_index"], found["labels_budget"]) == (0, 9)
    assert f"{found['labels']} of 9 computed" in alflow("status").stdout
    assert "trains the first committee" in alflow("plan", code=3).stderr

    last = alflow("run", code=3)
    assert "Budget spent: 9 of 9 labels" in last.stderr
    assert "9 of 9 labels spent" in last.stderr
    assert "duplicates avoided" in last.stderr
    assert alflow("status", "--json").json()["labels"] == 9
    again = alflow("run", "--json", code=3).json()
    assert (again["did_nothing"], again["labels"], again["rule"]) == (True, 0, "budget_labels")

    labelled = alflow("ls", "state=labelled", "-c", "id", "--json").json()
    assert len(labelled) >= 9
    assert "It is labelled" in alflow("why", labelled[0]["id"]).stdout
    page = Path(alflow("report", "--output", "report.html").stdout.strip())
    assert "<html" in page.read_text()[:500].lower()


def test_approval_by_a_person(alflow: Run, write_tiny: WriteTiny) -> None:
    write_tiny(approval="manual")
    waiting = alflow("run", "--json")
    assert waiting.json()["state"] == "waiting"
    assert "alflow approve" in waiting.stderr
    assert alflow("run", "--json", code=3).json()["did_nothing"] is True
    batch = alflow("plan", "--json").json()["items"]
    ids = [item["candidate_id"] for item in batch]
    assert alflow("approve", "campaign.yaml", 999, code=1).stderr.startswith("error: ")
    alflow("approve", "seventeen", code=2)
    found = alflow("approve", "campaign.yaml", *ids[:2], "--json").json()
    assert found == {"approved": 2, "returned": len(ids) - 2}
    alflow("run", "--rounds", "1")
    assert alflow("status", "--json").json()["labels"] == 2
    assert "not approved" in alflow("why", ids[2]).stdout


def test_pin_and_exclude_are_told_by_why(alflow: Run, campaign: Campaign) -> None:
    pinned, excluded = campaign.ids[2], campaign.ids[3]
    alflow("pin", pinned, "--reason", "looks like L1_0")
    alflow("exclude", "campaign.yaml", excluded, "-r", "no such stacking")
    assert "looks like L1_0" in alflow("why", pinned).stdout
    assert "no such stacking" in alflow("why", excluded).stdout
    assert [row["id"] for row in alflow("ls", "pinned", "-c", "id", "--json").json()] == [pinned]
    assert alflow("ls", "state=rejected", "-c", "id", "--json").json() == [
        {"id": i} for i in sorted([campaign.ids[5], excluded])
    ]
    assert alflow("exclude", campaign.ids[0], code=1).stderr.startswith("error: ")


def test_options_of_a_worker_that_do_not_go_together(alflow: Run, campaign: Campaign) -> None:
    assert "goes with --folder only" in alflow("worker", "--capacity", 4, code=2).stderr
    assert "leave it out with --folder" in alflow("worker", "--folder", "jobs", "--jobs", 4, code=2).stderr
    assert not Path("jobs").exists()


def test_worker_computes_what_is_queued(alflow: Run, campaign: Campaign) -> None:
    assert alflow("worker", "--json", code=3).json()["labelled"] == 0
    alflow("queue", "retry", campaign.job)
    done = alflow("worker", "--until", "empty", "--json").json()
    assert (done["labelled"], done["failed"]) == (1, 0)
    assert alflow("show", campaign.ids[6], "--json").json()["labels"][0]["kind"] == "computed"


def structures(n: int) -> list[Atoms]:
    made = []
    for i in range(n):
        atoms = bulk("Cu", "fcc", a=3.5 + 0.05 * i, cubic=True)
        atoms.numbers[0] = 79
        atoms.rattle(0.05, seed=i)
        made.append(atoms)
    return made


def test_add_recognises_copies(alflow: Run, write_tiny: WriteTiny) -> None:
    write_tiny()
    write("new.extxyz", structures(3), format="extxyz")
    assert alflow("add", "new.extxyz", "--json").json()["pooled"] == 3
    turned = structures(3)
    for atoms in turned:
        atoms.rotate(37, (1, 2, 3), rotate_cell=True)
    write("turned.extxyz", turned, format="extxyz")
    found = alflow("add", "campaign.yaml", "turned.extxyz", "--json").json()
    assert (found["pooled"], found["duplicates"]) == (0, 3)
    table = alflow("add", "turned.extxyz")
    assert "known already" in table.stdout
    assert "no.extxyz" in alflow("add", "no.extxyz", code=1).stderr
    assert "name at least one file" in alflow("add", "campaign.yaml", code=1).stderr


def test_import_takes_labels_of_the_campaigns_theory(alflow: Run, write_tiny: WriteTiny) -> None:
    write_tiny()
    labelled, emt = [], get_labeler("emt")
    for atoms in structures(3):
        properties = emt.label(atoms).properties
        atoms.info["REF_energy"] = properties.energy
        atoms.arrays["REF_forces"] = properties.forces
        labelled.append(atoms)
    write("labels.extxyz", labelled, format="extxyz")
    assert "pbe" in alflow("import", "labels.extxyz", "--theory", "pbe", code=1).stderr
    assert alflow("import", "labels.extxyz", "--theory", "emt", "--json").json()["taken"] == 3
    assert alflow("import", "labels.extxyz", "--theory", "emt", "--json").json()["already_known"] == 3
    row = alflow("ls", "state=labelled", "-c", "id,stream", "--json").json()[0]
    assert row["stream"] == "imported"
    write("bare.extxyz", structures(1), format="extxyz")
    error = alflow("import", "bare.extxyz", "--theory", "emt", code=1).stderr
    assert "bare.extxyz, frame 0" in error
    assert "REF_energy" in error


def test_labels_that_say_they_are_of_another_theory_are_refused(alflow: Run, write_tiny: WriteTiny) -> None:
    write_tiny()
    other, own = "f" * 64, get_labeler("emt").theory().fingerprint
    labelled = []
    for atoms, theory in zip(structures(2), (other, own), strict=True):
        atoms.info.update(
            REF_energy=get_labeler("emt").label(atoms).properties.energy, alflow_theory_fingerprint=theory
        )
        labelled.append(atoms)
    write("labels.extxyz", labelled, format="extxyz")
    found = alflow("import", "labels.extxyz", "--theory", "emt", "--json").json()
    assert (found["taken"], len(found["refused"])) == (1, 1)
    assert "its theory is ffffffffffff" in found["refused"][0]
    write("other.extxyz", labelled[0], format="extxyz")
    assert "of another theory" in alflow("import", "other.extxyz", "--theory", "emt", code=1).stdout


def test_a_changed_file_is_told_setting_by_setting(alflow: Run, write_tiny: WriteTiny) -> None:
    file = write_tiny()
    alflow("run", "--rounds", "1", "-q")
    file.write_text(file.read_text().replace("{batch: 3}", "{batch: 4}"))
    found = alflow("check", "--json").json()
    told = [f["text"] for f in found["findings"] if f["what"] == "campaign"]
    assert told[1] == "the file was changed since the last run: selection.batch 3 -> 4"
    assert "the campaign file was changed: selection.batch 3 -> 4" in alflow("run", "--rounds", "1", code=3).stderr
    assert "was changed since" not in alflow("check").stdout
    before = alflow("status", "--json").json()
    file.write_text(file.read_text().replace("[Cu, Au]", "[Ni, Pt]"))
    for command in ("check", "run"):
        found = alflow(command, code=1)
        said = " ".join((found.stdout + found.stderr).split())
        assert "a campaign 'tiny' of Cu-Au, but this file, of the same name, is of Ni-Pt" in said
    file.write_text(file.read_text().replace("[Ni, Pt]", "[Cu, Au]"))
    assert alflow("status", "--json").json() == before


def test_what_needs_the_campaign_file(alflow: Run, campaign: Campaign) -> None:
    assert "needs the campaign file" in alflow("run", "--ledger", campaign.url, code=1).stderr
    assert "there is no ledger at" in alflow("status", "--ledger", "gone.db", "campaign.yaml", code=1).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_continues(alflow: Run, write_tiny: WriteTiny, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM in the middle of a training: a clean word, and the same command goes on."""
    write_tiny(epochs=100_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "alflow.cli", "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("Round 1"):
            break
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, (lines, rest)
    assert rest.splitlines()[-1] == "interrupted; the same command continues"
    assert "Traceback" not in rest
    if number == signal.SIGTERM:
        write_tiny(epochs=1)
        assert alflow("run", "--json", code=3).json()["rule"] == "budget_labels"
        assert alflow("status", "--json").json()["labels"] == 9
