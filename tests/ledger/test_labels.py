from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from alflow.errors import LedgerError, NotFoundError, TheoryError
from alflow.ledger import CampaignRow, LabelKind, Ledger, TheoryRow
from alflow.structures import Properties


def test_the_first_accepted_label_wins(
    ledger: Ledger, theory: TheoryRow, campaign: CampaignRow, add: Callable[..., list[int]]
) -> None:
    row = ledger.pool.get(add(1)[0])
    properties = Properties(
        energy=-3.5, energy_extrapolated=-3.4, forces=np.ones((row.n_atoms, 3)), stress=np.diag([1.0, 2.0, 3.0])
    )
    evidence = {"file": "labels.extxyz", "frame": np.int64(3)}
    first = ledger.labels.store(row.structure_id, theory.id, properties, kind=LabelKind.IMPORTED, evidence=evidence)
    assert first.properties.to_bytes() == properties.to_bytes()
    assert first.structure.content_hash == row.content_hash
    assert (first.kind, first.evidence) == (LabelKind.IMPORTED, {"file": "labels.extxyz", "frame": 3})
    later = ledger.labels.store(
        row.structure_id, theory.id, Properties(energy=-9.0), kind=LabelKind.COMPUTED, evidence={}
    )
    assert later.id == first.id
    assert later.properties.energy == -3.5
    assert ledger.labels.get(row.structure_id, theory.id) is not None
    assert [x.id for x in ledger.labels.accepted(theory.id)] == [first.id]
    assert [x.id for x in ledger.labels.accepted(theory.id, campaign.id)] == [first.id]
    assert ledger.labels.by_id(first.id).id == first.id
    assert ledger.labels.candidates_of(row.structure_id) == [row.id]
    assert ledger.labels.labelled_ids(theory.id, [row.structure_id, 999]) == {row.structure_id}


def test_theories_never_mix(ledger: Ledger, theory: TheoryRow, add: Callable[..., list[int]]) -> None:
    other = ledger.theories.register("lda", "gpaw", {"xc": "LDA"}, "gpaw 25.1", {"Ni": "a" * 64}, "f" * 64)
    row = ledger.pool.get(add(1)[0])
    ledger.labels.store(row.structure_id, theory.id, Properties(energy=1.0), kind=LabelKind.COMPUTED, evidence={})
    assert ledger.labels.get(row.structure_id, other.id) is None
    assert ledger.labels.accepted(other.id) == []


def test_a_label_of_another_campaign_counts_for_its_members_only(
    ledger: Ledger, theory: TheoryRow, campaign: CampaignRow, add: Callable[..., list[int]]
) -> None:
    other = ledger.campaigns.create("other", "", {}, 1)
    structure_id = ledger.pool.get(add(1)[0]).structure_id
    ledger.labels.store(structure_id, theory.id, Properties(energy=1.0), kind=LabelKind.COMPUTED, evidence={})
    assert ledger.labels.accepted(theory.id, other.id) == []


def test_a_label_needs_a_finite_energy(ledger: Ledger, theory: TheoryRow, add: Callable[..., list[int]]) -> None:
    row = ledger.pool.get(add(1)[0])
    with pytest.raises(LedgerError, match="not a label"):
        ledger.labels.store(
            row.structure_id, theory.id, Properties(energy=float("nan")), kind=LabelKind.COMPUTED, evidence={}
        )


def test_a_label_needs_its_structure(ledger: Ledger, theory: TheoryRow) -> None:
    with pytest.raises(LedgerError):
        ledger.labels.store(999, theory.id, Properties(energy=1.0), kind=LabelKind.COMPUTED, evidence={})
    with pytest.raises(NotFoundError):
        ledger.labels.by_id(999)


def test_theories_are_one_per_fingerprint(ledger: Ledger) -> None:
    first = ledger.theories.register(None, "emt", {}, "ase 3.29 emt", {}, "1" * 64)
    named = ledger.theories.register("emt", "emt", {}, "ase 3.29 emt", {}, "1" * 64)
    assert (named.id, named.name) == (first.id, "emt")
    assert ledger.theories.register(None, "emt", {}, "ase 3.29 emt", {}, "1" * 64) == named
    with pytest.raises(TheoryError, match="another name"):
        ledger.theories.register("emt", "emt", {}, "ase 3.30 emt", {}, "2" * 64)
    with pytest.raises(TheoryError, match="'emt'"):
        ledger.theories.register("other", "emt", {}, "ase 3.29 emt", {}, "1" * 64)
    assert ledger.theories.list() == [named]
    for key in (named.id, "emt", "1" * 64):
        assert ledger.theories.get(key) == named
    with pytest.raises(NotFoundError, match="emt"):
        ledger.theories.get("emtt")
    assert ledger.theories.set_noise(named.id, {"energy": 0.001}).noise == {"energy": 0.001}
