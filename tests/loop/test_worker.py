"""The label worker: what it leaves behind when it is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers import Labeler, RetrySettings
from alflow.ledger import AttemptState, JobState
from alflow.loop import CampaignContext, LabelWorker, plain_call, run
from alflow.structures import Structure


class Stops:
    """A labeler that is interrupted at its second job, or as soon as the label of the first is stored."""

    def __init__(self, labeler: Any) -> None:
        self.labeler, self.calls = labeler, 0

    def label(self, structure: Structure, directory: Path) -> Any:
        self.calls += 1
        if self.calls == 2:
            raise KeyboardInterrupt
        return self.labeler.label(structure, directory)


class Fails:
    """A labeler that fails in one way."""

    def __init__(self, kind: FailureKind) -> None:
        self.kind = kind

    def label(self, structure: Structure, directory: Path) -> Any:
        raise LabelFailure(self.kind, "it went wrong")


@pytest.fixture
def queued(small: CampaignContext) -> CampaignContext:
    """A campaign whose first jobs wait."""

    def call(name: str, function: Any) -> dict[str, Any]:
        if name == "label":
            raise KeyboardInterrupt
        return plain_call(name, function)

    with pytest.raises(KeyboardInterrupt):
        run(small, call)
    return small


@pytest.mark.parametrize("after_storing", [False, True])
def test_an_interrupted_worker_gives_its_jobs_back(
    queued: CampaignContext, after_storing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeler: Any = queued.labeler if after_storing else Stops(queued.labeler)
    if after_storing:

        def interrupt(*_args: Any, **_kwargs: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("alflow.loop._worker.shutil.rmtree", interrupt)
    config = queued.worker.model_copy(update={"batch": 3, "keep_files": False})
    worker = LabelWorker(queued.ledger, config, labelers={queued.theory.id: labeler})
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    counts = queued.ledger.queue.counts(queued.campaign_id)
    jobs = queued.ledger.queue.list(queued.campaign_id)
    assert counts[JobState.DONE] == 1
    assert counts[JobState.QUEUED] == len(jobs) - 1
    attempts = [a.state for job in jobs for a in queued.ledger.queue.attempts(job.id)]
    assert attempts == [AttemptState.DONE, AttemptState.RELEASED, AttemptState.RELEASED]
    assert all(job.deaths == 0 for job in jobs)


@pytest.mark.parametrize("kind", [FailureKind.MEMORY, FailureKind.NOT_CONVERGED])
def test_the_worker_file_says_how_often_a_job_is_repeated(queued: CampaignContext, kind: FailureKind) -> None:
    retries = RetrySettings(machine=2, calculation=0, delay_seconds=0.0)
    config = queued.worker.model_copy(update={"retries": retries, "batch": 1})
    jobs = queued.ledger.queue.list(queued.campaign_id)
    worker = LabelWorker(queued.ledger, config, labelers={queued.theory.id: cast("Labeler", Fails(kind))})
    summary = worker.run(max_jobs=3)
    attempts = [job.attempts for job in queued.ledger.queue.list(queued.campaign_id, [JobState.QUARANTINED])]
    if kind.infrastructure:
        assert (summary.retried, summary.failed, attempts) == (2, 1, [3])
    else:
        assert (summary.retried, summary.failed, attempts) == (0, 3, [1, 1, 1])
    assert len(jobs) > 3


def test_a_worker_holds_no_more_slots_than_it_uses(queued: CampaignContext, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    claim = queued.ledger.queue.claim

    def watched(*args: Any, **kwargs: Any) -> Any:
        limits.append((kwargs["limit"], kwargs["slots"]))
        return claim(*args, **kwargs)

    monkeypatch.setattr(queued.ledger.queue, "claim", watched)
    for slots in ({"emt": 3}, {"vasp": 3}):
        config = queued.worker.model_copy(update={"slots": slots, "batch": 2})
        LabelWorker(queued.ledger, config, labelers={queued.theory.id: queued.labeler}).run(max_jobs=2)
    assert limits == [(1, {"emt": 3}), (1, {"emt": 3}), (2, {"vasp": 3})]
