"""Campaigns as they are deployed: a real server, a work pool and a worker, and the commands of the guide."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.io import write

from alflow.ledger import CampaignState, CandidateState, JobState, RoundState
from alflow.loop import open_campaign, run
from alflow.loop._lease import campaign_lease
from tests.flows.conftest import Stack, ended, running_stack
from tests.loop.conftest import write_campaign

pytestmark = pytest.mark.integration


def test_everything_of_prefect_yaml_is_deployed_and_runs_with_parameters(
    stack: Stack, root: Path, tmp_path: Path
) -> None:
    shutil.copy(root / "prefect.yaml", tmp_path)
    example = tmp_path / "examples" / "ni-pt"
    example.mkdir(parents=True)
    shutil.copy(root / "examples" / "ni-pt" / "campaign.yaml", example)
    stack.prefect("--no-prompt", "deploy", "--all", cwd=tmp_path)
    for flow in ("campaign", "label-worker", "upkeep"):
        shown = stack.prefect("deployment", "inspect", f"{flow}/ni-pt")
        assert f"alflow.flows.{flow.replace('-', '_')}.{flow.replace('-', '_')}" in shown
    shown = stack.prefect("deployment", "inspect", "campaign/ni-pt")
    assert "'cron': '0 2 * * *'" in shown
    assert "'active': False" in shown, "nothing starts before a person resumes the schedule"

    path = write_campaign(tmp_path / "other", name="by-parameter")
    done = stack.run("campaign/ni-pt", campaign=path, rounds=2)
    assert done["state_type"] == "COMPLETED", done["state"]
    assert done["name"] == "campaign by-parameter"
    assert "limited to 2 rounds" in done["state"]["message"]
    ctx = open_campaign(path, create=False)
    assert [r.state for r in ctx.ledger.rounds.list(ctx.campaign_id)] == [RoundState.CLOSED] * 2
    ctx.ledger.close()

    [findings] = stack.artifacts("by-parameter-findings")[:1]
    assert "# by-parameter" in findings["data"]
    [curve] = stack.artifacts("by-parameter-learning-curve")[:1]
    assert curve["data"].startswith("data:image/png;base64,")
    [batch] = stack.artifacts("by-parameter-batch")[:1]
    assert {"candidate", "formula", "stream", "u", "why"} == set(json.loads(batch["data"])[0])
    assert stack.artifacts("by-parameter-progress")
    tasks = stack.post("task_runs/filter", {"flow_runs": {"id": {"any_": [done["id"]]}}})
    assert {"round 0: design", "round 1: train", "round 1: explore-perturb"} <= {t["name"] for t in tasks}
    assert {t["state_type"] for t in tasks} == {"COMPLETED"}

    kept = stack.run("upkeep/ni-pt", campaign=path)
    assert kept["state_type"] == "COMPLETED", kept["state"]
    assert "The ledger is sound" in stack.artifacts("by-parameter-upkeep")[0]["data"]
    stack.wait(lambda: not stack.left_over(), 30)


def test_a_schedule_fires_and_each_run_goes_on_with_what_was_added(stack: Stack, tmp_path: Path) -> None:
    path = write_campaign(tmp_path / "c", name="nightly", budget={"rounds": 30})
    assert "cron '* * * * *', active" in stack.alflow("deploy", path, "--cron", "* * * * *", "--active", "--labels", 3)
    shown = stack.prefect("deployment", "inspect", "campaign/nightly")
    assert "'cron': '* * * * *'" in shown
    assert "'active': True" in shown
    seen: list[str] = []

    def fresh() -> list[dict[str, Any]]:
        done = [r for r in stack.runs("campaign/nightly") if r["state_type"] == "COMPLETED"]
        return [r for r in done if r["id"] not in seen]

    sizes = []
    for night in range(3):
        [done, *_] = stack.wait(fresh)
        seen.append(done["id"])
        assert done["auto_scheduled"]
        ctx = open_campaign(path, create=False)
        counts = ctx.ledger.queue.counts(ctx.campaign_id)
        sizes.append((counts[JobState.DONE], len(ctx.ledger.pool.ids(ctx.campaign_id))))
        ctx.ledger.close()
        new = tmp_path / f"new-{night}.extxyz"
        write(new, [bulk("NiPt", "cesiumchloride", a=3.0 + 0.07 * night)])
        stack.alflow("add", new, "--campaign", path)
    stack.alflow("deploy", path, "--paused", "--labels", 3)
    stack.wait(lambda: all(map(ended, stack.runs("campaign/nightly"))))
    stack.wait(lambda: not stack.left_over(), 30)

    labels = [done for done, _ in sizes]
    assert labels == sorted(labels)
    assert labels[0] >= 3
    assert labels[-1] > labels[0]
    ctx = open_campaign(path, create=False)
    attempts = ctx.ledger.queue.attempts_of(ctx.campaign_id)
    assert len({a.job_id for a in attempts}) == len(attempts), "no label was computed twice"
    added = [r for r in ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id)) if r.source == "added"]
    assert len(added) == 3
    assert ctx.ledger.check() == []
    assert ctx.campaign.lease_owner is None
    ctx.ledger.close()


def test_a_busy_campaign_and_a_stopped_one_are_left_alone(stack: Stack, tmp_path: Path) -> None:
    path = write_campaign(tmp_path / "c", name="busy", budget={"rounds": 1})
    stack.alflow("deploy", path)
    ctx = open_campaign(path)
    with campaign_lease(ctx, driver="the other run"):
        done = stack.run("campaign/busy")
    assert done["state_type"] == "COMPLETED"
    assert "the other run" in done["state"]["message"]
    assert "Nothing was done" in done["state"]["message"]
    assert ctx.ledger.rounds.current(ctx.campaign_id) is None

    run(ctx)
    assert ctx.campaign.state is CampaignState.STOPPED
    events = len(ctx.ledger.events.list(ctx.campaign_id, None, kind="round"))
    done = stack.run("campaign/busy")
    assert done["state_type"] == "COMPLETED"
    assert "Nothing was done, campaign busy has stopped: Budget spent" in done["state"]["message"]
    assert "Budget spent" in stack.artifacts("busy-run")[0]["data"]
    assert len(ctx.ledger.events.list(ctx.campaign_id, None, kind="round")) == events
    ctx.ledger.close()


def test_label_workers_share_the_queue_of_a_run_that_waits(stack: Stack, tmp_path: Path) -> None:
    path = write_campaign(tmp_path / "c", name="shared", budget={"rounds": 1})
    stack.alflow("deploy", path, "--no-work")
    stack.prefect("deployment", "run", "campaign/shared")
    ctx = open_campaign(path)
    stack.wait(lambda: ctx.ledger.queue.open_jobs())
    for _ in range(2):
        stack.prefect("deployment", "run", "label-worker/shared", "--param", "until=empty")
    [done] = stack.wait(lambda: [r for r in stack.runs("campaign/shared") if ended(r)])
    assert done["state_type"] == "COMPLETED", done["state"]
    workers = stack.wait(lambda: len(w := stack.runs("label-worker/shared")) == 2 and all(map(ended, w)) and w)
    assert {w["state_type"] for w in workers} == {"COMPLETED"}, [w["state"]["message"] for w in workers]
    attempts = ctx.ledger.queue.attempts_of(ctx.campaign_id)
    assert len(attempts) == ctx.ledger.pool.counts(ctx.campaign_id)[CandidateState.LABELLED] > 5
    assert sum(int(w["state"]["message"].split(" labelled")[0]) for w in workers) == len(attempts)
    ctx.ledger.close()


def test_check_says_what_is_there_and_what_starts_the_rest(stack: Stack, tmp_path: Path) -> None:
    path = write_campaign(tmp_path / "c", name="checked")
    findings = json.loads(stack.alflow("check", path, "--json"))["findings"]
    assert {f["what"]: f["ok"] for f in findings}["deployment"] is None
    stack.alflow("deploy", path)
    found = {f["what"]: f for f in json.loads(stack.alflow("check", path, "--json"))["findings"]}
    assert all(found[what]["ok"] for what in ("prefect", "deployment", "work pool", "worker"))


@pytest.mark.slow
def test_a_run_whose_worker_died_too_is_shown_as_crashed_and_taken_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with running_stack(home) as stack:
        long = {"steps": 1_000_000, "warm_steps": 1_000_000}
        path = write_campaign(tmp_path / "c", name="zombie", training=long)
        stack.alflow("deploy", path)
        stack.prefect("deployment", "run", "campaign/zombie")
        ctx = open_campaign(path)
        stack.wait(lambda: ctx.ledger.queue.counts(ctx.campaign_id)[JobState.DONE])
        stack.wait(lambda: ctx.ledger.rounds.list(ctx.campaign_id)[-1].index == 1)
        [zombie] = stack.runs("campaign/zombie")
        owner = ctx.campaign.lease_owner or ""
        stack.stop("worker", signal.SIGKILL)
        os.kill(int(owner.split()[1]), signal.SIGKILL)
        assert stack.runs("campaign/zombie")[0]["state_type"] == "RUNNING", "nobody reported its end"
        path.write_text(path.read_text().replace("1000000", "20"))
        done = run(open_campaign(path))
        assert done.rounds >= 1, "the lease of a dead process is taken over at once"
        crashed = stack.wait(lambda: [r for r in stack.runs("campaign/zombie") if r["state_type"] == "CRASHED"], 300)
        assert crashed[0]["id"] == zombie["id"]
        assert "no sign of life" in crashed[0]["state"]["message"]
        ctx.ledger.close()
