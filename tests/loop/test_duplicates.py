"""A rotated copy of a known structure is never paid for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from alflow.labelers import get_labeler
from alflow.ledger import CandidateState, LabelKind
from alflow.loop import CampaignContext, RunLimits, add_structures, import_labels, open_campaign, run
from alflow.structures import LabelledStructure, Structure
from tests.disguises import disguise, jiggled, one_moved, one_swapped, strained
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


def test_200_near_misses_are_kept(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    (tmp_path / "campaign").mkdir()
    (tmp_path / "campaign" / "alflow-worker.yaml").write_text(
        "labelers:\n  spin:\n    calculator: ase.calculators.emt.EMT\n    convergence: analytic\n"
        "    moments: collinear\n"
    )
    ctx = open_campaign(make_campaign(theory={"labeler": "ase", "name": "spin"}))
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
