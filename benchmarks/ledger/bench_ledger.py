"""How fast the ledger is, beside the bar for each number: bulk insert, look-ups, selections, the queue. Prints only.

python benchmarks/ledger/bench_ledger.py --structures 1000000 [--backend sqlite|postgresql|both] [--url URL]
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from made_up import candidates, make_chemistry
from server import find_programs, private_server

from alflow.ledger import CandidateState, LabelKind, Ledger, WorkerIdentity, open_ledger
from alflow.ledger._structures import prepare
from alflow.structures import Properties

BATCH = 20_000
#: labels stored and jobs queued through the ledger, to be timed
FEW = 1_000
#: selections with what makes each of them hard
SELECTIONS = {
    "Li,O,Fe=0,state=pooled": "common elements",
    "Pt,O,Fe=0,state=pooled": "a rare element",
    "Mg,Zn,Fe=0,state=pooled": "common alone, rare together",
    "K,O,Fe=0,state=pooled": "common, and last by u",
    "Na,Cu,Fe=0,state=pooled": "common alone, never together",
    "Xe,O,Fe=0,state=pooled": "an element that is nowhere",
}
#: harder than the bar asks for: shown without one
FURTHER = {
    "O,state=pooled": "most of the pool",
    "Li,O,Fe=0": "in any state",
    "Li3,O2,state=pooled": "numbers of atoms, common",
    "Pt2,O2,state=pooled": "numbers of atoms, rare",
    "Li,O,Fe=0,state=pooled,n_atoms<9": "with another column",
    "Mg,Zn,Fe=0,state=pooled,n_atoms<9": "the same, rare together",
}


def spread(values: Sequence[float], unit: str) -> str:
    """Median and range."""
    return f"{np.median(values):10.2f} {unit:4s} ({min(values):.2f}–{max(values):.2f})"


def show(what: str, measured: str, bar: str = "") -> None:
    """Print one line of the table."""
    print(f"{what:72s} {measured:40s} {bar}", flush=True)


def show_rate(what: str, count: int, seconds: float, bar: str = "") -> None:
    show(what, f"{count / seconds:10.0f} /s", bar)


def milliseconds(calls: Iterator[Callable[[], object]]) -> list[float]:
    """Wall time of every call, after a few that are not counted."""
    for call in itertools.islice(calls, 3):
        call()
    times = []
    for call in calls:
        begun = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begun))
    return times


def fill(ledger: Ledger, n: int) -> np.ndarray:
    """Add the pool in batches, each timed, and score it; return the candidates' ids."""
    chemistry = make_chemistry()
    campaign = ledger.campaigns.create("bench", "", {}, 1)
    round_id = ledger.rounds.open(campaign.id, 0).id
    committee = ledger.committees.add(
        round_id, spec={}, training={}, artifact_id=None, metrics={}, calibration=None, seed=0, labels=[]
    )
    ids: list[int] = []
    hashing, cpu, wall, scoring = [], [], [], []
    for start in range(0, n, BATCH):
        made = list(candidates(chemistry, min(BATCH, n - start), seed=start))
        items, u = [item for item, _ in made], np.array([u for _, u in made])
        begun = time.process_time()
        for item in items:
            _ = item.structure.content_hash
        hashing.append(len(items) / (time.process_time() - begun))
        begun, begun_cpu = time.perf_counter(), time.process_time()
        new = ledger.pool.add(campaign.id, round_id, items)
        cpu.append(len(items) / (time.process_time() - begun_cpu))
        wall.append(len(items) / (time.perf_counter() - begun))
        ids += new
        begun = time.perf_counter()
        ledger.pool.set_scores(committee.id, new, u, -u, u, u, u)
        scoring.append(len(items) / (time.perf_counter() - begun))
        if (start // BATCH) % 10 == 9:
            print(f"  {len(ids)}: {cpu[-1]:.0f} /s CPU, {wall[-1]:.0f} /s wall", flush=True)
    show("content hashes, per CPU second", spread(hashing, "/s"))
    show(f"pool.add in batches of {BATCH}, per CPU second of this process", spread(cpu, "/s"), ">= 20000 /s")
    show("the same, per second of wall time", spread(wall, "/s"))
    show("pool.set_scores, per second of wall time", spread(scoring, "/s"))
    begun = time.process_time()
    for item in items:
        prepare(item.structure)
    show_rate(
        "preparing rows of hashed structures, per CPU second, part of pool.add", len(items), time.process_time() - begun
    )
    return np.array(ids)


def queue_rest(ledger: Ledger, candidates: Sequence[int], theory_id: int) -> None:
    """Queue candidates in plain SQL: how fast a campaign queues them, a batch at a time, is timed elsewhere."""
    job = (
        "INSERT INTO job (structure_id, theory_id, state, precedence, fence, attempts, infrastructure_failures,"
        " failures, deaths, message, created, updated)"
        " SELECT structure_id, {theory}, 'queued', 0, 0, 0, 0, 0, 0, '', created, created"
        " FROM candidate WHERE id IN ({ids})"
    )
    request = (
        "INSERT INTO job_request (job_id, candidate_id, created) SELECT job.id, candidate.id, job.created"
        " FROM candidate JOIN job ON job.structure_id = candidate.structure_id AND job.theory_id = {theory}"
        " WHERE candidate.id IN ({ids})"
    )
    state = "UPDATE candidate SET state = 'queued' WHERE id IN ({ids})"
    for start in range(0, len(candidates), 5000):
        ids = ", ".join(map(str, candidates[start : start + 5000]))
        with ledger._database.write() as connection:
            for statement in (job, request, state):
                connection.exec_driver_sql(statement.format(ids=ids, theory=theory_id))


def look_up(ledger: Ledger, ids: np.ndarray, repeats: int, n_jobs: int) -> None:
    """Time the look-ups by index, of other rows each time."""
    rng = np.random.default_rng(1)
    chosen = [int(i) for i in rng.choice(ids, size=repeats + 3)]
    rows = ledger.pool.rows(chosen)
    theory = ledger.theories.register("t", "emt", {}, "emt", {}, "0" * 64)
    pooled = ledger.candidates("state=pooled", campaign=1, limit=FEW + n_jobs)
    labelled, asked = pooled[:FEW], pooled[FEW:]
    with ledger.write():
        for row in labelled:
            ledger.labels.store(
                row.structure_id, theory.id, Properties(energy=-1.0), kind=LabelKind.IMPORTED, evidence={}
            )
    ledger.pool.transition([r.id for r in asked], CandidateState.SELECTED, "benchmark")
    begun = time.perf_counter()
    with ledger.write():
        jobs = [ledger.queue.enqueue(r.structure_id, theory.id, r.id) for r in asked[:FEW]]
    enqueued = len(jobs) / (time.perf_counter() - begun)
    queue_rest(ledger, [r.id for r in asked[FEW:]], theory.id)
    bar = "<= 2 ms"
    for what, calls in {
        "pool.get": (lambda i=i: ledger.pool.get(i) for i in chosen),
        "pool.find by content hash": (lambda r=r: ledger.pool.find(1, r.content_hash) for r in rows),
        "labels.get": (lambda r=r: ledger.labels.get(r.structure_id, theory.id) for r in labelled[: repeats + 3]),
        "queue.get": (lambda j=j: ledger.queue.get(j.id) for j in jobs[: repeats + 3]),
        "why": (lambda i=i: ledger.why(i) for i in chosen),
    }.items():
        show(what, spread(milliseconds(calls), "ms"), bar if what != "why" else "")
    top = "u>1,state=pooled"
    calls = (lambda: ledger.candidates(top, campaign=1, sort="-u", limit=100) for _ in range(repeats + 3))
    show(f"{top}, top 100 by u", spread(milliseconds(calls), "ms"), bar)
    show("queue.enqueue in one transaction", f"{enqueued:10.0f} /s")


def select(ledger: Ledger, repeats: int) -> None:
    """Time the selections by elements."""
    for bar, selections in (("<= 20 ms", SELECTIONS), ("", FURTHER)):
        for selection, trait in selections.items():
            found = ledger.candidates(selection, campaign=1, sort="-u", limit=100)
            calls = (
                lambda s=selection: ledger.candidates(s, campaign=1, sort="-u", limit=100) for _ in range(repeats + 3)
            )
            show(f"{selection} ({trait}; {len(found)} rows)", spread(milliseconds(calls), "ms"), bar)


def drain(url: str, batch: int, ready: multiprocessing.synchronize.Barrier) -> None:
    """Claim until the queue is empty."""
    with open_ledger(url, create=False) as ledger:
        ledger.now()
        ready.wait()
        while ledger.queue.claim(WorkerIdentity.current(), limit=batch, lease_seconds=600):
            pass


def claim(ledger: Ledger, url: str, processes: int, repeats: int) -> None:
    """Time claims by several processes, and completions by one."""
    context = multiprocessing.get_context("spawn")
    jobs = [job.id for job in ledger.queue.list()]
    rates = []
    for _ in range(repeats):
        ready = context.Barrier(processes + 1)
        workers = [context.Process(target=drain, args=(url, 50, ready)) for _ in range(processes)]
        for worker in workers:
            worker.start()
        ready.wait()
        begun = time.perf_counter()
        for worker in workers:
            worker.join()
        rates.append(len(jobs) / (time.perf_counter() - begun))
        with ledger._database.write() as connection:  # the attempts stay
            connection.exec_driver_sql("UPDATE job SET state = 'queued', worker = NULL, lease_until = NULL")
    show(f"queue.claim in batches of 50 by {processes} processes, {len(jobs)} jobs", spread(rates, "/s"), ">= 2000 /s")
    me = WorkerIdentity.current()
    calls = (lambda: ledger.queue.claim(me, limit=1, lease_seconds=600) for _ in range(103))
    show(f"queue.claim, one of {len(jobs)} jobs", spread(milliseconds(calls), "ms"))
    calls = (lambda: ledger.queue.claim(me, limit=50, lease_seconds=600) for _ in range(23))
    show(f"queue.claim, 50 of {len(jobs)} jobs, alone", spread(milliseconds(calls), "ms"))
    claimed = ledger.queue.claim(me, limit=min(300, len(jobs)), lease_seconds=600)
    begun = time.perf_counter()
    for job in claimed:
        ledger.queue.complete(job.job_id, job.fence, Properties(energy=-1.0), {"converged": True})
    show_rate("queue.complete, a transaction each", len(claimed), time.perf_counter() - begun)


def measure(url: str, folder: Path, options: argparse.Namespace) -> None:
    """Everything, on one database."""
    with open_ledger(url, directory=folder / "files") as ledger:
        print(f"\n{ledger.url.partition(':')[0]}: {options.structures} structures\n", flush=True)
        ids = fill(ledger, options.structures)
        if not url.startswith("sqlite"):
            with ledger._database.write() as connection:  # as autovacuum does within a minute
                connection.exec_driver_sql("ANALYZE")
        look_up(ledger, ids, options.repeats, options.jobs)
        select(ledger, options.repeats)
        claim(ledger, url, options.processes, 3)
        stats = ledger.stats()
        show("size of the database", f"{stats['database_bytes'] / options.structures:10.0f} bytes/structure")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=50_000)
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--backend", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--url", help="an empty PostgreSQL database; by default a private server is started")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        if options.backend != "postgresql":
            measure(f"sqlite:///{folder / 'bench.db'}", folder, options)
        if options.backend != "sqlite":
            programs = find_programs()
            if options.url is None and programs is None:
                print("no PostgreSQL server programs on this machine; name an empty database with --url")
                return
            url = options.url or stack.enter_context(private_server(programs))  # type: ignore[arg-type]
            measure(url, folder, options)


if __name__ == "__main__":
    main()
