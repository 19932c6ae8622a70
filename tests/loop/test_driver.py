from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alflow.errors import CampaignBusyError, TheoryError
from alflow.ledger import CampaignState, CandidateState, LabelKind, RoundState, StepState, Stream
from alflow.loop import CampaignContext, RunLimits, RunState, approve, open_campaign, plain_call, plan, run, status
from tests.loop.conftest import MakeCampaign, write_campaign


class Killed(BaseException):
    """Stands for a signal: nothing in alflow may catch it."""


def outcome_of(ctx: CampaignContext) -> set[tuple[str, str, float | None]]:
    """Everything that must not depend on when a run was killed: structure, state, label."""
    rows = ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id))
    labels = {label.structure_id: label for label in ctx.ledger.labels.accepted(ctx.theory.id, ctx.campaign_id)}
    return {
        (
            row.content_hash,
            row.state.value,
            None if row.structure_id not in labels else round(labels[row.structure_id].properties.energy, 9),
        )
        for row in rows
    }


def test_a_campaign_runs_its_rounds_and_stops_with_a_sentence(small: CampaignContext) -> None:
    outcome = run(small)
    assert outcome.state is RunState.STOPPED
    assert outcome.sentence.startswith("Budget spent: 3 of 3 rounds")
    assert outcome.rounds == 3
    assert small.campaign.state is CampaignState.STOPPED
    rounds = small.ledger.rounds.list(small.campaign_id)
    assert [(r.index, r.state) for r in rounds] == [*((k, RoundState.CLOSED) for k in range(3)), (3, RoundState.OPEN)]
    for row in rounds:
        assert all(step.state is StepState.FINISHED for step in small.ledger.rounds.steps(row.id))
    committees = small.ledger.committees.list(small.campaign_id)
    assert [c.round_index for c in committees] == [1, 2, 3]
    assert all(c.calibration is not None for c in committees)
    batch = small.ledger.rounds.step(rounds[1].id, "select").summary["batch"]
    assert 1 <= len(batch) <= 4
    assert sum(item["stream"] == "random" for item in batch) == 1
    assessed = rounds[1].summary["assessed"]
    assert {row["id"] for row in assessed} == {item["id"] for item in batch}
    assert rounds[1].summary["coverage"]["batch"]["energy"]["n"] == len(batch)


def test_a_campaign_that_stops_has_learnt_from_every_label(small: CampaignContext) -> None:
    run(small)
    labelled = small.ledger.labels.accepted(small.theory.id, small.campaign_id)
    newest = small.ledger.committees.latest(small.campaign_id)
    assert newest is not None
    assert {label.label_id for label in small.ledger.committees.labels(newest.id)} == {label.id for label in labelled}
    found = status(small)
    assert (found.state, found.committee) == ("stopped", {"round": 3, "labels": len(labelled)})
    assert [step.name for step in small.ledger.rounds.steps(small.ledger.rounds.list(small.campaign_id)[3].id)] == [
        "train"
    ]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_last_training_is_made_up_for_and_a_resumed_campaign_goes_on_behind_it(
    after: bool, make_campaign: MakeCampaign
) -> None:
    def call(name: str, function: Any) -> dict[str, Any]:
        if name == "train" and ctx.campaign.state is CampaignState.STOPPED:
            if after:
                function()
            raise Killed
        return plain_call(name, function)

    ctx = open_campaign(make_campaign(budget={"rounds": 2}))
    with pytest.raises(Killed):
        run(ctx, call)
    outcome = run(ctx)
    assert outcome.sentence.startswith("Budget spent: 2 of 2 rounds")
    assert outcome.did_nothing is after
    assert [c.round_index for c in ctx.ledger.committees.list(ctx.campaign_id)] == [1, 2]
    resumed = open_campaign(make_campaign(budget={"rounds": 3}))
    assert run(resumed).rounds == 1
    assert [c.round_index for c in ctx.ledger.committees.list(ctx.campaign_id)] == [1, 2, 3]
    last = ctx.ledger.rounds.list(ctx.campaign_id)[2]
    assert (last.state, ctx.ledger.rounds.step(last.id, "assess").state) == (RoundState.CLOSED, StepState.FINISHED)


def test_every_label_has_one_job_and_every_candidate_a_reason(small: CampaignContext) -> None:
    run(small, limits=RunLimits(rounds=2))
    rows = small.ledger.pool.rows(small.ledger.pool.ids(small.campaign_id))
    assert all(row.reason for row in rows)
    labels = small.ledger.labels.accepted(small.theory.id, small.campaign_id)
    assert len({label.structure_id for label in labels}) == len(labels)
    computed = [label for label in labels if label.kind is LabelKind.COMPUTED]
    assert len(computed) == len(small.ledger.queue.list(campaign=small.campaign_id))
    for row in rows:
        assert small.ledger.why(row.id).sentences


def test_a_stopped_campaign_does_nothing_until_it_is_resumed_or_its_file_changes(
    small: CampaignContext, make_campaign: MakeCampaign
) -> None:
    run(small)
    again = run(small)
    assert again.did_nothing
    assert again.labels == 0
    # to another folder, and to a ledger that is now called otherwise, as after `alflow db copy`
    for moved_file in (make_campaign("elsewhere"), make_campaign("renamed", ledger="sqlite:///renamed.db")):
        moved = open_campaign(moved_file, ledger_url=small.ledger.url)
        assert moved.campaign_id == small.campaign_id
        assert moved.campaign.state is CampaignState.STOPPED
    changed = open_campaign(make_campaign(budget={"rounds": 4}))
    assert changed.campaign.state is CampaignState.ACTIVE
    assert run(changed).rounds == 1


def test_limits_of_one_run_leave_the_campaign_ready_to_go_on(small: CampaignContext) -> None:
    first = run(small, limits=RunLimits(rounds=1))
    assert first.state is RunState.LIMIT
    assert small.campaign.state is CampaignState.ACTIVE
    second = run(small)
    assert second.rounds == 2


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str, float | None]]:
    ctx = open_campaign(write_campaign(tmp_path_factory.mktemp("undisturbed")))
    run(ctx, limits=RunLimits(rounds=2))
    return outcome_of(ctx)


@pytest.mark.parametrize("after", [False, True], ids=["before the step", "after the step"])
@pytest.mark.parametrize("step", ["design", "queue", "label", "assess", "train", "score", "select"])
def test_a_run_killed_at_a_step_continues_to_the_same_ledger(
    step: str, after: bool, make_campaign: MakeCampaign, undisturbed: set[tuple[str, str, float | None]]
) -> None:
    path = make_campaign("killed")
    killed = open_campaign(path)
    armed = True

    def call(name: str, function: Any) -> dict[str, Any]:
        nonlocal armed
        if name == step and armed:
            armed = False
            if after:
                function()
            raise Killed
        return plain_call(name, function)

    with pytest.raises(Killed):
        run(killed, call, limits=RunLimits(rounds=2))
    continued = open_campaign(path)
    closed = [r for r in continued.ledger.rounds.list(continued.campaign_id) if r.state is RoundState.CLOSED]
    run(continued, limits=RunLimits(rounds=2 - len(closed)))
    assert outcome_of(continued) == undisturbed


def test_only_one_run_drives_a_campaign(small: CampaignContext, make_campaign: MakeCampaign) -> None:
    other = open_campaign(make_campaign())

    def call(name: str, function: Any) -> dict[str, Any]:
        with pytest.raises(CampaignBusyError, match="until"):
            run(other)
        raise Killed

    with pytest.raises(Killed):
        run(small, call)


def test_manual_approval_waits_and_a_person_chooses(make_campaign: MakeCampaign) -> None:
    ctx = open_campaign(make_campaign(approval="manual"))
    first = run(ctx)
    assert first.state is RunState.WAITING
    assert "alflow approve" in first.sentence
    assert ctx.ledger.queue.list(campaign=ctx.campaign_id) == []
    shown = plan(ctx)
    wanted = [item.candidate_id for item in shown.items if item.candidate_id is not None][:3]
    assert approve(ctx, wanted) == (3, len(shown.items) - 3)
    second = run(ctx)
    assert second.state is RunState.WAITING, "the next batch waits again"
    assert second.labels == 3
    assert status(ctx).candidates["labelled"] == 3


def test_labels_of_two_theories_never_mix(small: CampaignContext, make_campaign: MakeCampaign) -> None:
    run(small, limits=RunLimits(rounds=1))
    path = make_campaign(theory={"labeler": "emt", "settings": {"asap_cutoff": True}})
    with pytest.raises(TheoryError, match="never mix"):
        open_campaign(path)


def test_failing_labels_stop_the_campaign_and_lose_nothing(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    (tmp_path / "campaign").mkdir()
    (tmp_path / "campaign" / "alflow-worker.yaml").write_text(
        "labelers:\n  broken:\n    calculator: tests.loop.calculators.Broken\n    convergence: analytic\n"
    )
    ctx = open_campaign(make_campaign(theory={"labeler": "ase", "name": "broken"}))
    outcome = run(ctx)
    assert outcome.state is RunState.STOPPED
    assert "labelling fails" in outcome.sentence
    counts = ctx.ledger.pool.counts(ctx.campaign_id)
    asked = len(ctx.ledger.queue.list(campaign=ctx.campaign_id))
    assert (
        sum(counts.get(s, 0) for s in (CandidateState.QUEUED, CandidateState.FAILED, CandidateState.QUARANTINED))
        == asked
    )


def test_one_failing_structure_is_set_aside_and_the_campaign_goes_on(
    make_campaign: MakeCampaign, tmp_path: Path
) -> None:
    (tmp_path / "campaign").mkdir()
    (tmp_path / "campaign" / "alflow-worker.yaml").write_text(
        "labelers:\n  moody:\n    calculator: tests.loop.calculators.FailsOnPurePlatinum\n    convergence: analytic\n"
    )
    ctx = open_campaign(make_campaign(theory={"labeler": "ase", "name": "moody"}))
    outcome = run(ctx)
    assert outcome.state is RunState.STOPPED
    assert "rounds" in outcome.sentence
    failed = ctx.ledger.pool.rows(
        ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.FAILED, CandidateState.QUARANTINED])
    )
    assert failed
    assert {row.chemical_system for row in failed} == {"Pt"}
    assert ctx.ledger.pool.counts(ctx.campaign_id)[CandidateState.LABELLED] > 5


def test_pinned_candidates_are_labelled_next(small: CampaignContext) -> None:
    run(small, limits=RunLimits(rounds=1))
    pooled = small.ledger.pool.ids(small.campaign_id, [CandidateState.POOLED])
    small.ledger.pool.pin([pooled[0]], "looks interesting", actor="person")
    run(small, limits=RunLimits(rounds=1))
    row = small.ledger.pool.get(pooled[0])
    assert row.state is CandidateState.LABELLED
    assert row.stream in {Stream.MANUAL, Stream.RANDOM}
