"""A ledger that cannot be reached for a while; tests/kill does it with a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from alflow.errors import LedgerUnavailableError
from alflow.ledger import JobState
from alflow.loop import CampaignContext, LabelWorker, RunLimits, SilentReporter, plain_call, run
from alflow.loop import _outage as outage
from alflow.loop._driver import MAX_OUTAGES
from alflow.loop._outage import through_outage


class Notes(SilentReporter):
    """Remembers what a person is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def away(times: int, function: Callable[..., Any], *, afterwards: bool = False) -> Callable[..., Any]:
    """Lose the ledger so many times before a call, or after it did its work."""
    left = times

    def call(*arguments: Any, **keywords: Any) -> Any:
        nonlocal left
        if left == 0:
            return function(*arguments, **keywords)
        left -= 1
        if afterwards:
            function(*arguments, **keywords)
        raise LedgerUnavailableError("the ledger cannot be reached: the connection is lost")

    return call


def test_a_call_is_repeated_until_the_ledger_answers() -> None:
    report = Notes()
    assert through_outage(away(3, lambda: 7), report) == 7
    assert len(report.notes) == 2
    assert "trying again" in report.notes[0]
    assert "is back after" in report.notes[1]


def test_patience_ends_with_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "PATIENCE_SECONDS", 0.3)
    with pytest.raises(LedgerUnavailableError, match=r"connection is lost; waited 0 s .* the same command continues"):
        through_outage(away(1000, lambda: 7), SilentReporter())


@pytest.mark.parametrize("afterwards", [False, True], ids=["not stored", "stored but not answered"])
def test_a_label_computed_while_the_ledger_is_away_is_stored_once(
    small: CampaignContext, afterwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(name: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if name == "label":
            raise KeyboardInterrupt
        return plain_call(name, function)

    with pytest.raises(KeyboardInterrupt):
        run(small, stop)
    queue = small.ledger.queue
    for name in ("start", "complete"):
        monkeypatch.setattr(queue, name, away(2, getattr(queue, name), afterwards=afterwards))
    done = LabelWorker(small.ledger, small.worker, labelers={small.theory.id: small.labeler}).run()
    jobs = queue.list(campaign=small.campaign_id)
    assert done.labelled == len(jobs)
    assert done.lost == 0
    assert {job.state for job in jobs} == {JobState.DONE}
    assert all(len(queue.attempts(job.id)) == 1 for job in jobs)


@pytest.mark.parametrize("afterwards", [False, True], ids=["before the step", "after its commit"])
@pytest.mark.parametrize("step", ["design", "assess"])
def test_a_run_goes_on_after_an_outage(small: CampaignContext, step: str, afterwards: bool) -> None:
    calls: list[str] = []
    lose = away(1, lambda function: function(), afterwards=afterwards)

    def call(name: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        calls.append(name)
        result: dict[str, Any] = lose(function) if name == step else function()
        return result

    outcome = run(small, call, limits=RunLimits(rounds=1))
    assert outcome.rounds == 1
    assert calls.count(step) == (1 if afterwards else 2), "what was committed is not done again"
    assert len(small.ledger.rounds.list(small.campaign_id)) == 1


def test_a_step_that_the_ledger_never_survives_ends_the_run(small: CampaignContext) -> None:
    tries = 0

    def call(name: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        nonlocal tries
        tries += 1
        raise LedgerUnavailableError("the ledger cannot be reached: it crashed")

    with pytest.raises(LedgerUnavailableError):
        run(small, call)
    assert tries == MAX_OUTAGES + 1
    assert small.campaign.lease_owner is None
