"""ls, show and why on a real ledger."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alflow.cli._columns import COLUMNS, DEFAULT, choose_columns
from alflow.errors import FailureKind, SelectionError
from alflow.folder.outputs import compress
from alflow.ledger import LabelKind, NewCandidate, WorkerIdentity, open_ledger
from alflow.structures import Properties, Structure

if TYPE_CHECKING:
    from tests.cli.conftest import Campaign, Run


def ids_of(table: str) -> list[int]:
    return [int(line.split()[0]) for line in table.splitlines() if line.split() and line.split()[0].isdecimal()]


def test_ls_shows_every_candidate(alflow: Run, campaign: Campaign) -> None:
    found = alflow("ls")
    assert ids_of(found.stdout) == list(campaign.ids)
    assert "redundant: 0.0004 Å from candidate" in found.stdout
    assert found.stderr == ""


def test_ls_as_in_the_documentation(alflow: Run, campaign: Campaign) -> None:
    found = alflow("ls", "Ni,Pt,u>1,state=pooled,e_hull<0.05", "-c", "id,formula,u", "-s", "-u", "--csv")
    rows = list(csv.reader(io.StringIO(found.stdout)))
    assert rows == [["id", "formula", "u"], [str(campaign.ids[2]), "Ni2Pt2", "3.5"]]


def test_ls_sorts_both_ways(alflow: Run, campaign: Campaign) -> None:
    up = alflow("ls", "u>0", "-c", "id", "--sort", "u", "--json").json()
    down = alflow("ls", "u>0", "-c", "id", "--sort=-u", "--json").json()
    assert [row["id"] for row in up] == [campaign.ids[3], campaign.ids[2]]
    assert down == up[::-1]


def test_ls_limits(alflow: Run, campaign: Campaign) -> None:
    found = alflow("ls", "-n", "2")
    assert ids_of(found.stdout) == list(campaign.ids[:2])
    assert "--limit 0 shows all" in found.stderr
    assert ids_of(alflow("ls", "-n", "2", "--offset", "5").stdout) == list(campaign.ids[5:])
    assert "shows all" not in alflow("ls", "-n", "2", "--offset", "5").stderr


def test_ls_has_a_value_for_every_column(alflow: Run, campaign: Campaign) -> None:
    rows = alflow("ls", "-c", ",".join(COLUMNS), "--json").json()
    assert list(rows[2]) == list(COLUMNS)
    assert rows[2]["campaign"] == campaign.name
    assert rows[2]["n_elements"] == 2
    assert rows[4]["duplicate_of"] == campaign.ids[0]


def test_predictions_and_labels_have_columns_of_their_own(alflow: Run, campaign: Campaign) -> None:
    columns = "id,energy,energy_per_atom,label_energy,label_energy_per_atom"
    rows = {row["id"]: row for row in alflow("ls", "-c", columns, "--json").json()}
    labelled, predicted = rows[campaign.ids[1]], rows[campaign.ids[2]]
    with open_ledger(campaign.url, create=False) as ledger:
        [theory] = ledger.theories.list()
        label = ledger.labels.get(ledger.pool.get(campaign.ids[1]).structure_id, theory.id)
    assert label is not None
    assert labelled["label_energy"] == pytest.approx(label.properties.energy)
    assert labelled["label_energy_per_atom"] == pytest.approx(label.properties.energy / 4)
    assert labelled["energy"] is None
    assert (predicted["energy"], predicted["energy_per_atom"]) == (-22.1, pytest.approx(-22.1 / 4))
    assert predicted["label_energy"] is predicted["label_energy_per_atom"] is None
    heading = alflow("ls", "-c", columns).stdout.replace("\n", " ")
    assert heading.count("Predicted") == heading.count("Label") == 2


def test_labels_of_another_theory_are_not_those_of_the_campaign(alflow: Run, campaign: Campaign) -> None:
    with open_ledger(campaign.url, create=False) as ledger:
        other = ledger.theories.register("other", "emt", {}, "another", {}, "e" * 64)
        ledger.campaigns.create("other", "", {"theory": other.fingerprint}, 1)
        row = ledger.pool.get(campaign.ids[2])
        ledger.labels.store(row.structure_id, other.id, Properties(energy=-1.0), kind=LabelKind.IMPORTED, evidence={})
        ledger.pool.add(
            ledger.campaigns.get("other").id,
            None,
            [NewCandidate(structure=ledger.pool.structures([row.id])[0], source="files")],
        )
    rows = alflow("ls", "-L", campaign.url, "-c", "campaign,structure,label_energy", "--json").json()
    found = {row["campaign"]: row["label_energy"] for row in rows if row["structure"] == row_of(rows, "other")}
    assert found == {campaign.name: None, "other": -1.0}


def row_of(rows: list[dict[str, object]], campaign: str) -> object:
    """Structure of the only candidate of a campaign."""
    [structure] = [row["structure"] for row in rows if row["campaign"] == campaign]
    return structure


def test_labels_are_no_order(alflow: Run, campaign: Campaign) -> None:
    found = alflow("ls", "-s", "-label_energy", code=1)
    assert "label_energy can be shown, not sorted by" in found.stderr


def test_ls_of_nothing(alflow: Run, campaign: Campaign) -> None:
    found = alflow("ls", "Cu")
    assert (found.stdout, found.stderr) == ("", "no candidate matches\n")
    assert alflow("ls", "Cu", "--json").json() == []
    assert alflow("ls", "Cu", "-c", "id,u", "--csv").stdout == "id,u\n"


def test_wrong_selections_and_columns_name_the_nearest(alflow: Run, campaign: Campaign) -> None:
    wrong = [
        (["uu>1"], "did you mean u?"),
        (["-c", "formla"], "formula"),
        (["-s", "-e_hul"], "e_hull"),
        (["space_group=225"], "no column"),  # not stored: nothing found would be no answer
    ]
    for arguments, hint in wrong:
        found = alflow("ls", *arguments, code=1)
        assert found.stdout == ""
        assert found.stderr.startswith("error: ")
        assert hint in found.stderr


def test_columns_change_as_in_ase() -> None:
    assert [column.key for column in choose_columns(None)] == list(DEFAULT)
    assert [column.key for column in choose_columns("u,id")] == ["u", "id"]
    changed = [column.key for column in choose_columns("+volume,-reason")]
    assert changed == [key for key in DEFAULT if key != "reason"] + ["volume"]
    with pytest.raises(SelectionError, match="did you mean volume"):
        choose_columns("+volum")


@pytest.mark.parametrize("how", ["file", "folder", "default", "ledger url", "ledger path", "by name", "environment"])
def test_every_way_to_name_a_campaign(
    alflow: Run, campaign: Campaign, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: list[object] = []
    if how != "default":
        elsewhere = campaign.file.parent / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
    match how:
        case "file":
            arguments = ["-C", campaign.file]
        case "folder":
            arguments = ["-C", campaign.file.parent]
        case "ledger url":
            arguments = ["-L", campaign.url]
        case "ledger path":
            arguments = ["-L", campaign.url.removeprefix("sqlite:///")]
        case "by name":
            arguments = ["-L", campaign.url, "-C", campaign.name]
        case "environment":
            monkeypatch.setenv("ALFLOW_LEDGER", campaign.url)
    assert len(alflow("ls", *arguments, "--json").json()) == len(campaign.ids)


def test_only_campaign_file_here_is_meant(alflow: Run, campaign: Campaign) -> None:
    campaign.file.rename(campaign.file.with_name("mine.yaml"))
    campaign.file.with_name("alflow-worker.yaml").write_text("batch: 2\n")
    assert alflow("ls", "--json").json()
    campaign.file.with_name("other.yaml").write_text(campaign.file.with_name("mine.yaml").read_text())
    found = alflow("ls", code=1)
    assert "2 campaign files" in found.stderr
    assert "mine.yaml, other.yaml" in found.stderr


def test_missing_campaigns_and_ledgers(alflow: Run, campaign: Campaign) -> None:
    assert "gone.yaml does not exist" in alflow("ls", "-C", "gone.yaml", code=1).stderr
    assert "there is no ledger at" in alflow("ls", "-L", "gone.db", code=1).stderr
    assert not campaign.file.with_name("gone.db").exists()
    assert "ni-pt" in alflow("ls", "-L", campaign.url, "-C", "ni-ptt", code=1).stderr
    assert "by its name" in alflow("ls", "-C", "ni-pt", code=1).stderr


def test_show(alflow: Run, campaign: Campaign) -> None:
    labelled, uncertain = (alflow("show", campaign.ids[i]).stdout for i in (1, 2))
    assert f"Candidate {campaign.ids[1]}  Ni3Pt  labelled" in labelled
    assert "Pm-3m (221)" in labelled
    assert "pressure" in labelled
    assert "u 3.50" in uncertain
    assert "above hull 0.0120 ± 0.0100 eV/atom" in uncertain
    assert "label " not in uncertain
    assert "site 3" in alflow("show", campaign.ids[2], "--sites").stdout


def test_show_and_why_find_outputs_also_where_they_are_compressed(
    alflow: Run, campaign: Campaign, tmp_path: Path
) -> None:
    alflow("queue", "retry", campaign.job)
    directory = tmp_path / "jobs" / "attempt-2"
    directory.mkdir(parents=True)
    with open_ledger(campaign.url, create=False) as ledger:
        [job] = ledger.queue.claim(WorkerIdentity.current("test"))
        ledger.queue.start(job.job_id, job.fence, directory=str(directory))
        ledger.queue.fail(job.job_id, job.fence, FailureKind.CRASHED, "it went wrong", max_retries=0)
    for packed in (False, True):
        place = compress(directory) if packed else directory
        assert (
            f"  outputs      {place} (job {job.job_id}, attempt 2: failed)\n" in alflow("show", campaign.ids[6]).stdout
        )
        assert f"Its outputs are in {place}." in alflow("why", campaign.ids[6]).stdout
        assert f"its outputs are in {place}\n" in alflow("queue", "explain", job.job_id).stdout
    place.unlink()
    assert "  outputs " not in alflow("show", campaign.ids[6]).stdout
    assert "Its outputs" not in alflow("why", campaign.ids[6]).stdout


def test_show_as_json_holds_everything(alflow: Run, campaign: Campaign) -> None:
    one = alflow("show", campaign.ids[1], "--json").json()
    geometry = one["structure"]
    structure = Structure(**{k: geometry[k] for k in ("cell", "pbc", "numbers", "positions", "charge", "moments")})
    assert structure.content_hash == one["content_hash"]
    assert one["labels"][0]["theory"]["name"] == "emt"
    assert one["labels"][0]["properties"]["energy"] == pytest.approx(-0.413, abs=0.1)
    assert len(one["labels"][0]["properties"]["forces"]) == 4
    several = alflow("show", *campaign.ids[:2], "--json").json()
    assert [row["id"] for row in several] == list(campaign.ids[:2])


def test_why(alflow: Run, campaign: Campaign) -> None:
    duplicate, failed = (alflow("why", campaign.ids[i]).stdout for i in (4, 6))
    assert f"duplicate of candidate {campaign.ids[0]}" in duplicate
    assert "the cell is too small" in failed
    found = alflow("why", campaign.ids[4], "--json").json()
    assert found["id"] == campaign.ids[4]
    assert len(found["sentences"]) >= 2


def test_the_campaign_file_may_stand_first(alflow: Run, campaign: Campaign) -> None:
    for command, argument in (("ls", "state=labelled"), ("show", campaign.ids[1]), ("why", campaign.ids[1])):
        plain = alflow(command, argument).stdout
        assert alflow(command, "campaign.yaml", argument).stdout == plain
    assert ids_of(alflow("ls", "campaign.yaml").stdout) == list(campaign.ids)
    assert ids_of(alflow("ls", campaign.ids[2]).stdout) == [campaign.ids[2]]
    assert "name a candidate" in alflow("why", "campaign.yaml", code=2).stderr


def test_unknown_candidates(alflow: Run, campaign: Campaign) -> None:
    for command in ("show", "why"):
        found = alflow(command, 999, code=1)
        assert "999" in found.stderr
        assert found.stdout == ""


def test_several_campaigns_in_one_ledger(alflow: Run, campaign: Campaign) -> None:
    from alflow.ledger import open_ledger

    with open_ledger(campaign.url) as ledger:
        ledger.campaigns.create("other", "", {}, 1)
    assert alflow("ls", "-L", campaign.url, "--json").json()[0]["campaign"] == campaign.name
    assert "campaign" not in alflow("ls", "--json").json()[0]
    assert alflow("ls", "-L", campaign.url, "-C", "other", "--json").json() == []
    found = alflow("report", "-L", campaign.url, code=1)
    assert "several campaigns (ni-pt, other)" in found.stderr


def test_a_report_takes_the_place_of_a_report_only(alflow: Run, campaign: Campaign) -> None:
    for _ in range(2):
        assert alflow("report", "--output", "r.html").stdout == "r.html\n"
    before = campaign.file.read_text()
    refused = alflow("report", "--output", campaign.file.name, code=1)
    assert refused.stderr.startswith(f"error: {campaign.file.name} exists already and is no report of alflow")
    assert campaign.file.read_text() == before
