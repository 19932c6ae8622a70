"""Campaigns that went wrong go on once the cause is mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from alflow.ledger import CandidateState, JobState
from alflow.loop import RunLimits, RunState, open_campaign, run
from tests.loop.conftest import MakeCampaign


def labeler(directory: Path, name: str) -> None:
    directory.mkdir()
    (directory / "alflow-worker.yaml").write_text(
        f"labelers:\n  test:\n    calculator: tests.loop.calculators.{name}\n    convergence: analytic\n"
    )


def test_after_the_failure_rule_mended_jobs_are_labelled(
    make_campaign: MakeCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    monkeypatch.setenv("ALFLOW_TEST_BROKEN", str(broken))
    labeler(tmp_path / "campaign", "BrokenForNow")
    ctx = open_campaign(make_campaign(theory={"labeler": "ase", "name": "test"}))
    assert "labelling fails" in run(ctx).sentence

    broken.unlink()
    given_up = ctx.ledger.queue.list(ctx.campaign_id, [JobState.FAILED, JobState.QUARANTINED])
    ctx.ledger.queue.retry([job.id for job in given_up])
    outcome = run(ctx, limits=RunLimits(rounds=1), resume=True)
    assert outcome.state is RunState.LIMIT, outcome.sentence
    assert ctx.ledger.queue.open_jobs(ctx.campaign_id) == 0
    n_jobs = len(ctx.ledger.queue.list(ctx.campaign_id))
    assert ctx.ledger.pool.counts(ctx.campaign_id)[CandidateState.LABELLED] == n_jobs


def test_an_element_without_a_label_waits_for_the_random_stream(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    labeler(tmp_path / "campaign", "FailsOnPurePlatinum")
    ctx = open_campaign(
        make_campaign(
            theory={"labeler": "ase", "name": "test"},
            round0={"prototypes": ["fcc"], "n_spread": 0},
            sources=[{"kind": "enumerate", "max_atoms": 3}],
            selection={"batch": 4, "random_fraction": 0.75},
        )
    )
    run(ctx, limits=RunLimits(rounds=3))
    rounds = ctx.ledger.rounds.list(ctx.campaign_id)
    first = [row for row in rounds[1].summary["assessed"] if row["stream"] == "random"]
    assert len(first) == 3
    assert all(row["missed"] for row in first), "a committee of nickel alone cannot know platinum"
    second = rounds[2].summary["assessed"]
    assert all(row["error"]["energy"] is not None for row in second)
