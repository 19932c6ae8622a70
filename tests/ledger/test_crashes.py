"""Workers that are killed in the middle: nothing lost, nothing labelled twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier, Event

import pytest
from sqlalchemy import func, select

from alflow.errors import LeaseLostError
from alflow.ledger import (
    HELD_JOBS,
    CampaignRow,
    CandidateState,
    JobRow,
    JobState,
    Ledger,
    WorkerIdentity,
    check_ledger,
    open_ledger,
)
from alflow.ledger import _tables as t
from alflow.structures import Properties

LEASE = 0.6
N_JOBS = 60
SLOTS = 5


@pytest.fixture
def server() -> ForkServerContext:
    """Where workers start from: a process that has imported everything, so that a new one is there in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alflow.ledger", "pytest"])
    return context


def work(url: str, seed: int, stop: Event) -> None:
    """Label until told to stop; now and then sleep through the lease, as a machine that hung would."""
    draw = random.Random(seed)
    worker = WorkerIdentity.current(f"w{seed}")
    with open_ledger(url, create=False) as ledger:
        while not stop.is_set():
            for job in ledger.queue.claim(worker, limit=3, lease_seconds=LEASE):
                time.sleep(0.02 + (2 * LEASE if draw.random() < 0.05 else 0.0))
                try:
                    ledger.queue.complete(
                        job.job_id, job.fence, Properties(energy=float(job.structure_id)), {"by": seed}
                    )
                except LeaseLostError:
                    break
            else:
                time.sleep(0.02)


@pytest.mark.integration
def test_every_job_is_labelled_exactly_once(
    server: ForkServerContext,
    ledger: Ledger,
    url: str,
    campaign: CampaignRow,
    add: Callable[..., list[int]],
    enqueue: Callable[[list[int]], list[JobRow]],
) -> None:
    ids = add(N_JOBS, CandidateState.SELECTED)
    with ledger.write():
        jobs = enqueue(ids)
    stop = server.Event()

    def begin(seed: int) -> ForkServerProcess:
        process = server.Process(target=work, args=(url, seed, stop))
        process.start()
        return process

    workers = [begin(seed) for seed in range(3)]
    kills, deadline = 0, time.monotonic() + 120
    while ledger.queue.open_jobs() and time.monotonic() < deadline:
        time.sleep(0.1)
        busy = [w for w in workers if w.is_alive()]
        if kills < 4 and ledger.queue.counts()[JobState.DONE] > 3 * kills:
            victim = busy[0]
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            workers.remove(victim)
            kills += 1
            workers.append(begin(10 + kills))
    stop.set()
    for worker in workers:
        worker.join(30)
    assert kills == 4
    # a job whose workers were killed or hung three times is set aside, by design, and waits for a person
    quarantined = ledger.queue.list(states=[JobState.QUARANTINED])
    counts = ledger.queue.counts()
    assert counts[JobState.DONE] + len(quarantined) == N_JOBS == len(jobs)
    with ledger._database.read() as connection:
        labels = connection.scalar(select(func.count()).select_from(t.Label))
        structures = connection.scalar(select(func.count(t.Label.structure_id.distinct())))
        done = connection.scalar(select(func.count()).select_from(t.Attempt).where(t.Attempt.state == "done"))
    assert labels == structures == done == counts[JobState.DONE]
    states = [row.state for row in ledger.pool.rows(ids)]
    assert states.count(CandidateState.LABELLED) == labels
    assert check_ledger(url) == []


def work_in_slots(url: str, seed: int, ready: Barrier, most: Synchronized[int]) -> None:
    """Label in slots until the queue is empty, and look how many are taken while some are held."""
    worker = WorkerIdentity.current(f"w{seed}")
    with open_ledger(url, create=False) as ledger:
        ready.wait(60)
        while ledger.queue.open_jobs():
            jobs = ledger.queue.claim(worker, limit=2, lease_seconds=60, slots={"emt": SLOTS})
            counts = ledger.queue.counts()
            with most.get_lock():
                most.value = max(most.value, sum(counts[state] for state in HELD_JOBS))
            time.sleep(0.03 if jobs else 0.01)
            for job in jobs:
                ledger.queue.complete(job.job_id, job.fence, Properties(energy=1.0), {})


@pytest.mark.integration
def test_eight_workers_never_take_more_slots_than_there_are(
    server: ForkServerContext,
    ledger: Ledger,
    url: str,
    add: Callable[..., list[int]],
    enqueue: Callable[[list[int]], list[JobRow]],
) -> None:
    ids = add(N_JOBS, CandidateState.SELECTED)
    with ledger.write():
        enqueue(ids)
    ready, most = server.Barrier(8), server.Value("i", 0)
    workers = [server.Process(target=work_in_slots, args=(url, seed, ready, most)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert most.value == SLOTS
    assert ledger.queue.counts()[JobState.DONE] == N_JOBS
    assert check_ledger(url) == []


def drive(url: str, campaign_id: int, begun: Event) -> None:
    with open_ledger(url, create=False) as ledger:
        fence = ledger.campaigns.acquire_lease(campaign_id, "victim", 1.0)
        with ledger.write():
            ledger.campaigns.check_fence(campaign_id, fence)
            ledger.rounds.open(campaign_id, 7)
            begun.set()
            time.sleep(60)


@pytest.mark.integration
def test_a_run_killed_inside_a_transaction_leaves_nothing_of_it(
    server: ForkServerContext, ledger: Ledger, url: str, campaign: CampaignRow
) -> None:
    begun = server.Event()
    run = server.Process(target=drive, args=(url, campaign.id, begun))
    run.start()
    assert begun.wait(60)
    os.kill(run.pid or 0, signal.SIGKILL)
    run.join()
    time.sleep(1.1)
    fence = ledger.campaigns.acquire_lease(campaign.id, "the next", 60)
    assert fence == 2
    assert ledger.rounds.list(campaign.id) == []
    assert check_ledger(url) == []
