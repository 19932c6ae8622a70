"""A rotated copy of a known structure is never paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from alflow.labelers import get_labeler
from alflow.ledger import CandidateRow, CandidateState, LabelKind, Stream
from alflow.loop import CampaignContext, RunLimits, _ingest, add_structures, import_labels, open_campaign, run
from alflow.loop._explore import explore_steps
from alflow.loop._queue import enqueue
from alflow.structures import LabelledStructure, Structure
from tests.disguises import Disguise, disguise, jiggled, one_moved, one_swapped, strained
from tests.loop.conftest import MakeCampaign


@pytest.fixture
def labelled(small: CampaignContext) -> CampaignContext:
    run(small, limits=RunLimits(rounds=1))
    return small


def disguised(structure: Structure, rng: np.random.Generator) -> Structure:
    return Structure.from_atoms(disguise(structure.to_atoms(), rng))


def labelled_structures(ctx: CampaignContext) -> list[Structure]:
    return [label.structure for label in ctx.ledger.labels.accepted(ctx.theory.id, ctx.campaign_id)]


def test_200_disguised_copies_cost_nothing(labelled: CampaignContext) -> None:
    originals = labelled_structures(labelled)
    rng = np.random.default_rng(0)
    copies = [disguised(originals[i % len(originals)], rng) for i in range(200)]
    jobs = len(labelled.ledger.queue.list(campaign=labelled.campaign_id))
    report = add_structures(labelled, [(s, f"copy {i}") for i, s in enumerate(copies)])
    assert report.pooled == 0
    assert len(labelled.ledger.queue.list(campaign=labelled.campaign_id)) == jobs
    for candidate in report.ids:
        row = labelled.ledger.pool.get(candidate)
        if row.state is CandidateState.LABELLED:  # a copy that is the original to the letter
            continue
        assert row.state is CandidateState.DUPLICATE
        assert row.reason.startswith("identical to candidate")
        assert row.duplicate_of is not None
        assert any(str(row.duplicate_of) in s for s in labelled.ledger.why(candidate).sentences)


def test_labels_are_reused_across_campaigns_through_the_isometry(
    labelled: CampaignContext, make_campaign: MakeCampaign
) -> None:
    other = open_campaign(
        make_campaign(name="other", ledger=labelled.ledger.url, round0={"prototypes": [], "n_spread": 0})
    )
    originals = labelled_structures(labelled)
    rng = np.random.default_rng(1)
    copies = [disguised(s, rng) for s in originals]
    report = add_structures(other, [(s, "copy") for s in copies])
    assert report.reused == len(originals)
    assert other.ledger.queue.list(campaign=other.campaign_id) == []
    emt = get_labeler("emt")
    for candidate, structure in zip(report.ids, copies, strict=True):
        row = other.ledger.pool.get(candidate)
        assert row.state is CandidateState.LABELLED
        label = other.ledger.labels.get(row.structure_id, other.theory.id)
        assert label is not None
        assert label.kind is LabelKind.REUSED
        fresh = emt.label(structure).properties
        assert label.properties.energy == pytest.approx(fresh.energy, abs=1e-6)
        assert label.properties.forces is not None
        assert fresh.forces is not None
        np.testing.assert_allclose(label.properties.forces, fresh.forces, atol=1e-4)


def alloys(n: int, rng: np.random.Generator) -> list[Atoms]:
    """Distorted, randomly occupied cells of 8 atoms, without any symmetry."""
    found = []
    for _ in range(n):
        atoms = bulk("Ni", "fcc", a=3.7, cubic=True).repeat((2, 1, 1))
        numbers = np.array([28] * 8)
        numbers[rng.choice(8, size=int(rng.integers(2, 7)), replace=False)] = 78
        atoms.numbers = numbers
        found.append(jiggled(atoms, rng, 0.15))
    return found


def near_misses(originals: list[Atoms], n: int, rng: np.random.Generator) -> list[tuple[str, Atoms, bool]]:
    made: list[tuple[str, Atoms, bool]] = []
    swaps: set[tuple[int, bytes]] = set()
    for i in range(n):
        atoms = originals[i % len(originals)]
        kind = ("swap", "move", "strain", "moments", "deliberate")[(i // len(originals)) % 5]
        if kind == "swap":
            copy = one_swapped(atoms, rng)
            while (i % len(originals), copy.numbers.tobytes()) in swaps:  # the same miss twice would be a duplicate
                copy = one_swapped(atoms, rng)
            swaps.add((i % len(originals), copy.numbers.tobytes()))
        elif kind == "move":
            copy = one_moved(atoms, rng, 0.1)
        elif kind == "strain":
            copy = strained(atoms, rng, 0.005)
        elif kind == "deliberate":
            copy = jiggled(atoms, rng, 0.01)
        else:
            copy = atoms.copy()
            copy.set_initial_magnetic_moments(rng.choice([-1.0, 0.5, 1.0, 2.0], size=len(copy)))
        made.append((kind, disguise(copy, rng), kind == "deliberate"))
    return made


def magnetic_campaign(make_campaign: MakeCampaign, tmp_path: Path, **changes: Any) -> CampaignContext:
    """A campaign whose labeler takes initial moments."""
    (tmp_path / "campaign").mkdir(exist_ok=True)
    (tmp_path / "campaign" / "alflow-worker.yaml").write_text(
        "labelers:\n  spin:\n    calculator: ase.calculators.emt.EMT\n    convergence: analytic\n"
        "    moments: collinear\n"
    )
    return open_campaign(make_campaign(theory={"labeler": "ase", "name": "spin"}, **changes))


def test_200_near_misses_are_kept(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    ctx = magnetic_campaign(make_campaign, tmp_path)
    rng = np.random.default_rng(2)
    originals = alloys(20, rng)
    examples = []
    for atoms in originals:
        structure = Structure.from_atoms(atoms)
        examples.append(
            (LabelledStructure(structure=structure, properties=ctx.labeler.label(structure).properties), "known")
        )
    assert import_labels(ctx, examples, ctx.theory).taken == 20
    misses = near_misses(originals, 200, rng)
    lost = []
    for kind, atoms, deliberate in misses:
        report = add_structures(ctx, [(Structure.from_atoms(atoms), kind)], deliberate=deliberate)
        row = ctx.ledger.pool.get(report.ids[0])
        if row.state is not CandidateState.POOLED:
            lost.append((kind, row.state, row.reason))
    assert lost == []


def added(ctx: CampaignContext, *all_atoms: Atoms, deliberate: bool = False) -> list[CandidateRow]:
    """The candidates that structures become when they are added one after another."""
    rows = []
    for atoms in all_atoms:
        report = add_structures(ctx, [(Structure.from_atoms(atoms), "test")], deliberate=deliberate)
        rows.append(ctx.ledger.pool.get(report.ids[0]))
    return rows


def states(rows: list[CandidateRow]) -> list[str]:
    return [str(row.state) for row in rows]


def alloy(seed: int = 5) -> Atoms:
    return alloys(1, np.random.default_rng(seed))[0]


def test_the_tolerances_that_held_are_told_and_a_change_is_for_what_comes_after(make_campaign: MakeCampaign) -> None:
    ctx = open_campaign(make_campaign())
    rng = np.random.default_rng(4)
    original = alloy()
    first, near = added(ctx, original, disguise(jiggled(original, rng, 0.01), rng))
    assert states([first, near]) == ["pooled", "duplicate"]
    assert near.duplicate_of == first.id
    assert near.relation is not None
    assert near.relation["relation"] == "redundant"
    held = {
        "max_displacement": 0.015,
        "rms_displacement": 0.015,
        "max_strain": 0.002,
        "moments": 1e-3,
        "mirror": True,
        "any_volume": False,
    }
    assert near.relation["policy"] == held
    assert near.relation["isometry"]["max_displacement"] == pytest.approx(0.01, rel=0.3)
    told = str(ctx.ledger.why(near.id))
    assert f"within the tolerance of candidate {first.id}" in told
    assert "0.015 Å and a strain of 0.002 were allowed" in told

    changed = open_campaign(make_campaign(duplicates={"displacement": 0.005, "strain": 0.0005}))
    [event] = changed.ledger.events.list(changed.campaign_id, kind="configuration")
    assert event.payload["old"]["campaign"]["duplicates"]["displacement"] == 0.015
    assert changed.campaign.config["campaign"]["duplicates"]["displacement"] == 0.005
    kept, close = added(changed, jiggled(original, rng, 0.01), jiggled(original, rng, 0.003))
    assert states([kept, close]) == ["pooled", "duplicate"]
    assert close.relation is not None
    assert close.relation["policy"]["max_displacement"] == 0.005
    old = changed.ledger.pool.get(near.id)
    assert (old.state, old.relation) == (near.state, near.relation)


def test_identical_structures_only(make_campaign: MakeCampaign) -> None:
    ctx = open_campaign(make_campaign(duplicates={"relation": "identical"}))
    rng = np.random.default_rng(5)
    original = alloy()
    rows = added(ctx, original, jiggled(original, rng, 0.003), disguise(original, rng))
    assert states(rows) == ["pooled", "pooled", "duplicate"]
    assert rows[2].relation is not None
    assert rows[2].relation["policy"]["max_displacement"] == 1e-4


@pytest.mark.parametrize(("mirror", "state"), [(True, "duplicate"), (False, "pooled")])
def test_mirror_images_by_policy(make_campaign: MakeCampaign, mirror: bool, state: str) -> None:
    ctx = open_campaign(make_campaign(duplicates={"mirror": mirror}))
    original = alloy()
    image = original.copy()
    image.set_cell(original.cell.array * [-1.0, 1.0, 1.0], scale_atoms=False)
    image.positions = original.positions * [-1.0, 1.0, 1.0]
    rows = added(ctx, original, image, disguise(original, np.random.default_rng(1), Disguise(mirror=False)))
    assert states(rows) == ["pooled", state, "duplicate"]
    if not mirror:
        assert "mirror images were not" in str(ctx.ledger.why(rows[2].id))


def test_deliberate_displacements_and_strains_are_never_swallowed(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    """From a source that is marked deliberate to the queue."""
    rng = np.random.default_rng(6)
    base = bulk("Ni", "fcc", a=3.6, cubic=True)
    moved = base.copy()
    moved.positions[2, 0] += 0.01
    back = base.copy()
    back.positions[2, 0] -= 0.01  # by symmetry the same as the one before
    little, more = (strained(base, rng, size) for size in (0.001, 0.005))
    frames = [base, moved, back, little, more, disguise(moved, rng)]
    (tmp_path / "campaign").mkdir()
    write(tmp_path / "campaign" / "frames.extxyz", frames)
    ctx = open_campaign(make_campaign(sources=[{"kind": "files", "paths": ["frames.extxyz"], "deliberate": True}]))
    round_row = ctx.ledger.rounds.open(ctx.campaign_id, 0)
    for name, step in explore_steps(ctx, 0):
        ctx.ledger.rounds.begin_step(round_row.id, name)
        step(ctx, round_row)
    rows = ctx.ledger.pool.rows(ctx.ledger.pool.ids(ctx.campaign_id))
    pooled = [row for row in rows if row.state is CandidateState.POOLED]
    assert len(pooled) == 4
    assert len(rows) == 6
    assert all(row.deliberate and row.stream is Stream.DELIBERATE for row in rows)
    for row in rows:
        if row.state is CandidateState.DUPLICATE:
            assert row.reason.startswith("identical")
    ids = [row.id for row in pooled]
    ctx.ledger.pool.transition(ids, CandidateState.SELECTED, "all of them")
    with ctx.write():
        assert enqueue(ctx, ids) == {"queued": 4, "reused": 0, "duplicates": 0}

    careless = added(ctx, jiggled(base, rng, 0.01), deliberate=False)
    assert careless[0].reason.startswith("redundant")


def test_spin_states_are_told_apart_and_a_global_flip_is_not(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    ctx = magnetic_campaign(make_campaign, tmp_path)
    rng = np.random.default_rng(8)

    def state(*moments: float) -> Atoms:
        atoms = bulk("Ni", "fcc", a=3.6, cubic=True)
        atoms.set_initial_magnetic_moments(moments)
        return atoms

    ferromagnetic, antiferromagnetic, ferrimagnetic = state(1, 1, 1, 1), state(1, 1, -1, -1), state(1, 1, 1, -1)
    rows = added(ctx, bulk("Ni", "fcc", a=3.6, cubic=True), ferromagnetic, antiferromagnetic, ferrimagnetic)
    assert states(rows) == ["pooled"] * 4
    copies = [disguise(state(-1, -1, -1, -1), rng), state(-1, 1, 1, -1), disguise(state(-1, -1, -1, 1), rng)]
    again = added(ctx, *copies)
    assert states(again) == ["duplicate"] * 3
    assert [row.duplicate_of for row in again] == [row.id for row in rows[1:]]
    assert states(added(ctx, state(1.1, 1.1, 1.1, 1.1))) == ["pooled"]

    loose = magnetic_campaign(make_campaign, tmp_path, duplicates={"moments": 0.3})
    [weaker] = added(loose, state(1.4, 1.3, 1.4, 1.3))
    assert weaker.reason.startswith("redundant")
    assert states(added(loose, state(1.6, 1.6, 1.6, 1.6))) == ["pooled"]


def test_fingerprints_of_an_older_version_are_not_compared_but_made_anew(make_campaign: MakeCampaign) -> None:
    ctx = open_campaign(make_campaign())
    original = alloy()
    [first] = added(ctx, original)
    with ctx.ledger._database.write() as connection:
        connection.exec_driver_sql("UPDATE fingerprint SET version = 0, leading_0 = 1.0")
    [second] = added(ctx, disguise(original, np.random.default_rng(3)))
    assert (second.state, second.duplicate_of) == (CandidateState.DUPLICATE, first.id)


def test_what_came_while_structures_were_compared_counts(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process adds a copy after the comparison and before the transaction, once and again and again."""
    path = make_campaign()
    ctx, other = open_campaign(path), open_campaign(path)
    rng = np.random.default_rng(9)
    originals = alloys(8, rng)
    waiting = list(originals[:6])
    look = _ingest._Batch.look
    looks = 0

    def interrupted(batch: _ingest._Batch, newest: int) -> None:
        nonlocal looks
        look(batch, newest)
        if batch._ctx is ctx and not ctx.ledger._database.in_write:
            looks += 1
            if waiting:
                added(other, disguise(waiting.pop(0), rng))

    monkeypatch.setattr(_ingest._Batch, "look", interrupted)
    monkeypatch.setattr(_ingest, "PATIENCE", 4)
    report = add_structures(ctx, [(Structure.from_atoms(a), "test") for a in originals])
    assert looks == 4
    assert waiting == originals[4:6], "the last look, inside the transaction, lets nobody in"
    assert (report.pooled, report.duplicates) == (4, 4)
    rows = [ctx.ledger.pool.get(i) for i in report.ids]
    assert states(rows) == ["duplicate"] * 4 + ["pooled"] * 4


def test_a_candidate_that_went_while_structures_were_compared_is_no_original(
    make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = open_campaign(make_campaign())
    rng = np.random.default_rng(10)
    original = alloy()
    [first] = added(ctx, original)
    look = _ingest._Batch.look
    going = [first.id]

    def interrupted(batch: _ingest._Batch, newest: int) -> None:
        look(batch, newest)
        if going:
            ctx.ledger.pool.exclude([going.pop()], "changed my mind")

    monkeypatch.setattr(_ingest._Batch, "look", interrupted)
    [second, third] = [disguise(original, rng), disguise(original, rng)]
    report = add_structures(ctx, [(Structure.from_atoms(a), "test") for a in (second, third)])
    assert (report.pooled, report.duplicates) == (1, 1)
    rows = [ctx.ledger.pool.get(i) for i in report.ids]
    kept = next(row for row in rows if row.state is CandidateState.POOLED)
    assert next(row for row in rows if row is not kept).duplicate_of == kept.id
