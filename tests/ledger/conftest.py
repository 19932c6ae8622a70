"""Ledgers to test with: every repository test runs on SQLite, and as an integration test on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from alflow.ledger import (
    CampaignRow,
    CandidateState,
    JobRow,
    Ledger,
    NewCandidate,
    TheoryRow,
    open_ledger,
)
from alflow.structures import Structure


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """A fresh open ledger."""
    with open_ledger(url) as opened:
        yield opened


@pytest.fixture
def campaign(ledger: Ledger) -> CampaignRow:
    return ledger.campaigns.create("Ni-Pt", "stable compounds", {"elements": ["Ni", "Pt"]}, 1)


@pytest.fixture
def theory(ledger: Ledger) -> TheoryRow:
    return ledger.theories.register("emt", "emt", {}, "ase 3.29 emt", {}, "e" * 64)


@pytest.fixture
def crystals() -> Callable[[int], list[Structure]]:
    """Different small crystals, the same ones for the same number."""
    return lambda n: [_crystal(i) for i in range(n)]


def _crystal(i: int) -> Structure:
    rng = np.random.default_rng(i)
    n_atoms = 1 + i % 4
    return Structure(
        cell=np.eye(3) * (2.5 + n_atoms),
        pbc=np.ones(3, dtype=bool),
        numbers=rng.choice([28, 78, 29], size=n_atoms),
        positions=rng.random((n_atoms, 3)) * 3 + np.arange(n_atoms)[:, None],
    )


@pytest.fixture
def add(ledger: Ledger, campaign: CampaignRow, crystals: Callable[[int], list[Structure]]) -> Callable[..., list[int]]:
    """Bring new candidates of a campaign into a state by the allowed way."""

    def add(n: int, to: CandidateState = CandidateState.POOLED, campaign_id: int | None = None) -> list[int]:
        structures = crystals(n)
        owner = campaign.id if campaign_id is None else campaign_id
        ids = ledger.pool.add(owner, None, [NewCandidate(structure=s, source="perturb") for s in structures])
        way = {
            CandidateState.PROPOSED: [],
            CandidateState.POOLED: [CandidateState.POOLED],
            CandidateState.SELECTED: [CandidateState.POOLED, CandidateState.SELECTED],
            CandidateState.QUEUED: [CandidateState.POOLED, CandidateState.SELECTED, CandidateState.QUEUED],
        }[to]
        for state in way:
            ledger.pool.transition(ids, state, f"made {state}")
        return ids

    return add


@pytest.fixture
def enqueue(ledger: Ledger, theory: TheoryRow) -> Callable[[Sequence[int]], list[JobRow]]:
    """Ask for labels of selected candidates."""

    def enqueue(ids: Sequence[int]) -> list[JobRow]:
        return [ledger.queue.enqueue(ledger.pool.get(i).structure_id, theory.id, i) for i in ids]

    return enqueue
