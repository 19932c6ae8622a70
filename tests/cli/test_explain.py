"""What `queue explain` says of a job in every state, and of the queue as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alflow.cli import _explain
from alflow.errors import FailureKind
from alflow.ledger import CandidateState, Ledger, WorkerIdentity, open_ledger
from alflow.structures import Properties

if TYPE_CHECKING:
    from tests.cli.conftest import Campaign, Run

ELSEWHERE = WorkerIdentity(name="node7:11", host="node7", pid=11)


@pytest.fixture
def ledger(campaign: Campaign) -> Iterator[Ledger]:
    with open_ledger(campaign.url, create=False) as opened:
        yield opened


def second_job(ledger: Ledger, campaign: Campaign) -> int:
    """Ask for the label of a pooled candidate."""
    row = ledger.pool.get(campaign.ids[2])
    ledger.pool.transition([row.id], CandidateState.SELECTED, "chosen")
    theory = ledger.queue.get(campaign.job).theory_id
    return ledger.queue.enqueue(row.structure_id, theory, row.id).id


def test_a_failed_job(alflow: Run, campaign: Campaign, ledger: Ledger) -> None:
    lines = alflow("queue", "explain", campaign.job).stdout.splitlines()
    assert lines[0] == f"{campaign.job}  Pt4  failed"
    told = {line[2:14].strip(): line[15:] for line in lines[1:]}
    assert told["asked by"].startswith(
        f"candidate {campaign.ids[6]} (failed) of campaign ni-pt, which is active; no run"
    )
    me = WorkerIdentity.current()
    assert told["attempt 1"].startswith(f"by test on {me.host} (process {me.pid}), 20")
    assert told["attempt 1"].endswith("failed, refused: the cell is too small")
    assert told["limits"].startswith(
        "0 failures of the machine (repeated 3 times), 1 of the calculation (repeated once)"
    )
    assert told["next"] == "nothing by itself: it is failed after refused: the cell is too small"
    assert told["to do"] == f"{FailureKind.REFUSED.suggestion} Then `alflow queue retry {campaign.job}`."
    assert "waits" not in told
    document = alflow("queue", "explain", campaign.job, "--json").json()
    assert (document["id"], document["state"], document["error_kind"]) == (campaign.job, "failed", "refused")
    assert document["calculation_failures"] == {"count": 1, "repeated": 1}
    assert [a["message"] for a in document["attempts"]] == ["the cell is too small"]
    # by its candidate it is the same job, told once
    assert alflow("queue", "explain", campaign.job, "-c", campaign.ids[6], "--json").json() == document


def test_a_queued_job_that_nobody_takes(
    alflow: Run, campaign: Campaign, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    alflow("queue", "retry", campaign.job)
    other = second_job(ledger, campaign)
    document = alflow("queue", "explain", other, "--json").json()
    assert document["next"] == "the next worker for this theory claims it, after 1 job of this theory"
    assert document["waits"] == ["no run drives ni-pt (active), so that only `alflow worker` can take it"]
    assert document["last_seen"]["worker"] == "test"
    monkeypatch.setattr(_explain, "SEEN_MINUTES", 0.0)
    assert "no worker took a job of this theory in the last 0 minutes; the last was test on" in (
        alflow("queue", "explain", other).stdout
    )
    assert "Start `alflow worker`" in alflow("queue", "explain", other).stdout


def test_slots_that_are_all_taken(alflow: Run, campaign: Campaign, ledger: Ledger, tmp_path: Path) -> None:
    held = second_job(ledger, campaign)
    [claimed] = ledger.queue.claim(ELSEWHERE, limit=1, lease_seconds=600)
    assert claimed.job_id == held
    alflow("queue", "retry", campaign.job)
    Path("w.yaml").write_text("slots: {emt: 1}\nretries: {machine: 7}\n")
    document = alflow("queue", "explain", campaign.job, "--config", "w.yaml", "--json").json()
    assert document["slots"] == {"under_way": 1, "at_most": 1}
    assert document["machine_failures"] == {"count": 0, "repeated": 7}
    assert document["waits"][0] == "all slots of emt are taken: 1 of 1 (`slots` of the worker's file)"
    assert document["waits"][1] == "workers that compute jobs of this theory now: node7:11"
    assert document["suggestion"] is None
    text = alflow("queue", "explain", held).stdout
    assert "node7:11 holds it until 20" in text
    assert "leased" in text.splitlines()[0]


def test_a_theory_that_this_machine_refuses(alflow: Run, campaign: Campaign, ledger: Ledger) -> None:
    theory = ledger.theories.register("old", "emt", {}, "ase 1.0 emt", {}, "f" * 64)
    row = ledger.pool.get(campaign.ids[3])
    ledger.pool.transition([row.id], CandidateState.SELECTED, "chosen")
    job = ledger.queue.enqueue(row.structure_id, theory.id, row.id)
    waits = alflow("queue", "explain", job.id, "--json").json()["waits"]
    assert waits[0] == "no worker has ever taken a job of this theory"
    assert waits[1].startswith("a worker with this machine's file leaves it to others: here the labeler 'emt' computes")
    whole = alflow("queue", "explain", "--json").json()
    assert [(w["theory"], w["jobs"], w["refused_here"] is not None) for w in whole["waiting"]] == [("old", 1, True)]


def test_a_job_whose_worker_is_gone(alflow: Run, campaign: Campaign, ledger: Ledger) -> None:
    alflow("queue", "retry", campaign.job)
    here = replace(WorkerIdentity.current("gone"), pid_started=1)
    ledger.queue.claim(here, lease_seconds=600)
    assert "the process of gone is gone: the next worker" in alflow("queue", "explain", campaign.job).stdout
    ledger.queue.release([campaign.job])
    [job] = ledger.queue.claim(ELSEWHERE, lease_seconds=600)
    ledger.queue.heartbeat([(job.job_id, job.fence)], -5.0)
    assert "the lease of node7:11 ran out" in alflow("queue", "explain", campaign.job).stdout


def test_a_job_that_waits_for_its_repetition(alflow: Run, campaign: Campaign, ledger: Ledger, tmp_path: Path) -> None:
    alflow("queue", "retry", campaign.job)
    [job] = ledger.queue.claim(ELSEWHERE)
    folder = tmp_path / "jobs" / "attempt-1"
    (folder / "run-1").mkdir(parents=True)
    (folder / "run-1" / "run.json").write_text(json.dumps({"stdout": "pw.out", "stderr": "pw.err"}))
    (folder / "run-1" / "pw.out").write_text("it stopped")
    (folder / "run-1" / "pw.err").touch()
    ledger.queue.start(job.job_id, job.fence, directory=str(folder))
    ledger.queue.fail(job.job_id, job.fence, FailureKind.MEMORY, "ended at 4 GiB", retry_delay=600.0)
    document = alflow("queue", "explain", campaign.job, "--json").json()
    assert document["next"].startswith("a worker may claim it again from 20")
    assert document["next"].endswith("after memory: ended at 4 GiB")
    assert document["suggestion"].startswith(FailureKind.MEMORY.suggestion)
    assert document["machine_failures"]["count"] == 1
    last = document["attempts"][-1]
    assert (last["outputs"], last["logs"]) == (str(folder), [str(folder / "run-1" / "pw.out")])
    text = alflow("queue", "explain", campaign.job).stdout
    assert f"its outputs are in {folder}; read run-1/pw.out" in text
    (folder / "run-1" / "run.json").unlink()
    (folder / "run-1" / "pw.out").unlink()
    (folder / "run-1" / "pw.err").unlink()
    (folder / "run-1").rmdir()
    folder.rmdir()
    assert f"its outputs were in {folder}, which is not there now" in alflow("queue", "explain", campaign.job).stdout
    whole = alflow("queue", "explain").stdout
    assert "1 job, the first may be claimed at 20" in whole


def test_jobs_that_are_done_or_cancelled(alflow: Run, campaign: Campaign, ledger: Ledger) -> None:
    other = second_job(ledger, campaign)
    alflow("queue", "cancel", other)
    assert f"`alflow queue retry {other}` asks for it again" in alflow("queue", "explain", other).stdout
    alflow("queue", "retry", campaign.job)
    [job] = ledger.queue.claim(ELSEWHERE)
    ledger.queue.complete(job.job_id, job.fence, Properties(energy=-1.0), {})
    text = alflow("queue", "explain", campaign.job).stdout
    assert "gave the label" in text
    assert "nothing: its label is stored" in text
    assert "to do" not in text


def test_the_queue_as_a_whole(alflow: Run, campaign: Campaign, ledger: Ledger) -> None:
    other = second_job(ledger, campaign)
    whole = alflow("queue", "explain", "--json").json()
    assert (whole["counts"]["queued"], whole["counts"]["failed"]) == (1, 1)
    assert whole["oldest"] == ledger.queue.get(other).created
    assert whole["closed_last_hour"] == 1
    assert whole["per_hour"] > 0
    assert whole["expected_end"] > whole["oldest"]
    assert whole["failures"] == [
        {
            "kind": "refused",
            "count": 1,
            "example": "the cell is too small",
            "suggestion": FailureKind.REFUSED.suggestion,
        }
    ]
    lines = alflow("queue", "explain").stdout.splitlines()
    assert lines[0].strip() == "queue of campaign ni-pt"
    told = {line[2:14].strip(): line[15:] for line in lines[1:]}
    assert told["jobs"] == "1 queued, 1 failed"
    assert told["waiting"].startswith("1 for emt (emt); the oldest since 20")
    assert told["workers"].startswith("none holds a job: start `alflow worker`")
    assert told["rate"].startswith("1 job ended in the last hour, ")
    assert told["failures"] == f"1 refused, for example: the cell is too small. {FailureKind.REFUSED.suggestion}"
    ledger.queue.claim(ELSEWHERE)
    assert "1 job with node7:11 (1)" in alflow("queue", "explain").stdout


def test_ids_that_nobody_knows(alflow: Run, campaign: Campaign) -> None:
    assert "no job with id 999 in the ledger; `alflow queue ls` lists them" in (
        alflow("queue", "explain", 999, code=1).stderr
    )
    assert "no candidate with id 999" in alflow("queue", "explain", "-c", 999, code=1).stderr
    assert "never asked for a label: `alflow why" in alflow("queue", "explain", "-c", campaign.ids[5], code=1).stderr
    alflow("queue", "explain", "seven", code=2)
