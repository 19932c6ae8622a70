"""Labels of one theory count for another where a person said so, in one direction, until it is withdrawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from alflow.errors import NotFoundError, TheoryError
from alflow.ledger import CampaignRow, CandidateState, LabelKind, Ledger, TheoryRow
from alflow.structures import DuplicatePolicy, Properties, fingerprint


@pytest.fixture
def new(ledger: Ledger) -> TheoryRow:
    """The theory of a newer code."""
    return ledger.theories.register("emt-new", "emt", {}, "ase 3.30 emt", {}, "ab" * 32)


def store(ledger: Ledger, structure_id: int, theory: TheoryRow, properties: Properties) -> int:
    return ledger.labels.store(structure_id, theory.id, properties, kind=LabelKind.COMPUTED, evidence={}).id


def label_of(ledger: Ledger, structure_id: int, theory: TheoryRow) -> int | None:
    label = ledger.labels.get(structure_id, theory.id)
    return None if label is None else label.id


def accepted(ledger: Ledger, theory: TheoryRow, campaign_id: int | None = None) -> list[int]:
    return [label.id for label in ledger.labels.accepted(theory.id, campaign_id)]


def test_labels_count_in_one_direction_until_it_is_withdrawn(
    ledger: Ledger, theory: TheoryRow, new: TheoryRow, campaign: CampaignRow, add: Callable[..., list[int]]
) -> None:
    first, second = (ledger.pool.get(i) for i in add(2, CandidateState.QUEUED))
    old_label = store(ledger, first.structure_id, theory, Properties(energy=1.0))
    new_label = store(ledger, second.structure_id, new, Properties(energy=2.0))
    ledger.pool.transition([first.id, second.id], CandidateState.LABELLED, "labelled")

    assert ledger.labels.of_other_theories(campaign.id, new.id) == {theory.id: 1}
    said = ledger.equations.declare(theory.id, new.id, " 40 structures agree ", actor="ada")
    assert (said.reason, said.actor, said.withdrawn) == ("40 structures agree", "ada", None)
    assert said.evidence == {"structures": 0}
    assert label_of(ledger, first.structure_id, new) == old_label
    assert accepted(ledger, new) == [old_label, new_label]
    assert accepted(ledger, new, campaign.id) == [old_label, new_label]
    assert ledger.labels.labelled_ids(new.id, [first.structure_id, second.structure_id, 999]) == {
        first.structure_id,
        second.structure_id,
    }
    assert ledger.labels.energies(new.id, [first.structure_id, second.structure_id, 999]) == {
        first.structure_id: 1.0,
        second.structure_id: 2.0,
    }
    assert ledger.labels.of_other_theories(campaign.id, new.id) == {}
    # not the other way round
    assert ledger.labels.energies(theory.id, [first.structure_id, second.structure_id]) == {first.structure_id: 1.0}
    assert accepted(ledger, theory) == [old_label]
    assert label_of(ledger, second.structure_id, theory) is None
    assert ledger.labels.of_other_theories(campaign.id, theory.id) == {new.id: 1}

    gone = ledger.equations.withdraw(theory.id, new.id, "a mistake", actor="ada")
    assert gone.withdrawn is not None
    assert accepted(ledger, new) == [new_label]
    assert ledger.labels.of_other_theories(campaign.id, new.id) == {theory.id: 1}
    assert ledger.equations.list() == []
    assert ledger.equations.list(withdrawn=True) == [gone]
    with pytest.raises(NotFoundError, match="not declared"):
        ledger.equations.withdraw(theory.id, new.id, "again")
    again = ledger.equations.declare(theory.id, new.id, "measured anew")
    assert ledger.equations.list() == [again]
    messages = [event.message for event in ledger.events.list(kind="theories equated")]
    assert messages[0] == "ada declared that labels of emt count as labels of emt-new: 40 structures agree"
    assert messages[1].endswith("measured anew")
    [event] = ledger.events.list(kind="equation withdrawn")
    assert event.message == "ada withdrew that labels of emt count as labels of emt-new: a mistake"


def test_a_theory_has_its_own_labels_before_those_of_others(
    ledger: Ledger, theory: TheoryRow, new: TheoryRow, add: Callable[..., list[int]]
) -> None:
    structure_id = ledger.pool.get(add(1)[0]).structure_id
    older = store(ledger, structure_id, theory, Properties(energy=1.0))
    ledger.equations.declare(theory.id, new.id, "why not")
    assert label_of(ledger, structure_id, new) == older
    own = store(ledger, structure_id, new, Properties(energy=2.0))
    assert label_of(ledger, structure_id, new) == own
    assert accepted(ledger, new) == [own]


def test_it_does_not_carry_on_to_a_third_theory(
    ledger: Ledger, theory: TheoryRow, new: TheoryRow, add: Callable[..., list[int]]
) -> None:
    newest = ledger.theories.register("newest", "emt", {}, "ase 3.31 emt", {}, "cd" * 32)
    label = store(ledger, ledger.pool.get(add(1)[0]).structure_id, theory, Properties(energy=1.0))
    ledger.equations.declare(theory.id, new.id, "small differences")
    ledger.equations.declare(new.id, newest.id, "small differences, which add up")
    assert accepted(ledger, newest) == []
    assert ledger.equations.counting_for(newest.id) == [newest.id, new.id]
    assert accepted(ledger, new) == [label]


def test_what_both_have_labelled_is_the_evidence(
    ledger: Ledger, theory: TheoryRow, new: TheoryRow, add: Callable[..., list[int]]
) -> None:
    rows = [ledger.pool.get(i) for i in add(3)]
    for k, row in enumerate(rows[:2]):
        forces = np.zeros((row.n_atoms, 3))
        store(ledger, row.structure_id, theory, Properties(energy=1.0, forces=forces, stress=np.zeros((3, 3))))
        forces[-1] = [0.03 * k, 0.04 * k, 0.0]
        stress = np.diag([0.0, 0.0, 0.01 * k])
        store(ledger, row.structure_id, new, Properties(energy=1.0 - 0.1 * k, forces=forces, stress=stress))
    store(ledger, rows[2].structure_id, theory, Properties(energy=9.0))
    evidence = dict(ledger.equations.declare(theory.id, new.id, "as measured").evidence)
    assert evidence.pop("structures") == 2
    assert evidence == pytest.approx({"energy": 0.1 / rows[1].n_atoms, "force": 0.05, "stress": 0.01})


def test_what_cannot_be_declared(ledger: Ledger, theory: TheoryRow, new: TheoryRow) -> None:
    with pytest.raises(TheoryError, match="reason"):
        ledger.equations.declare(theory.id, new.id, "  ")
    with pytest.raises(TheoryError, match="one theory"):
        ledger.equations.declare(theory.id, theory.id, "sure")
    with pytest.raises(NotFoundError):
        ledger.equations.declare(theory.id, 99, "sure")
    ledger.equations.declare(theory.id, new.id, "sure", actor="ada")
    with pytest.raises(TheoryError, match="already, declared by ada"):
        ledger.equations.declare(theory.id, new.id, "sure")
    with pytest.raises(TheoryError, match="after all: the reason is kept"):
        ledger.equations.withdraw(theory.id, new.id, "  ")
    assert len(ledger.equations.list()) == 1


def test_identical_structures_are_found_by_labels_that_count(
    ledger: Ledger, theory: TheoryRow, new: TheoryRow, add: Callable[..., list[int]]
) -> None:
    candidate = add(1)[0]
    structure_id = ledger.pool.get(candidate).structure_id
    mark = fingerprint(ledger.pool.structures([candidate])[0])
    ledger.pool.add_fingerprints({structure_id: mark})
    store(ledger, structure_id, theory, Properties(energy=1.0))
    close = DuplicatePolicy.identical()
    assert ledger.pool.labelled_near(new.id, mark, close) == []
    ledger.equations.declare(theory.id, new.id, "sure")
    assert ledger.pool.labelled_near(new.id, mark, close) == [structure_id]


def test_theories_are_found_as_people_write_them(ledger: Ledger, theory: TheoryRow, new: TheoryRow) -> None:
    for key in ("emt-new", str(new.id), "abab", "ABABAB", "ab" * 32):
        assert ledger.theories.find(key) == new
    ledger.theories.register(None, "emt", {}, "ase 3.31 emt", {}, "abab" + "0" * 60)
    with pytest.raises(TheoryError, match="several"):
        ledger.theories.find("abab")
    for key in ("aba", "emt-old", "99"):
        with pytest.raises(NotFoundError, match=r"there is .*emt"):
            ledger.theories.find(key)
