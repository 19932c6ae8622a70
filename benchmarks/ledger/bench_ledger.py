"""How fast the ledger is: bulk insert, look-ups, selections, claims. Prints only.

python benchmarks/ledger/bench_ledger.py --structures 100000 [--url postgresql+psycopg://…]
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from alflow.ledger import CandidateState, Ledger, NewCandidate, WorkerIdentity, open_ledger
from alflow.ledger._structures import prepare
from alflow.structures import Properties, Structure

ELEMENTS = np.array([3, 8, 26, 22, 14, 12, 13, 20, 25, 28, 29, 30])
SHARES = np.array([0.1, 0.3, 0.2, 0.1, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.005, 0.005])


def structures(n: int, seed: int = 0) -> Iterator[Structure]:
    """Random cells of 8 atoms, some elements common and some rare."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        species = rng.choice(ELEMENTS, size=3, replace=False, p=SHARES)
        yield Structure(
            cell=np.eye(3) * 5 + rng.normal(size=(3, 3)) * 0.1,
            pbc=[True] * 3,
            numbers=species[[0, 0, 0, 1, 1, 1, 2, 2]],
            positions=rng.random((8, 3)) * 5,
        )


@contextmanager
def timed(what: str, count: int | None = None) -> Iterator[None]:
    """Print how long a block takes."""
    begun = time.perf_counter()
    yield
    seconds = time.perf_counter() - begun
    print(f"{what:64s} {seconds:8.3f} s" + (f"  {count / seconds:10.0f} /s" if count else ""), flush=True)


def median_ms(call: Callable[[], object], repeats: int = 15) -> float:
    """Median time of a call, ms."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begun))
    return float(np.median(times))


def drain(url: str, batch: int) -> None:
    """Claim and complete until the queue is empty."""
    with open_ledger(url, create=False) as ledger:
        while jobs := ledger.queue.claim(WorkerIdentity.current(), limit=batch, lease_seconds=600):
            del jobs


def bulk(ledger: Ledger, n: int) -> list[int]:
    campaign = ledger.campaigns.create("bench", "", {}, 1)
    ids: list[int] = []
    seconds = prepared = 0.0
    for start in range(0, n, 20_000):
        batch = list(structures(min(20_000, n - start), seed=start))
        begun = time.perf_counter()
        for s in batch:
            prepare(s)
        prepared += time.perf_counter() - begun
        items = [
            NewCandidate(structure=s, source="random", state=CandidateState.POOLED, reason="passed the filters")
            for s in batch
        ]
        begun = time.perf_counter()
        ids += ledger.pool.add(campaign.id, None, items)
        seconds += time.perf_counter() - begun
    print(f"{'pool.add, structures and candidates':64s} {seconds:8.3f} s  {n / seconds:10.0f} /s")
    print(f"{'  of which hashing and packing, outside the transaction':64s} {prepared:8.3f} s  {n / prepared:10.0f} /s")
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=50_000)
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--url", default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.url or f"sqlite:///{Path(folder) / 'bench.db'}"
        with open_ledger(url, directory=Path(folder) / "files") as ledger:
            ids = bulk(ledger, options.structures)
            round_id = ledger.rounds.open(1, 0).id
            committee = ledger.committees.add(
                round_id, spec={}, training={}, artifact_id=None, metrics={}, calibration=None, seed=0, labels=[]
            )
            u = np.random.default_rng(0).lognormal(size=len(ids))
            with timed("pool.set_scores", len(ids)):
                ledger.pool.set_scores(committee.id, ids, u, -u, u, u, u)
            hashes = [ledger.pool.get(i).content_hash for i in ids[:: max(1, len(ids) // 15)]]
            for what, call in {
                "pool.get": lambda: ledger.pool.get(ids[len(ids) // 2]),
                "pool.find by content hash": lambda: ledger.pool.find(1, hashes[7]),
                "u>1, pooled, top 100": lambda: ledger.candidates("u>1,state=pooled", campaign=1, sort="-u", limit=100),
                "Li,O,Fe=0, pooled, top 100 (common)": lambda: ledger.candidates(
                    "Li,O,Fe=0,state=pooled", campaign=1, sort="-u", limit=100
                ),
                "Cu,O,Fe=0, pooled, top 100 (rare)": lambda: ledger.candidates(
                    "Cu,O,Fe=0,state=pooled", campaign=1, sort="-u", limit=100
                ),
                "why": lambda: ledger.why(ids[len(ids) // 2]),
            }.items():
                print(f"{what:64s} {median_ms(call):8.2f} ms")
            theory = ledger.theories.register("t", "emt", {}, "emt", {}, "0" * 64)
            chosen = ids[: options.jobs]
            ledger.pool.transition(chosen, CandidateState.SELECTED, "benchmark")
            rows = ledger.pool.rows(chosen)
            with timed("queue.enqueue, one transaction", len(rows)), ledger.write():
                for row in rows:
                    ledger.queue.enqueue(row.structure_id, theory.id, row.id)
            context = multiprocessing.get_context("spawn")
            workers = [context.Process(target=drain, args=(url, 50)) for _ in range(options.processes)]
            with timed(f"queue.claim, batches of 50, {options.processes} processes, with their start", len(rows)):
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()
            ledger.queue.release([job.id for job in ledger.queue.list()])
            with timed("queue.claim, batches of 50, one process", len(rows)):
                claimed = []
                while jobs := ledger.queue.claim(WorkerIdentity.current(), limit=50, lease_seconds=600):
                    claimed += jobs
            with timed("queue.complete", 300):
                for job in claimed[:300]:
                    ledger.queue.complete(job.job_id, job.fence, Properties(energy=-1.0), {"converged": True})


if __name__ == "__main__":
    main()
