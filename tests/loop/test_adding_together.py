"""Several processes add copies of the same structures at the same time: exactly one of each is kept."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from alflow.ledger import CandidateState
from alflow.loop import add_structures, open_campaign
from alflow.structures import DuplicatePolicy, Structure, find_duplicates
from tests.disguises import disguise, jiggled
from tests.loop.conftest import MakeCampaign

N_PROCESSES = 8
#: how many structures a process adds at a time
BATCHES = (1, 7, 50, 1000)


def originals(n: int) -> list[Structure]:
    """Cells of four atoms in few compositions, so that all come into a few buckets."""
    rng = np.random.default_rng(11)
    made = []
    for i in range(n):
        atoms = bulk("Ni", "fcc", a=3.75 * np.exp(rng.uniform(-0.03, 0.03)), cubic=True)
        atoms.numbers = np.array([78] * (i % 3) + [28] * (4 - i % 3))
        made.append(Structure.from_atoms(jiggled(atoms, rng, 0.15)))
    return made


def add_copies(path: Path, n: int, place: int, ready: multiprocessing.synchronize.Barrier) -> None:
    """Add a copy of every structure, in an order and in clothes of this process's own."""
    rng = np.random.default_rng(100 + place)
    copies = [Structure.from_atoms(disguise(s.to_atoms(), rng)) for s in originals(n)]
    order = rng.permutation(n)
    ctx = open_campaign(path)
    size = BATCHES[place % len(BATCHES)]
    ready.wait()
    for start in range(0, n, size):
        add_structures(ctx, [(copies[i], f"original {i}") for i in order[start : start + size]])
    ctx.ledger.close()


@pytest.mark.integration
@pytest.mark.parametrize("n", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_of_copies_that_come_together_one_is_kept(make_campaign: MakeCampaign, n: int) -> None:
    assert len(set(find_duplicates(originals(n), DuplicatePolicy.redundant()).tolist())) == n
    path = make_campaign()
    ctx = open_campaign(path)
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(N_PROCESSES)
    processes = [context.Process(target=add_copies, args=(path, n, place, ready)) for place in range(N_PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * N_PROCESSES
    rows = ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id))
    counts = ctx.ledger.pool.counts(ctx.campaign_id)
    assert {state: count for state, count in counts.items() if count} == {
        CandidateState.POOLED: n,
        CandidateState.DUPLICATE: (N_PROCESSES - 1) * n,
    }
    kept = {row.id: row.parameters["from"] for row in rows if row.state is CandidateState.POOLED}
    assert sorted(kept.values()) == sorted(f"original {i}" for i in range(n))
    for row in rows:
        if row.state is CandidateState.DUPLICATE:
            assert row.duplicate_of is not None
            assert kept[row.duplicate_of] == row.parameters["from"]
            assert row.relation is not None
            assert row.relation["relation"] == "identical"
