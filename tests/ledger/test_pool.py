from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from alflow.errors import LedgerError, NotFoundError, TransitionError
from alflow.ledger import CampaignRow, CandidateState, LabelKind, Ledger, NewCandidate, NewScore, Stream, TheoryRow
from alflow.ledger import _pool as pool_module
from alflow.structures import Properties, Structure, fingerprint


@pytest.fixture
def new(crystals: Callable[[int], list[Structure]]) -> Callable[[int], list[NewCandidate]]:
    return lambda n: [
        NewCandidate(structure=s, source="perturb", parameters={"rattle": 0.1 * i}, fingerprint=fingerprint(s))
        for i, s in enumerate(crystals(n))
    ]


def test_what_goes_in_comes_out(
    ledger: Ledger, campaign: CampaignRow, new: Callable[[int], list[NewCandidate]]
) -> None:
    items = new(9)
    round_id = ledger.rounds.open(campaign.id, 3).id
    ids = ledger.pool.add(campaign.id, round_id, items)
    assert len(set(ids)) == 9
    for row, item, structure in zip(ledger.pool.rows(ids), items, ledger.pool.structures(ids), strict=True):
        assert structure == item.structure
        assert np.array_equal(structure.positions, item.structure.positions)
        assert row.content_hash == item.structure.content_hash
        assert (row.formula, row.reduced_formula, row.chemical_system, row.anonymous_formula) == (
            item.structure.formula,
            item.structure.reduced_formula,
            item.structure.chemical_system,
            item.structure.anonymous_formula,
        )
        assert (row.n_atoms, row.n_elements) == (item.structure.n_atoms, len(item.structure.elements))
        assert row.volume == item.structure.volume
        assert row.parameters == item.parameters
        assert (row.source, row.round_index, row.campaign) == ("perturb", 3, "Ni-Pt")
        assert (row.state, row.stream, row.u) == (CandidateState.PROPOSED, Stream.ACTIVE, None)


def test_adding_again_changes_nothing(
    ledger: Ledger, campaign: CampaignRow, new: Callable[[int], list[NewCandidate]]
) -> None:
    ids = ledger.pool.add(campaign.id, None, new(5))
    ledger.pool.transition(ids, CandidateState.POOLED, "fine")
    before, events = ledger.pool.rows(ids), ledger.events.list()
    mixed = [*new(7), *new(3)]
    assert ledger.pool.add(campaign.id, None, mixed)[:5] == ids
    assert ledger.pool.add(campaign.id, None, mixed)[7:] == ids[:3]
    assert ledger.pool.rows(ids) == before
    assert len(ledger.events.list()) == len(events) + 1  # the two new ones, once
    assert len(ledger.pool.ids(campaign.id)) == 7


def test_campaigns_share_structures_but_not_candidates(
    ledger: Ledger, campaign: CampaignRow, new: Callable[[int], list[NewCandidate]]
) -> None:
    other = ledger.campaigns.create("other", "", {}, 1)
    ours, theirs = ledger.pool.add(campaign.id, None, new(4)), ledger.pool.add(other.id, None, new(4))
    assert not set(ours) & set(theirs)
    assert [r.structure_id for r in ledger.pool.rows(ours)] == [r.structure_id for r in ledger.pool.rows(theirs)]
    assert ledger.stats()["rows"]["structure"] == 4


def test_bulk_additions_are_cut_into_short_transactions(
    ledger: Ledger,
    campaign: CampaignRow,
    new: Callable[[int], list[NewCandidate]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_module, "_FIRST_CHUNK", 10)
    monkeypatch.setattr(pool_module, "_LARGEST_CHUNK", 10)
    ids = ledger.pool.add(campaign.id, None, new(100))
    assert ledger.pool.ids(campaign.id) == ids
    proposed = ledger.events.list(campaign.id, kind="proposed")
    assert len(proposed) > 1
    assert sum(e.payload["states"]["proposed"] for e in proposed) == 100


def test_inside_a_write_block_all_or_nothing(
    ledger: Ledger, campaign: CampaignRow, new: Callable[[int], list[NewCandidate]]
) -> None:
    def interrupted() -> None:
        with ledger.write():
            ids = ledger.pool.add(campaign.id, None, new(3))
            ledger.pool.transition(ids, CandidateState.POOLED, "fine")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ledger.pool.ids(campaign.id) == []
    assert ledger.events.list(kind="proposed") == []


def test_a_reason_and_an_original_are_needed(
    ledger: Ledger,
    campaign: CampaignRow,
    new: Callable[[int], list[NewCandidate]],
    crystals: Callable[[int], list[Structure]],
) -> None:
    ids = ledger.pool.add(campaign.id, None, new(2))
    with pytest.raises(TransitionError, match="reason"):
        ledger.pool.transition(ids, CandidateState.POOLED, "")
    with pytest.raises(TransitionError, match="duplicate_of"):
        ledger.pool.transition(ids, CandidateState.DUPLICATE, "looks the same")
    for state, told in ((CandidateState.REJECTED, "reason"), (CandidateState.DUPLICATE, "reason")):
        with pytest.raises(TransitionError, match=told):
            ledger.pool.add(campaign.id, None, [NewCandidate(structure=crystals(3)[2], source="x", state=state)])
    with pytest.raises(LedgerError):  # the database keeps a row from being its own duplicate
        ledger.pool.transition(ids[:1], CandidateState.DUPLICATE, "of itself", duplicate_of=ids[0])
    assert {r.state for r in ledger.pool.rows(ids)} == {CandidateState.PROPOSED}


def test_one_refusal_keeps_all_where_they_are(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    ids = add(4)
    ledger.pool.transition(ids[3:], CandidateState.REJECTED, "too dense")
    with pytest.raises(TransitionError, match=f"candidate {ids[3]} "):
        ledger.pool.transition(ids, CandidateState.SELECTED, "best")
    assert [r.state for r in ledger.pool.rows(ids)] == [CandidateState.POOLED] * 3 + [CandidateState.REJECTED]
    with pytest.raises(NotFoundError, match="99999"):
        ledger.pool.transition([*ids, 99999], CandidateState.SELECTED, "best")


def test_transitions_take_one_value_each(ledger: Ledger, campaign: CampaignRow, add: Callable[..., list[int]]) -> None:
    ids = add(3)
    moved = ledger.pool.transition(
        ids,
        CandidateState.SELECTED,
        ["most uncertain", "drawn at random", "most uncertain"],
        stream=[Stream.ACTIVE, Stream.RANDOM, Stream.ACTIVE],
        inclusion_probability=[None, 0.25, None],
        rank=[1, 2, 3],
    )
    assert moved == ids
    rows = ledger.pool.rows(ids)
    assert [(r.reason, r.stream, r.inclusion_probability, r.rank) for r in rows] == [
        ("most uncertain", Stream.ACTIVE, None, 1),
        ("drawn at random", Stream.RANDOM, 0.25, 2),
        ("most uncertain", Stream.ACTIVE, None, 3),
    ]
    event = ledger.events.list(campaign.id)[-1]
    assert event.payload["to"] == "selected"
    assert {c["reason"]: c["ids"] for c in event.payload["changes"]} == {
        "most uncertain": [[ids[0], ids[0]], [ids[2], ids[2]]],
        "drawn at random": [[ids[1], ids[1]]],
    }
    with pytest.raises(ValueError, match="2 values of rank for 3"):
        ledger.pool.transition(ids, CandidateState.QUEUED, "x", rank=[1, 2])


def test_repeating_a_transition_changes_nothing(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    ids = add(3, CandidateState.SELECTED)
    before, events = ledger.pool.rows(ids), len(ledger.events.list(limit=None))
    assert ledger.pool.transition(ids, CandidateState.SELECTED, "again", rank=9) == []
    assert ledger.pool.rows(ids) == before
    assert len(ledger.events.list(limit=None)) == events


def test_pins_and_exclusions(ledger: Ledger, campaign: CampaignRow, add: Callable[..., list[int]]) -> None:
    ids = add(3)
    ledger.pool.pin(ids[:2], "I want to know", actor="ada")
    assert [r.pinned for r in ledger.pool.rows(ids)] == [True, True, False]
    ledger.pool.unpin(ids[:1])
    assert ledger.pool.exclude(ids[1:], "known to be wrong", actor="ada") == ids[1:]
    rows = ledger.pool.rows(ids)
    assert [r.pinned for r in rows] == [False] * 3
    assert rows[1].state == CandidateState.REJECTED
    assert rows[1].reason == "excluded by ada: known to be wrong"
    assert [e.actor for e in ledger.events.list(campaign.id, kind="pinned")] == ["ada"]


def test_scores(ledger: Ledger, campaign: CampaignRow, add: Callable[..., list[int]]) -> None:
    ids = add(3)
    round_row = ledger.rounds.open(campaign.id, 0)
    committee = ledger.committees.add(
        round_row.id, spec={}, training={}, artifact_id=None, metrics={}, calibration=None, seed=0, labels=[]
    )
    u = np.array([0.5, np.nan, np.inf])
    ledger.pool.set_scores(committee.id, ids, u, [1, 2, 3], u / 10, u, u, e_hull=[0.1, 0.2, 0.3])
    ledger.pool.set_scores(committee.id, ids, u, [4, 5, 6], u / 10, u, u)
    rows = ledger.pool.rows(ids)
    assert [r.u for r in rows] == [0.5, None, float("inf")]
    assert [r.energy for r in rows] == [4, 5, 6]
    assert [r.e_hull for r in rows] == [0.1, 0.2, 0.3]  # kept where not given
    assert rows[0].committee_id == committee.id
    with pytest.raises(ValueError, match="2 values of u for 3 candidates"):
        ledger.pool.set_scores(committee.id, ids, [1, 2], [1] * 3, [1] * 3, [1] * 3, [1] * 3)
    seen = [NewScore(u=1.5, energy_spread=0.01, details={"rank": 1}), NewScore(u=0.2)]
    for _ in range(2):
        ledger.pool.record_scores(round_row.id, committee.id, ids[:2], "selection", seen)
    scores = ledger.pool.scores(campaign.id)
    assert [(s.candidate_id, s.u, s.energy_spread, s.round_index) for s in scores] == [
        (ids[0], 1.5, 0.01, 0),
        (ids[1], 0.2, None, 0),
    ]
    assert scores[0].details == {"rank": 1}
    assert ledger.pool.scores(campaign.id, purpose="random stream") == []


def test_counts_and_reasons(ledger: Ledger, campaign: CampaignRow, add: Callable[..., list[int]]) -> None:
    ids = add(5)
    ledger.pool.transition(ids[:2], CandidateState.REJECTED, "too dense")
    counts = ledger.pool.counts(campaign.id)
    assert set(counts) == set(CandidateState)
    assert (counts[CandidateState.POOLED], counts[CandidateState.REJECTED], counts[CandidateState.FAILED]) == (3, 2, 0)
    assert ledger.pool.reasons(campaign.id) == [
        (CandidateState.POOLED, "made pooled", 3),
        (CandidateState.REJECTED, "too dense", 2),
    ]
    assert ledger.pool.ids(campaign.id, {CandidateState.REJECTED}) == ids[:2]
    assert ledger.pool.ids(campaign.id, CandidateState.POOLED) == ids[2:]


def test_finding_by_content(ledger: Ledger, campaign: CampaignRow, add: Callable[..., list[int]]) -> None:
    ids = add(2)
    row = ledger.pool.get(ids[1])
    assert ledger.pool.find(campaign.id, row.content_hash) == row
    assert ledger.pool.find(campaign.id, "0" * 64) is None
    with pytest.raises(NotFoundError, match="alflow ls"):
        ledger.pool.get(12345)


def test_fingerprints_for_the_incremental_check(
    ledger: Ledger, campaign: CampaignRow, theory: TheoryRow, new: Callable[[int], list[NewCandidate]]
) -> None:
    items = new(12)
    ids = ledger.pool.add(campaign.id, None, items)
    ledger.pool.transition(ids, CandidateState.POOLED, "fine")
    ledger.pool.transition(ids[:1], CandidateState.REJECTED, "too dense")
    rows = ledger.pool.rows(ids)
    stored = ledger.pool.fingerprints([r.structure_id for r in rows])
    for row, item in zip(rows, items, strict=True):
        assert item.fingerprint is not None
        assert stored[row.structure_id].to_bytes() == item.fingerprint.to_bytes()
    for item in items:
        mark = item.fingerprint
        assert mark is not None
        kept = ledger.pool.kept(campaign.id, mark.bucket, version=mark.version)
        same = [r.id for r, i in zip(rows, items, strict=True) if i.fingerprint and i.fingerprint.bucket == mark.bucket]
        assert [c for c, _, _ in kept] == [i for i in same if i != ids[0]]
    mark = items[1].fingerprint
    assert mark is not None
    low, high = mark.leading - 1e-9, mark.leading + 1e-9
    near = ledger.pool.kept(campaign.id, mark.bucket, within=(low.tolist(), high.tolist()))
    assert [c for c, _, _ in near] == [ids[1]]
    assert ledger.pool.kept(campaign.id, mark.bucket, version=99) == []
    assert ledger.pool.labelled(theory.id, mark.bucket) == []
    ledger.labels.store(rows[1].structure_id, theory.id, Properties(energy=-1.0), kind=LabelKind.IMPORTED, evidence={})
    assert [s for s, _ in ledger.pool.labelled(theory.id, mark.bucket)] == [rows[1].structure_id]


def test_fingerprints_may_come_later(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    row = ledger.pool.get(add(1)[0])
    assert ledger.pool.fingerprints([row.structure_id]) == {}
    mark = fingerprint(ledger.pool.structures([row.id])[0])
    for _ in range(2):
        ledger.pool.add_fingerprints({row.structure_id: mark})
    assert ledger.pool.fingerprints([row.structure_id])[row.structure_id].bucket == mark.bucket
