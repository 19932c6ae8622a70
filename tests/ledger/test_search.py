from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from alflow.errors import NotFoundError, SelectionError
from alflow.ledger import CampaignRow, CandidateColumn, CandidateRow, CandidateState, Ledger, NewCandidate, Stream
from alflow.ledger import _search as search_module
from alflow.ledger._columns import ColumnKind
from alflow.ledger._selection import (
    AgeCondition,
    ColumnCondition,
    Condition,
    ElementCondition,
    KeyCondition,
    parse_selection,
)
from alflow.structures import Structure, element_symbol


def holds(condition: Condition, row: CandidateRow, structure: Structure) -> bool:
    """What a condition means, without SQL."""
    match condition:
        case ElementCondition(number=number, operator=op, count=count):
            return op.holds(structure.composition.get(element_symbol(number), 0), count)
        case ColumnCondition(column=column, operator=op, value=value):
            found = row.value(column)
            return found is not None and op.holds(found, value)
        case KeyCondition(column=column, negated=negated):
            found = row.value(column)
            has = bool(found) if column.kind == ColumnKind.FLAG else found is not None
            return has != negated
        case AgeCondition():
            raise AssertionError


@pytest.fixture
def filled(ledger: Ledger, campaign: CampaignRow, crystals: Callable[[int], list[Structure]]) -> Ledger:
    """Sixty candidates of two campaigns with scores for most of them."""
    other = ledger.campaigns.create("other", "", {}, 1)
    rounds = {c: ledger.rounds.open(c, 0).id for c in (campaign.id, other.id)}
    structures = crystals(40)
    rng = np.random.default_rng(0)
    for owner, members in ((campaign.id, structures), (other.id, structures[:20])):
        new = [
            NewCandidate(
                structure=s,
                source=["perturb", "dynamics"][i % 2],
                deliberate=i % 5 == 0,
                stream=list(Stream)[i % len(Stream)],
            )
            for i, s in enumerate(members)
        ]
        ids = ledger.pool.add(owner, rounds[owner], new)
        ledger.pool.transition(ids[::2], CandidateState.POOLED, "fine")
        ledger.pool.transition(ids[1::4], CandidateState.REJECTED, "too dense")
        ledger.pool.pin(ids[::7], "wanted")
        committee = ledger.committees.add(
            rounds[owner], spec={}, training={}, artifact_id=None, metrics={}, calibration=None, seed=0, labels=[]
        )
        scored = ids[: len(ids) * 3 // 4]
        u = np.round(rng.random(len(scored)) * 3, 1)
        ledger.pool.set_scores(committee.id, scored, u, -u, u / 10, u / 5, u / 100, e_hull=u / 50 - 0.02)
    return ledger


def expected(ledger: Ledger, text: str) -> list[int]:
    conditions = parse_selection(text).conditions
    rows = ledger.candidates()
    structures = ledger.pool.structures([row.id for row in rows])
    return [r.id for r, s in zip(rows, structures, strict=True) if all(holds(c, r, s) for c in conditions)]


OPERATORS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
COUNTS = st.tuples(st.sampled_from(["Ni", "Pt", "Cu", "O"]), OPERATORS, st.integers(0, 3)).map(
    lambda p: f"{p[0]}{p[1]}{p[2]}"
)
NUMBERS = st.tuples(
    st.sampled_from(["u", "id", "e_hull", "n_atoms", "round", "energy_per_atom", "n_elements", "volume"]),
    OPERATORS,
    st.sampled_from(["0", "1", "1.5", "2", "0.02", "27.5"]),
).map("".join)
OTHERS = st.sampled_from(
    [
        "Ni",
        "NiPt",
        "Cu2",
        "formula=NiPt",
        "reduced_formula=NiPt",
        "chemical_system=Ni-Pt",
        "state=pooled",
        "state!=pooled",
        "source=dynamics",
        "stream=random",
        "pinned",
        "-pinned",
        "deliberate=True",
        "deliberate!=True",
        "u",
        "-u",
        "rank",
        "campaign=other",
        "0.5<u<=2",
    ]
)


@pytest.mark.parametrize("few", [20_000, 0])
def test_selections_find_what_they_mean(filled: Ledger, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a filter without SQL, once driven from the chemical systems and once not."""
    monkeypatch.setattr(search_module, "_FEW", few)
    rows = filled.candidates()
    structures = filled.pool.structures([row.id for row in rows])

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.one_of(COUNTS, NUMBERS, OTHERS), max_size=4).map(",".join))
    def check(text: str) -> None:
        conditions = parse_selection(text).conditions
        wanted = [r.id for r, s in zip(rows, structures, strict=True) if all(holds(c, r, s) for c in conditions)]
        assert [row.id for row in filled.candidates(text)] == wanted

    check()


ELEMENTS = st.sampled_from(
    ["Ni", "Pt", "Cu", "Cu=0", "Pt<1", "Ni!=0", "Cu2", "Ni<0", "O", "O=0", "chemical_system=Cu-Ni"]
)
DECIDED = st.one_of(ELEMENTS, st.sampled_from(["state=pooled", "state!=rejected", "u>0.5", "u<=1.5", "u!=1", "u"]))


@pytest.mark.parametrize("few", [20_000, 0])
def test_the_first_by_u_are_those_of_all(
    filled: Ledger, campaign: CampaignRow, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little of the index is looked at, with many equal values of u among them."""
    monkeypatch.setattr(search_module, "_FEW", few)
    rows = filled.candidates(campaign=campaign.id)
    structures = filled.pool.structures([row.id for row in rows])

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(ELEMENTS, st.lists(DECIDED, max_size=3), st.booleans(), st.integers(0, 6), st.integers(0, 9))
    def check(element: str, others: list[str], descending: bool, limit: int, offset: int) -> None:
        text = ",".join([element, *others])
        conditions = parse_selection(text).conditions
        fitting = [r for r, s in zip(rows, structures, strict=True) if all(holds(c, r, s) for c in conditions)]
        known = [row for row in fitting if row.u is not None]
        known.sort(key=lambda row: (row.u, row.id), reverse=descending)
        wanted = [*known, *(row for row in fitting if row.u is None)][offset : offset + limit]
        sort = "-u" if descending else "u"
        found = filled.candidates(text, campaign=campaign.id, sort=sort, limit=limit, offset=offset)
        assert [row.id for row in found] == [row.id for row in wanted]

    check()


@pytest.mark.parametrize("sort", ["u", "-u", "formula", "-id", "energy_per_atom", "-e_hull", "state", "-round"])
@pytest.mark.parametrize(("limit", "offset"), [(None, 0), (7, 0), (7, 5), (50, 30), (10, 50), (10, 100)])
def test_sorting_puts_the_unknown_last(filled: Ledger, sort: str, limit: int | None, offset: int) -> None:
    rows = filled.candidates()
    column = CandidateColumn(sort.removeprefix("-"))
    known = [row for row in rows if row.value(column) is not None]
    unknown = [row for row in rows if row.value(column) is None]
    descending = sort.startswith("-")
    known.sort(key=lambda row: (row.value(column), row.id), reverse=descending)
    wanted = [*known, *unknown][offset : None if limit is None else offset + limit]
    assert [r.id for r in filled.candidates(sort=sort, limit=limit, offset=offset)] == [r.id for r in wanted]


def test_a_campaign_by_name_or_id(filled: Ledger, campaign: CampaignRow) -> None:
    assert filled.candidates(campaign="other") == [r for r in filled.candidates() if r.campaign == "other"]
    assert filled.candidates("u>1", campaign=campaign.id) == filled.candidates("u>1,campaign=Ni-Pt")
    with pytest.raises(NotFoundError, match="other"):
        filled.candidates(campaign="othr")


def test_ages_follow_the_clock_of_the_database(filled: Ledger) -> None:
    assert len(filled.candidates("age<1h")) == 60
    assert filled.candidates("age>1h") == []


@pytest.mark.parametrize("bad", [{"sort": "colour"}, {"limit": -1}, {"offset": -1}])
def test_wrong_arguments(filled: Ledger, bad: dict[str, Any]) -> None:
    with pytest.raises(SelectionError):
        filled.candidates(**bad)


@pytest.mark.parametrize("selection", ["Cu", "Cu,state=pooled", "Cu2,u>0.1,state=pooled", "Cu,state=pooled,n_atoms<9"])
@pytest.mark.parametrize("sort", ["-u", "id", "formula"])
def test_elements_are_looked_for_by_chemical_system(filled: Ledger, selection: str, sort: str) -> None:
    """The plan must start from the systems with the element, not from all candidates in the order that is asked for."""
    if not filled.url.startswith("sqlite"):
        pytest.skip("PostgreSQL plans by its own statistics")
    with filled._database.read() as connection:
        plans: list[str] = []

        def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if "candidate" in statement and "LIMIT" in statement:
                plan = connection.connection.driver_connection.execute(  # type: ignore[union-attr]
                    f"EXPLAIN QUERY PLAN {statement}", parameters
                )
                plans.append(" ".join(str(row[3]) for row in plan))

        event.listen(connection, "before_cursor_execute", note)
        filled.candidates(selection, campaign=1, sort=sort, limit=100)
    assert plans
    for plan in plans:
        assert "ix_candidate_chemical_system_id_campaign_id_state_u (chemical_system_id=? AND campaign_id=?" in plan
        assert "SCAN candidate" not in plan
