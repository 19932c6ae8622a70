from __future__ import annotations

import pytest

from alflow.errors import NotFoundError, TransitionError
from alflow.ledger import CampaignRow, Ledger, RoundState, StepState


def test_rounds_open_once_and_close_once(ledger: Ledger, campaign: CampaignRow) -> None:
    assert ledger.rounds.current(campaign.id) is None
    first = ledger.rounds.open(campaign.id, 0)
    assert ledger.rounds.open(campaign.id, 0) == first
    second = ledger.rounds.open(campaign.id, 1)
    assert ledger.rounds.current(campaign.id) == second
    ledger.rounds.update_summary(first.id, {"labels": 3})
    closed = ledger.rounds.close(first.id, {"u": 1.5})
    assert (closed.state, closed.summary) == (RoundState.CLOSED, {"labels": 3, "u": 1.5})
    assert closed.finished is not None
    assert ledger.rounds.close(first.id, {"u": 99}) == closed
    assert ledger.rounds.list(campaign.id) == [closed, second]
    with pytest.raises(NotFoundError):
        ledger.rounds.get(999)


def test_a_finished_step_is_never_redone(ledger: Ledger, campaign: CampaignRow) -> None:
    round_id = ledger.rounds.open(campaign.id, 0).id
    assert ledger.rounds.step(round_id, "train").state == StepState.PENDING
    with pytest.raises(TransitionError, match="begin it first"):
        ledger.rounds.finish_step(round_id, "train", {})
    begun = ledger.rounds.begin_step(round_id, "train")
    assert begun.state == StepState.RUNNING
    again = ledger.rounds.begin_step(round_id, "train")  # after a kill
    assert (again.id, again.state) == (begun.id, StepState.RUNNING)
    done = ledger.rounds.finish_step(round_id, "train", {"epochs": 7, "loss": float("nan")})
    assert (done.state, done.summary) == (StepState.FINISHED, {"epochs": 7, "loss": None})
    assert ledger.rounds.finish_step(round_id, "train", {"epochs": 8}) == done
    assert ledger.rounds.begin_step(round_id, "train") == done
    assert ledger.rounds.step(round_id, "train") == done
    assert ledger.rounds.steps(round_id) == [done]
    assert len(ledger.events.list(campaign.id, kind="step")) == 1
