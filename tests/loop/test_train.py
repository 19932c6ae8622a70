"""What a round's committee learns from, and what calibrates it."""

from __future__ import annotations

from alflow.ledger import CandidateState, LabelKind
from alflow.loop import CampaignContext, RunLimits, open_campaign, run
from alflow.loop._train import prospective_rows
from alflow.structures import Properties
from tests.loop.conftest import SMALL, MakeCampaign


def test_structures_learned_before_anything_was_held_out_do_not_calibrate(make_campaign: MakeCampaign) -> None:
    ctx = open_campaign(make_campaign())
    run(ctx, limits=RunLimits(rounds=2))
    training = SMALL["training"] | {"validation_from": 2, "validation_fraction": 0.5}
    changed = open_campaign(make_campaign(training=training))
    before = [row for row in prospective_rows(changed) if row["error"] is not None]
    run(changed, limits=RunLimits(rounds=1))
    first, second, _ = changed.ledger.committees.list(changed.campaign_id)
    assert "started from the weights" in second.metrics["warm_start"]
    learned = {label.label_id for label in changed.ledger.committees.labels(first.id)}
    held_out = {label.label_id for label in changed.ledger.committees.labels(second.id) if label.held_out}
    assert held_out & learned
    assert second.metrics["calibration"]["energy"]["n_fit"] == len(before) + len(held_out - learned)


def test_a_label_that_another_campaign_has_is_not_learned_while_its_candidate_may_be_drawn(
    small: CampaignContext,
) -> None:
    run(small, limits=RunLimits(rounds=1))
    pooled = small.ledger.pool.ids(small.campaign_id, [CandidateState.POOLED])[0]
    foreign = small.ledger.labels.store(
        small.ledger.pool.get(pooled).structure_id,
        small.theory.id,
        Properties(energy=1.0),
        kind=LabelKind.COMPUTED,
        evidence={"converged": True},
    )
    run(small, limits=RunLimits(rounds=1))
    [committee] = small.ledger.committees.list(small.campaign_id)
    learned = {label.label_id for label in small.ledger.committees.labels(committee.id)}
    assert learned
    assert foreign.id not in learned


def test_what_a_run_left_that_was_killed_after_training_is_removed(small: CampaignContext) -> None:
    folder = small.ledger.directory / "training"
    left, others = (folder / f"campaign-{i}-round-0" for i in (small.campaign_id, small.campaign_id + 10))
    for path in (left, others):
        path.mkdir(parents=True)
    run(small, limits=RunLimits(rounds=2))
    assert list(folder.iterdir()) == [others]
