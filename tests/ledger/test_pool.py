from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from alflow.errors import LedgerError, NotFoundError, TransitionError
from alflow.ledger import CampaignRow, CandidateState, LabelKind, Ledger, NewCandidate, NewScore, Stream, TheoryRow
from alflow.ledger import _pool as pool_module
from alflow.ledger._fingerprints import LABELLED_NEAR, NEAR, _ranges
from alflow.structures import (
    DuplicatePolicy,
    Fingerprint,
    Properties,
    Structure,
    fingerprint,
    leading_bounds,
    probe_bounds,
    probes,
)
from tests.disguises import jiggled


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
    for size in (0.005, 0.01, 0.2):  # copies of the second, which is not alone then
        atoms = jiggled(items[1].structure.to_atoms(), np.random.default_rng(1), size)
        structure = Structure.from_atoms(atoms)
        items.append(NewCandidate(structure=structure, source="perturb", fingerprint=fingerprint(structure)))
    ids = ledger.pool.add(campaign.id, None, items)
    ledger.pool.transition(ids, CandidateState.POOLED, "fine")
    ledger.pool.transition(ids[:1], CandidateState.REJECTED, "too dense")
    rows = ledger.pool.rows(ids)
    stored = ledger.pool.fingerprints([r.structure_id for r in rows])
    for row, item in zip(rows, items, strict=True):
        assert item.fingerprint is not None
        assert stored[row.structure_id].to_bytes() == item.fingerprint.to_bytes()
    for policy in (DuplicatePolicy.identical(), DuplicatePolicy.redundant(0.3, 0.05)):
        for item in items:
            mark = item.fingerprint
            assert mark is not None
            near = ledger.pool.near(campaign.id, mark, policy)
            wanted = [r for r, i in zip(rows, items, strict=True) if r.id != ids[0] and in_range(mark, i, policy)]
            assert near == [(r.id, r.structure_id) for r in wanted]
    mark = items[1].fingerprint
    assert mark is not None
    wide, close = DuplicatePolicy.redundant(0.3, 0.05), DuplicatePolicy.identical()
    assert [c for c, _ in ledger.pool.near(campaign.id, mark, close)] == [ids[1]]
    assert [c for c, _ in ledger.pool.near(campaign.id, mark, wide)] == [ids[1], *ids[12:]]
    assert [c for c, _ in ledger.pool.near(campaign.id, mark, DuplicatePolicy.redundant())] == [ids[1], *ids[12:14]]
    assert [c for c, _ in ledger.pool.near(campaign.id, mark, wide, after=ids[12])] == ids[13:]
    assert ledger.pool.near(campaign.id, mark, close, after=ids[1]) == []
    assert ledger.pool.near(campaign.id, mark, close, states=[CandidateState.LABELLED]) == []
    other = ledger.campaigns.create("another", "", {}, 1)
    assert ledger.pool.near(other.id, mark, wide) == []
    assert ledger.pool.labelled_near(theory.id, mark, close) == []
    ledger.labels.store(rows[1].structure_id, theory.id, Properties(energy=-1.0), kind=LabelKind.IMPORTED, evidence={})
    assert ledger.pool.labelled_near(theory.id, mark, close) == [rows[1].structure_id]
    second = ledger.theories.register("other", "emt", {}, "emt", {}, "f" * 64)
    assert ledger.pool.labelled_near(second.id, mark, close) == []


def in_range(mark: Fingerprint, item: NewCandidate, policy: DuplicatePolicy) -> bool:
    """What the index is to find, from the numbers themselves."""
    other = item.fingerprint
    assert other is not None
    low, high = leading_bounds(mark, policy)
    least, most = probe_bounds(mark, policy)
    values = probes(other)
    inside = all(low[i] <= other.leading[i] <= high[i] for i in (0, 2)) and ((least <= values) & (values <= most)).all()
    return other.bucket == mark.bucket and bool(inside)


def test_what_is_near_is_one_range_of_an_index(
    ledger: Ledger, campaign: CampaignRow, new: Callable[[int], list[NewCandidate]]
) -> None:
    """Whatever the planner knows about the tables: before and after it has looked at them."""
    items = new(300)
    ledger.pool.add(campaign.id, None, items)
    mark = items[0].fingerprint
    assert mark is not None
    database = ledger._database
    ranges = _ranges(mark, DuplicatePolicy.redundant())
    asked = {
        "candidate": NEAR.params(**ranges, campaign_id=campaign.id, states=["pooled"], after=0),
        "label": LABELLED_NEAR.params(**ranges, theory_ids=[1]),
    }
    for analyzed in (False, True):
        if analyzed:
            with database.write() as connection:
                connection.exec_driver_sql("ANALYZE")
        for table, query in asked.items():
            with database.read() as connection:
                text = query.compile(connection, compile_kwargs={"literal_binds": True})
                how = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
                plan = [str(row[-1]).strip() for row in connection.exec_driver_sql(f"{how} {text}")]
            if database.is_sqlite:
                assert "COVERING INDEX ix_fingerprint_near (version=? AND bucket=? AND leading_0>?" in plan[0]
                assert f"SEARCH {table}" in plan[1]
                assert "(structure_id=?" in plan[1]
                assert len(plan) == 2
                continue
            assert any("Index Scan using ix_fingerprint_near" in line for line in plan), plan
            condition = next(line for line in plan if "leading_0 >=" in line)
            assert condition.startswith("Index Cond")
            assert "probe_3 <=" in condition
            if table == "candidate":
                assert any("uq_candidate_structure_id_campaign_id" in line for line in plan), plan


def test_adding_walks_through_no_table(
    ledger: Ledger, campaign: CampaignRow, new: Callable[[int], list[NewCandidate]]
) -> None:
    """What every batch asks before and inside its transaction, asked of SQLite, whose planner knows no numbers."""
    database = ledger._database
    if not database.is_sqlite:
        pytest.skip("PostgreSQL walks through small tables whatever their indexes")
    items = new(300)
    ids = ledger.pool.add(campaign.id, None, items)
    structure_ids = [row.structure_id for row in ledger.pool.rows(ids)]
    asked: list[tuple[str, Any]] = []

    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    event.listen(database._reader, "before_cursor_execute", hear)
    ledger.pool.find_all(campaign.id, [item.structure.content_hash for item in items[:9]])
    ledger.pool.kept_since(campaign.id, ids[-9])
    ledger.pool.newest()
    ledger.pool.fingerprints(structure_ids[:9])
    ledger.pool.renew_fingerprints()
    event.remove(database._reader, "before_cursor_execute", hear)
    assert len(asked) == 5
    for statement, parameters in asked:
        with database.read() as connection:
            plan = [str(r[-1]) for r in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        for line in plan:
            assert not line.startswith("SCAN") or "VIRTUAL TABLE" in line, (statement, plan)
            assert "ix_candidate_campaign_id" not in line, (statement, plan)


def test_fingerprints_of_an_older_version_are_made_anew(
    ledger: Ledger, campaign: CampaignRow, new: Callable[[int], list[NewCandidate]], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = new(5)
    ids = ledger.pool.add(campaign.id, None, items)
    ledger.pool.transition(ids, CandidateState.POOLED, "fine")
    structure_ids = [row.structure_id for row in ledger.pool.rows(ids)]
    with ledger._database.write() as connection:
        connection.exec_driver_sql("UPDATE fingerprint SET version = 0, bucket = 'older', leading_0 = 17")
    mark = items[1].fingerprint
    assert mark is not None
    assert ledger.pool.fingerprints(structure_ids) == {}
    assert ledger.pool.near(campaign.id, mark, DuplicatePolicy.identical()) == []
    monkeypatch.setattr("alflow.ledger._fingerprints._RENEWED_AT_ONCE", 2)
    told: list[str] = []
    assert ledger.pool.renew_fingerprints(told.append) == 5
    assert told == ["5 fingerprints are of an older version and are made anew"]
    assert ledger.pool.renew_fingerprints(told.append) == 0
    assert len(told) == 1
    renewed = ledger.pool.fingerprints(structure_ids)
    for structure_id, item in zip(structure_ids, items, strict=True):
        assert item.fingerprint is not None
        assert renewed[structure_id].to_bytes() == item.fingerprint.to_bytes()
    assert [c for c, _ in ledger.pool.near(campaign.id, mark, DuplicatePolicy.identical())] == [ids[1]]
    with ledger._database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM fingerprint").scalar() == 5


def test_what_is_kept_after_all_is_compared_with(
    ledger: Ledger, campaign: CampaignRow, add: Callable[..., list[int]]
) -> None:
    first, second = add(2)
    structure = ledger.pool.structures([first])[0]
    copy = NewCandidate(
        structure=Structure(
            cell=structure.cell * 1.3, pbc=structure.pbc, numbers=structure.numbers, positions=structure.positions * 1.3
        ),
        source="files",
        state=CandidateState.DUPLICATE,
        reason="identical",
        duplicate_of=second,
    )
    [third] = ledger.pool.add(campaign.id, None, [copy])
    mark = fingerprint(copy.structure)
    assert ledger.pool.near(campaign.id, mark, DuplicatePolicy.identical()) == []
    ledger.pool.transition([third], CandidateState.POOLED, "it is not", actor="user")
    assert [c for c, _ in ledger.pool.near(campaign.id, mark, DuplicatePolicy.identical())] == [third]


def test_adding_alone_needs_a_write_block(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="inside"):
        ledger.pool.add_alone()
    with ledger.write():
        ledger.pool.add_alone()


def test_what_came_since(ledger: Ledger, campaign: CampaignRow, new: Callable[[int], list[NewCandidate]]) -> None:
    assert ledger.pool.newest() == 0
    items = new(5)
    ids = ledger.pool.add(campaign.id, None, items[:3])
    ledger.pool.transition(ids, CandidateState.POOLED, "fine")
    newest = ledger.pool.newest()
    assert newest == ids[-1]
    assert ledger.pool.kept_since(campaign.id, newest) == []
    more = ledger.pool.add(campaign.id, None, items[3:])
    ledger.pool.transition(more[:1], CandidateState.POOLED, "fine")
    assert ledger.pool.kept_since(campaign.id, newest) == [ledger.pool.get(more[0]).structure_id]
    assert ledger.pool.kept_since(campaign.id + 1, newest) == []
    hashes = [i.structure.content_hash for i in items]
    assert ledger.pool.find_all(campaign.id, [*hashes, "0" * 64]) == dict(zip(hashes, ids + more, strict=True))


def test_fingerprints_may_come_later(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    row = ledger.pool.get(add(1)[0])
    assert ledger.pool.fingerprints([row.structure_id]) == {}
    mark = fingerprint(ledger.pool.structures([row.id])[0])
    for _ in range(2):
        ledger.pool.add_fingerprints({row.structure_id: mark})
    assert ledger.pool.fingerprints([row.structure_id])[row.structure_id].bucket == mark.bucket
