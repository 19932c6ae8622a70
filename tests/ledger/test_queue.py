from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from alflow.errors import FailureKind, LeaseLostError, NotFoundError, TransitionError
from alflow.ledger import (
    AttemptState,
    CampaignRow,
    CandidateState,
    ClaimedJob,
    JobRow,
    JobState,
    LabelKind,
    Ledger,
    TheoryRow,
    WorkerIdentity,
)
from alflow.structures import Properties

WORKER = WorkerIdentity(name="w1", host="node1", pid=123, boot_id="b", pid_started=5)
OTHER = WorkerIdentity(name="w2", host="node2", pid=124)
ENERGY = Properties(energy=-2.0)
Enqueue = Callable[[Sequence[int]], list[JobRow]]


@pytest.fixture
def jobs(add: Callable[..., list[int]], enqueue: Enqueue) -> list[JobRow]:
    return enqueue(add(3, CandidateState.SELECTED))


def states(ledger: Ledger, campaign: CampaignRow) -> list[CandidateState]:
    return [r.state for r in ledger.candidates(campaign=campaign.id)]


def fail(ledger: Ledger, job: ClaimedJob, kind: FailureKind, **limits: float) -> JobState:
    return ledger.queue.fail(job.job_id, job.fence, kind, "it went wrong", **limits)  # type: ignore[arg-type]


def test_from_selection_to_label(ledger: Ledger, campaign: CampaignRow, theory: TheoryRow, jobs: list[JobRow]) -> None:
    assert [j.state for j in jobs] == [JobState.QUEUED] * 3
    assert states(ledger, campaign) == [CandidateState.QUEUED] * 3
    claimed = ledger.queue.claim(WORKER, limit=2, lease_seconds=60)
    assert [(c.job_id, c.fence, c.attempt_number) for c in claimed] == [(jobs[0].id, 1, 1), (jobs[1].id, 1, 1)]
    assert claimed[0].structure.content_hash == ledger.candidates()[0].content_hash
    first = claimed[0]
    ledger.queue.start(first.job_id, first.fence, submitted=True, scheduler_id="4711")
    assert ledger.queue.get(first.job_id).state == JobState.SUBMITTED
    ledger.queue.start(first.job_id, first.fence, directory="/scratch/x", process_group=7, numerics={"mixing": 0.2})
    assert ledger.queue.get(first.job_id).state == JobState.RUNNING
    assert ledger.queue.heartbeat([(first.job_id, first.fence), (claimed[1].job_id, 1)], 60) == []
    label = ledger.queue.complete(first.job_id, first.fence, ENERGY, {"converged": True}, {"seconds": 3.5})
    assert (label.kind, label.attempt_id, label.evidence) == (LabelKind.COMPUTED, first.attempt_id, {"converged": True})
    assert ledger.labels.get(first.structure_id, theory.id) is not None
    assert states(ledger, campaign) == [CandidateState.LABELLED, CandidateState.QUEUED, CandidateState.QUEUED]
    [attempt] = ledger.queue.attempts(first.job_id)
    assert (attempt.state, attempt.host, attempt.pid_started) == (AttemptState.DONE, "node1", 5)
    assert (attempt.scheduler_id, attempt.directory, attempt.process_group) == ("4711", "/scratch/x", 7)
    assert (attempt.numerics, attempt.timings) == ({"mixing": 0.2}, {"seconds": 3.5})
    assert ledger.queue.counts(campaign.id)[JobState.DONE] == 1
    assert ledger.queue.open_jobs(campaign.id) == 2
    assert [j.id for j in ledger.queue.list(campaign.id, [JobState.DONE])] == [first.job_id]


def test_completing_again_returns_the_label(ledger: Ledger, jobs: list[JobRow]) -> None:
    [job] = ledger.queue.claim(WORKER)
    label = ledger.queue.complete(job.job_id, job.fence, ENERGY, {})
    again = ledger.queue.complete(job.job_id, job.fence, Properties(energy=9.0), {})
    assert (again.id, again.properties.energy) == (label.id, -2.0)


def test_enqueueing_again_is_one_job(
    ledger: Ledger, theory: TheoryRow, add: Callable[..., list[int]], enqueue: Enqueue
) -> None:
    ids = add(2, CandidateState.SELECTED)
    first = enqueue(ids)
    assert [j.id for j in enqueue(ids)] == [j.id for j in first]
    raised = ledger.queue.enqueue(first[1].structure_id, theory.id, ids[1], priority=5.0)
    assert raised.priority == 5.0
    assert ledger.queue.enqueue(first[1].structure_id, theory.id, ids[1]).priority == 5.0
    assert [c.job_id for c in ledger.queue.claim(WORKER, limit=9)] == [first[1].id, first[0].id]  # highest first
    with pytest.raises(TransitionError, match="nothing was queued"):
        ledger.queue.enqueue(first[0].structure_id, theory.id, ids[1])
    with pytest.raises(NotFoundError):
        ledger.queue.enqueue(first[0].structure_id, theory.id, 999)


def test_only_selected_candidates_are_queued(
    ledger: Ledger, campaign: CampaignRow, add: Callable[..., list[int]], enqueue: Enqueue
) -> None:
    ids = add(1)
    with pytest.raises(TransitionError, match="pooled and cannot become queued"):
        enqueue(ids)
    assert ledger.queue.list() == []


def test_a_worker_takes_only_the_theories_it_knows(ledger: Ledger, theory: TheoryRow, jobs: list[JobRow]) -> None:
    assert ledger.queue.claim(WORKER, theories=[theory.id + 1]) == []
    assert len(ledger.queue.claim(WORKER, theories=[theory.id])) == 1


def test_no_job_is_claimed_twice(ledger: Ledger, jobs: list[JobRow]) -> None:
    ours, theirs = ledger.queue.claim(WORKER, limit=2), ledger.queue.claim(OTHER, limit=5)
    assert {j.job_id for j in ours}.isdisjoint(j.job_id for j in theirs)
    assert len(ours) + len(theirs) == 3


def test_a_lost_fence_cannot_write(
    ledger: Ledger, campaign: CampaignRow, theory: TheoryRow, jobs: list[JobRow]
) -> None:
    [old] = ledger.queue.claim(WORKER, lease_seconds=0.2)
    ledger.queue.start(old.job_id, old.fence)
    time.sleep(0.25)
    assert ledger.queue.reclaim_expired() == [old.job_id]
    [new] = ledger.queue.claim(OTHER, lease_seconds=60)
    assert (new.job_id, new.fence) == (old.job_id, old.fence + 1)
    for late in (
        lambda: ledger.queue.complete(old.job_id, old.fence, ENERGY, {}),
        lambda: ledger.queue.fail(old.job_id, old.fence, FailureKind.CRASHED, "x"),
        lambda: ledger.queue.start(old.job_id, old.fence),
    ):
        with pytest.raises(LeaseLostError, match=r"leased with w2"):
            late()
    assert ledger.queue.heartbeat([(old.job_id, old.fence), (new.job_id, new.fence)], 60) == [old.job_id]
    assert ledger.labels.get(old.structure_id, theory.id) is None
    assert [a.state for a in ledger.queue.attempts(old.job_id)] == [AttemptState.LOST, AttemptState.LEASED]
    ledger.queue.complete(new.job_id, new.fence, ENERGY, {})
    with pytest.raises(LeaseLostError, match="done"):
        ledger.queue.complete(old.job_id, old.fence, ENERGY, {})


def test_a_heartbeat_keeps_the_lease(ledger: Ledger, jobs: list[JobRow]) -> None:
    [job] = ledger.queue.claim(WORKER, lease_seconds=0.3)
    assert ledger.queue.heartbeat([(job.job_id, job.fence)], 60) == []
    time.sleep(0.4)
    assert ledger.queue.reclaim_expired() == []


def test_a_worker_gives_back_only_what_it_holds(ledger: Ledger, jobs: list[JobRow]) -> None:
    done, taken, mine = ledger.queue.claim(WORKER, limit=3)
    ledger.queue.complete(done.job_id, done.fence, ENERGY, {})
    ledger.queue.release([taken.job_id])
    [theirs] = ledger.queue.claim(OTHER)
    assert theirs.job_id == taken.job_id
    assert ledger.queue.give_back([(j.job_id, j.fence) for j in (done, taken, mine)]) == [mine.job_id]
    assert [ledger.queue.get(j.id).state for j in jobs] == [JobState.DONE, JobState.LEASED, JobState.QUEUED]
    assert ledger.queue.heartbeat([(theirs.job_id, theirs.fence)], 60) == []
    [first] = ledger.queue.attempts(mine.job_id)
    assert (first.state, first.message) == (AttemptState.RELEASED, "given back by w1")
    with pytest.raises(LeaseLostError):
        ledger.queue.complete(mine.job_id, mine.fence, ENERGY, {})


def test_claiming_takes_over_from_the_dead(ledger: Ledger, jobs: list[JobRow]) -> None:
    [job] = ledger.queue.claim(WORKER, lease_seconds=0.05)
    ledger.queue.start(job.job_id, job.fence)
    time.sleep(0.1)
    again = ledger.queue.claim(OTHER, limit=3)
    assert job.job_id in [j.job_id for j in again]
    row = ledger.queue.get(job.job_id)
    assert (row.deaths, row.attempts, row.error_kind) == (1, 2, FailureKind.WORKER_DIED)


def test_a_job_that_kills_its_workers_is_quarantined(ledger: Ledger, campaign: CampaignRow, jobs: list[JobRow]) -> None:
    for death in range(3):
        claimed = ledger.queue.claim(WORKER, limit=1, lease_seconds=0.02)
        assert [j.job_id for j in claimed] == [jobs[0].id]
        ledger.queue.start(claimed[0].job_id, claimed[0].fence)
        time.sleep(0.05)
        assert ledger.queue.reclaim_expired() == [jobs[0].id]
        assert ledger.queue.get(jobs[0].id).deaths == death + 1
    assert ledger.queue.get(jobs[0].id).state == JobState.QUARANTINED
    assert states(ledger, campaign)[0] == CandidateState.QUARANTINED
    assert [j.job_id for j in ledger.queue.claim(WORKER, limit=9)] == [jobs[1].id, jobs[2].id]


def test_a_job_that_was_claimed_but_not_begun_did_not_kill_its_worker(
    ledger: Ledger, campaign: CampaignRow, jobs: list[JobRow]
) -> None:
    for _ in range(4):
        ledger.queue.claim(WORKER, limit=1, lease_seconds=0.02)
        time.sleep(0.05)
        assert ledger.queue.reclaim_expired() == [jobs[0].id]
    row = ledger.queue.get(jobs[0].id)
    assert (row.state, row.deaths) == (JobState.QUEUED, 0)
    assert {a.state for a in ledger.queue.attempts(jobs[0].id)} == {AttemptState.RELEASED}
    assert ledger.queue.attempts_of(campaign.id) == [], "no calculation failed, so none counts as a failure"


def test_a_queued_candidate_is_not_excluded_while_its_job_would_be_paid_for(
    ledger: Ledger, campaign: CampaignRow, jobs: list[JobRow]
) -> None:
    queued = ledger.pool.ids(campaign.id, [CandidateState.QUEUED])
    with pytest.raises(TransitionError, match="cancel"):
        ledger.pool.exclude(queued[:1], "changed my mind", actor="ada")
    assert ledger.pool.ids(campaign.id, [CandidateState.QUEUED]) == queued


@pytest.mark.parametrize("kind", FailureKind)
def test_failures_by_their_kind(ledger: Ledger, campaign: CampaignRow, jobs: list[JobRow], kind: FailureKind) -> None:
    seen = []
    while True:
        [job] = [j for j in ledger.queue.claim(WORKER, limit=1) if j.job_id == jobs[0].id]
        seen.append(fail(ledger, job, kind, max_infrastructure_retries=2, max_retries=1, retry_delay=0.0))
        if seen[-1] != JobState.RETRY_WAIT:
            break
    row = ledger.queue.get(jobs[0].id)
    if kind in {FailureKind.REFUSED, FailureKind.INCONSISTENT, FailureKind.IMPLAUSIBLE}:
        assert seen == [JobState.FAILED]
    elif kind == FailureKind.MISSING_FILE:
        assert seen == [JobState.QUARANTINED]
    elif kind == FailureKind.CANCELLED:
        assert seen == [JobState.QUEUED]
        assert (row.failures, row.infrastructure_failures) == (0, 0)
    elif kind.infrastructure:
        assert seen == [JobState.RETRY_WAIT] * 2 + [JobState.QUARANTINED]
        assert (row.failures, row.infrastructure_failures) == (0, 3)
    else:
        assert seen == [JobState.RETRY_WAIT, JobState.QUARANTINED]
        assert (row.failures, row.infrastructure_failures) == (2, 0)
    assert row.state == seen[-1]
    candidate = ledger.candidates()[0]
    if row.state != JobState.QUEUED:
        assert str(candidate.state) == str(row.state)
        assert candidate.reason == f"{kind}: it went wrong"


def test_failures_of_the_machine_wait_longer_each_time(ledger: Ledger, jobs: list[JobRow]) -> None:
    [job] = ledger.queue.claim(WORKER, limit=1)
    assert fail(ledger, job, FailureKind.MEMORY, retry_delay=100.0) == JobState.RETRY_WAIT
    row = ledger.queue.get(job.job_id)
    assert row.not_before is not None
    assert 90 < -ledger.seconds_since(row.not_before) <= 100
    assert job.job_id not in [j.job_id for j in ledger.queue.claim(OTHER, limit=9)]
    ledger.queue.release([job.job_id], "ada")
    [job] = ledger.queue.claim(WORKER, limit=9)
    fail(ledger, job, FailureKind.MEMORY, retry_delay=100.0)
    row = ledger.queue.get(job.job_id)
    assert row.not_before is not None
    assert 190 < -ledger.seconds_since(row.not_before) <= 200


def test_the_pause_doubles_up_to_an_hour(ledger: Ledger, jobs: list[JobRow]) -> None:
    waits = []
    for _ in range(4):
        [job] = ledger.queue.claim(WORKER, limit=1)
        fail(ledger, job, FailureKind.TRUNCATED, retry_delay=700.0, max_infrastructure_retries=9)
        row = ledger.queue.get(job.job_id)
        assert row.not_before is not None
        waits.append(-ledger.seconds_since(row.not_before))
        ledger.queue.release([job.job_id])
    assert waits == pytest.approx([700.0, 1400.0, 2800.0, 3600.0], abs=30.0)


def test_failures_of_machine_and_calculation_have_separate_limits(ledger: Ledger, jobs: list[JobRow]) -> None:
    kinds = [FailureKind.MEMORY, FailureKind.NOT_CONVERGED, FailureKind.WALL_TIME, FailureKind.CRASHED]
    seen = []
    for kind in kinds:
        [job] = ledger.queue.claim(WORKER, limit=1)
        assert job.job_id == jobs[0].id
        seen.append(fail(ledger, job, kind, max_infrastructure_retries=2, max_retries=1, retry_delay=0.0))
    assert seen == [JobState.RETRY_WAIT] * 3 + [JobState.QUARANTINED]
    row = ledger.queue.get(jobs[0].id)
    assert (row.infrastructure_failures, row.failures, row.deaths) == (2, 2, 0)


def test_how_many_deaths_a_job_is_given_is_for_the_worker_to_say(ledger: Ledger, jobs: list[JobRow]) -> None:
    [job] = ledger.queue.claim(WORKER, lease_seconds=600)
    ledger.queue.start(job.job_id, job.fence)
    ledger.queue.heartbeat([(job.job_id, job.fence)], -1.0)
    assert job.job_id not in [j.job_id for j in ledger.queue.claim(OTHER, limit=9, max_deaths=1)]
    assert ledger.queue.get(job.job_id).state == JobState.QUARANTINED


def test_slots_limit_a_labeler_and_leave_the_others(
    ledger: Ledger, theory: TheoryRow, add: Callable[..., list[int]], enqueue: Enqueue
) -> None:
    other = ledger.theories.register("dft", "vasp", {}, "vasp 6.4", {}, "f" * 64)
    ids = add(6, CandidateState.SELECTED)
    cheap = [job.id for job in enqueue(ids[:2])]
    dear = [
        ledger.queue.enqueue(ledger.pool.get(i).structure_id, other.id, i, priority=1.0 if i == ids[5] else 0.0).id
        for i in ids[2:]
    ]
    slots = {"vasp": 2, "espresso": 1}
    first = ledger.queue.claim(WORKER, limit=9, slots=slots)
    # the most urgent first, then in the order in which they came, at most two of the labeler
    assert [j.job_id for j in first] == [dear[3], *cheap, dear[0]]
    assert ledger.queue.claim(OTHER, limit=9, slots=slots) == []
    assert [j.job_id for j in ledger.queue.claim(OTHER, limit=9, slots={"vasp": 3})] == [dear[1]]
    ledger.queue.complete(first[0].job_id, first[0].fence, ENERGY, {})
    assert ledger.queue.claim(OTHER, limit=9, slots=slots) == []
    fail(ledger, first[3], FailureKind.REFUSED)
    assert ledger.queue.claim(OTHER, limit=9, theories=[theory.id], slots=slots) == []
    assert [j.job_id for j in ledger.queue.claim(OTHER, limit=9, theories=[other.id], slots=slots)] == [dear[2]]


def test_a_person_retries(ledger: Ledger, campaign: CampaignRow, jobs: list[JobRow]) -> None:
    [job] = ledger.queue.claim(WORKER, limit=1)
    with pytest.raises(TransitionError, match="release it first"):
        ledger.queue.retry([job.job_id])
    fail(ledger, job, FailureKind.REFUSED)
    assert states(ledger, campaign)[0] == CandidateState.FAILED
    [row] = ledger.queue.retry([job.job_id], "ada")
    assert (row.state, row.failures, row.message) == (JobState.QUEUED, 0, "")
    assert states(ledger, campaign)[0] == CandidateState.QUEUED
    [again] = ledger.queue.claim(WORKER, limit=1)
    ledger.queue.complete(again.job_id, again.fence, ENERGY, {})
    with pytest.raises(TransitionError, match="final"):
        ledger.queue.retry([job.job_id])


def test_a_person_releases(ledger: Ledger, jobs: list[JobRow]) -> None:
    [job] = ledger.queue.claim(WORKER, limit=1)
    [row] = ledger.queue.release([job.job_id], "ada")
    assert (row.state, row.worker) == (JobState.QUEUED, None)
    with pytest.raises(LeaseLostError):
        ledger.queue.complete(job.job_id, job.fence, ENERGY, {})
    assert [a.state for a in ledger.queue.attempts(job.job_id)] == [AttemptState.RELEASED]
    [again] = ledger.queue.claim(OTHER, limit=1)
    assert again.fence > job.fence
    fail(ledger, again, FailureKind.REFUSED)
    with pytest.raises(TransitionError, match="retry"):
        ledger.queue.release([job.job_id])


@pytest.fixture
def shared(
    ledger: Ledger, campaign: CampaignRow, theory: TheoryRow, add: Callable[..., list[int]], enqueue: Enqueue
) -> tuple[JobRow, list[int]]:
    """One job that two campaigns ask for."""
    other = ledger.campaigns.create("other", "", {}, 1)
    ids = add(1, CandidateState.SELECTED) + add(1, CandidateState.SELECTED, other.id)
    jobs = enqueue(ids)
    assert jobs[0].id == jobs[1].id
    return jobs[0], ids


def test_two_campaigns_pay_once(ledger: Ledger, shared: tuple[JobRow, list[int]]) -> None:
    job, ids = shared
    [claimed] = ledger.queue.claim(WORKER, limit=9)
    ledger.queue.complete(claimed.job_id, claimed.fence, ENERGY, {})
    assert [r.state for r in ledger.pool.rows(ids)] == [CandidateState.LABELLED] * 2
    assert ledger.queue.candidates_of(job.id) == ids


def test_cancelling_one_campaign_leaves_the_other(
    ledger: Ledger, campaign: CampaignRow, shared: tuple[JobRow, list[int]]
) -> None:
    job, ids = shared
    [row] = ledger.queue.cancel([job.id], campaign.id, "ada")
    assert row.state == JobState.QUEUED
    rows = ledger.pool.rows(ids)
    assert [r.state for r in rows] == [CandidateState.REJECTED, CandidateState.QUEUED]
    assert rows[0].reason == "labelling was cancelled by ada"
    with pytest.raises(NotFoundError, match="does not ask"):
        ledger.queue.cancel([job.id], campaign.id)
    [claimed] = ledger.queue.claim(WORKER)
    ledger.queue.complete(claimed.job_id, claimed.fence, ENERGY, {})
    assert [r.state for r in ledger.pool.rows(ids)] == [CandidateState.REJECTED, CandidateState.LABELLED]


def test_cancelling_all_ends_the_job_and_its_worker(ledger: Ledger, shared: tuple[JobRow, list[int]]) -> None:
    job, ids = shared
    [claimed] = ledger.queue.claim(WORKER)
    [row] = ledger.queue.cancel([job.id], actor="ada")
    assert row.state == JobState.CANCELLED
    with pytest.raises(LeaseLostError, match="cancelled"):
        ledger.queue.complete(claimed.job_id, claimed.fence, ENERGY, {})
    with pytest.raises(TransitionError, match="nothing left to cancel"):
        ledger.queue.cancel([job.id])
    [row] = ledger.queue.retry([job.id], "ada")
    assert row.state == JobState.QUEUED
    assert [r.state for r in ledger.pool.rows(ids)] == [CandidateState.QUEUED] * 2


def test_what_another_campaign_knows_is_shared(
    ledger: Ledger, theory: TheoryRow, campaign: CampaignRow, add: Callable[..., list[int]], enqueue: Enqueue
) -> None:
    ids = add(2, CandidateState.SELECTED)
    jobs = enqueue(ids)
    done, refused = ledger.queue.claim(WORKER, limit=2)
    ledger.queue.complete(done.job_id, done.fence, ENERGY, {})
    fail(ledger, refused, FailureKind.REFUSED)
    other = ledger.campaigns.create("other", "", {}, 1)
    late = add(2, CandidateState.SELECTED, other.id)
    assert [j.id for j in enqueue(late)] == [j.id for j in jobs]
    rows = ledger.pool.rows(late)
    assert [r.state for r in rows] == [CandidateState.LABELLED, CandidateState.FAILED]
    assert "held label" in rows[0].reason
    assert "refused" in rows[1].reason
    assert ledger.queue.claim(WORKER, limit=9) == []


def test_an_imported_label_ends_the_job(
    ledger: Ledger, campaign: CampaignRow, theory: TheoryRow, jobs: list[JobRow]
) -> None:
    [job] = ledger.queue.claim(WORKER)
    imported = ledger.labels.store(
        job.structure_id, theory.id, Properties(energy=-5.0), kind=LabelKind.IMPORTED, evidence={"file": "x"}
    )
    label = ledger.queue.complete(job.job_id, job.fence, ENERGY, {})
    assert (label.id, label.properties.energy) == (imported.id, -5.0)
    candidate = ledger.candidates()[0]
    assert candidate.state == CandidateState.LABELLED
    assert "earlier label" in candidate.reason


def test_failures_are_counted_by_their_cause(
    ledger: Ledger, campaign: CampaignRow, add: Callable[..., list[int]], enqueue: Enqueue
) -> None:
    enqueue(add(5, CandidateState.SELECTED))
    assert ledger.queue.failures() == []
    kinds = [FailureKind.REFUSED, FailureKind.MISSING_FILE, FailureKind.REFUSED, FailureKind.MEMORY]
    for kind in kinds:
        [job] = ledger.queue.claim(WORKER, limit=1)
        ledger.queue.fail(job.job_id, job.fence, kind, f"{kind} of job {job.job_id}", retry_delay=1000.0)
    jobs = [job.id for job in ledger.queue.list()]
    found = ledger.queue.failures(campaign.id)
    # memory is tried again: not given up
    assert [(f.kind, f.count) for f in found] == [("refused", 2), ("missing_file", 1)]
    assert found[0].example == f"refused of job {jobs[2]}"
    assert found[0].suggestion == FailureKind.REFUSED.suggestion
    assert ledger.queue.failures(ledger.campaigns.create("other", "", {}, 1).id) == []


def test_unknown_jobs(ledger: Ledger) -> None:
    for call in (
        lambda: ledger.queue.get(99),
        lambda: ledger.queue.retry([99]),
        lambda: ledger.queue.complete(99, 1, ENERGY, {}),
    ):
        with pytest.raises(NotFoundError, match="99"):
            call()


def test_a_worker_describes_itself() -> None:
    me = WorkerIdentity.current()
    assert me.name.endswith(f":{me.pid}")
    assert me == WorkerIdentity.current()
