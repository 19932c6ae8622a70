"""What one run may do at most, and that the next one goes on from there."""

from __future__ import annotations

from typing import Any

import pytest

from alflow.ledger import CampaignState, JobState, StepState
from alflow.loop import CampaignContext, RunLimits, RunState, plain_call, run
from alflow.loop._limits import Allowance


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_an_allowance_counts_from_its_beginning() -> None:
    clock, labels = Clock(), [7]
    allowance = Allowance(RunLimits(rounds=2, labels=3, wall_seconds=60), lambda: labels[0], clock)
    assert allowance.labels_left() == 3
    assert allowance.no_round(1) is None
    assert "2 rounds" in (allowance.no_round(2) or "")
    labels[0] = 10
    assert allowance.labels == 3
    assert "3 labels" in (allowance.no_label() or "")
    assert allowance.no_time() is None
    clock.seconds = 60.0
    assert "60 s" in (allowance.no_time() or "")


def test_without_limits_nothing_ends() -> None:
    allowance = Allowance(RunLimits(), lambda: 10**6)
    assert (allowance.no_round(1000), allowance.no_label(), allowance.no_time()) == (None, None, None)
    assert allowance.labels_left() is None


def test_a_limit_on_labels_holds_inside_a_batch_and_the_next_run_goes_on(small: CampaignContext) -> None:
    counts = []
    outcome = run(small, limits=RunLimits(labels=3))
    assert (outcome.state, outcome.labels, outcome.rounds) == (RunState.LIMIT, 3, 0)
    assert small.campaign.state is CampaignState.ACTIVE
    assert small.campaign.lease_owner is None
    round_row = small.ledger.rounds.current(small.campaign_id)
    assert round_row is not None
    assert small.ledger.rounds.step(round_row.id, "label").state is StepState.RUNNING
    jobs = small.ledger.queue.counts(small.campaign_id)
    assert jobs[JobState.LEASED] == jobs[JobState.RUNNING] == 0, "what was claimed and not computed is given back"
    while outcome.rounds == 0:
        outcome = run(small, limits=RunLimits(labels=3, rounds=1))
        counts.append(outcome.labels)
        assert outcome.labels <= 3
    assert set(counts[:-1]) <= {3}
    attempts = small.ledger.queue.attempts_of(small.campaign_id)
    assert len({a.job_id for a in attempts}) == len(attempts) == 3 + sum(counts)


def test_after_the_time_no_step_and_no_calculation_begins(
    small: CampaignContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("alflow.loop._limits.Allowance.__init__.__defaults__", (clock,))
    done: list[str] = []

    def call(name: str, function: Any) -> dict[str, Any]:
        done.append(name)
        result = plain_call(name, function)
        if name == "design":
            clock.seconds = 100.0
        return result

    outcome = run(small, call, limits=RunLimits(wall_seconds=50))
    assert outcome.state is RunState.LIMIT
    assert "50 s" in outcome.sentence
    assert done[-1] == "design"
    assert outcome.labels == 0
    run(small, call, limits=RunLimits(rounds=1))
    assert done[-1] == "assess"
    assert done.count("design") == 1


def test_a_run_without_time_does_nothing(small: CampaignContext) -> None:
    outcome = run(small, limits=RunLimits(wall_seconds=0.0))
    assert outcome.did_nothing
    assert small.ledger.rounds.current(small.campaign_id) is None
