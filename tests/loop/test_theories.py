"""Labels of two theories never mix, unless a person says that they are one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from alflow.errors import TheoryError, UserError
from alflow.ledger import CampaignState, CandidateState, JobState, LabelKind, WorkerIdentity
from alflow.loop import RunLimits, SilentReporter, add_structures, import_labels, open_campaign, run
from alflow.loop._hull import labelled_candidates
from alflow.structures import LabelledStructure, Properties, Structure
from tests.disguises import disguise
from tests.loop.conftest import MakeCampaign

Write = Callable[..., Path]


@pytest.fixture
def write(make_campaign: MakeCampaign, tmp_path: Path) -> Write:
    """Write a campaign whose calculator has a potential file, and that file."""
    folder = tmp_path / "campaign"
    folder.mkdir()
    potential = folder / "potential.txt"
    (folder / "alflow-worker.yaml").write_text(
        "labelers:\n  pot:\n    calculator: tests.loop.calculators.FromFile\n    convergence: analytic\n"
        f"    arguments: {{potential: {potential}}}\n    files: {{potential: {potential}}}\n"
    )

    def write(shift: float, theory: str, **changes: object) -> Path:
        potential.write_text(f"{shift}\n")
        settings = {"labeler": "ase", "name": theory, "settings": {"calculator": "pot"}}
        return make_campaign(theory=settings, **changes)

    return write


def test_another_potential_file_is_refused_until_the_theories_are_equated(write: Write) -> None:
    with open_campaign(write(0.0, "pot")).ledger:
        pass
    old = open_campaign(write(0.0, "pot"))
    run(old, limits=RunLimits(rounds=1))
    held = {row.structure_id for row, _ in labelled_candidates(old)}
    assert len(held) > 4

    with pytest.raises(TheoryError, match="another name"):
        open_campaign(write(0.25, "pot"))
    path = write(0.25, "pot-2")
    with pytest.raises(TheoryError, match=f"holds {len(held)} labels of theory 'pot'.*alflow theory equate pot pot-2"):
        open_campaign(path)
    assert old.campaign.config["theory"] == old.theory.fingerprint
    changed = old.ledger.theories.get("pot-2")
    assert changed.settings == old.theory.settings
    assert changed.files != old.theory.files

    old.ledger.equations.declare(old.theory.id, changed.id, "the same potential, for this test")
    new = open_campaign(path)
    assert {label.theory_id for _, label in labelled_candidates(new)} == {old.theory.id}
    run(new, limits=RunLimits(rounds=1))
    labels = [label for _, label in labelled_candidates(new)]
    assert {label.structure_id for label in labels} > held
    assert {label.theory_id for label in labels} == {old.theory.id, changed.id}
    committee = new.ledger.committees.latest(new.campaign_id)
    assert committee is not None
    assert new.ledger.committees.learned(new.campaign_id) >= {
        label.id for label in labels if label.theory_id == old.theory.id
    }

    old.ledger.equations.withdraw(old.theory.id, changed.id, "they are not the same")
    with pytest.raises(TheoryError, match="never mix"):
        open_campaign(path)
    with pytest.raises(TheoryError, match="'pot-2'"):  # nor back again, for the labels of the second round
        open_campaign(write(0.0, "pot"))


def test_calculations_under_way_hold_their_theory(write: Write) -> None:
    ctx = open_campaign(write(0.0, "pot"))
    [candidate] = add_structures(ctx, [(Structure.from_atoms(bulk("Pt")), "test")]).ids
    ctx.ledger.pool.transition([candidate], CandidateState.SELECTED, "chosen")
    job = ctx.ledger.queue.enqueue(ctx.ledger.pool.get(candidate).structure_id, ctx.theory.id, candidate)
    path = write(0.25, "pot-2")
    with pytest.raises(TheoryError, match=f"alflow queue cancel {job.id}"):
        open_campaign(path)
    ctx.ledger.queue.cancel([job.id], ctx.campaign_id)
    assert open_campaign(path).theory.name == "pot-2"


def test_a_label_that_is_carried_over_keeps_its_theory(write: Write) -> None:
    old = open_campaign(write(0.0, "pot"))
    atoms = bulk("Pt", cubic=True)
    atoms.numbers[0] = 28
    atoms.rattle(0.05, seed=1)
    structure = Structure.from_atoms(atoms)
    example = LabelledStructure(structure=structure, properties=old.labeler.label(structure).properties)
    assert import_labels(old, [(example, "known")], old.theory).taken == 1

    new = open_campaign(write(0.25, "pot-2", name="second"))
    with pytest.raises(UserError, match="alflow theory equate pot pot-2"):
        import_labels(new, [(example, "known")], old.theory)
    new.ledger.equations.declare(old.theory.id, new.theory.id, "for this test")
    copy = Structure.from_atoms(disguise(atoms, np.random.default_rng(5)))
    report = add_structures(new, [(copy, "copy")])
    row = new.ledger.pool.get(report.ids[0])
    assert row.state is CandidateState.LABELLED
    label = new.ledger.labels.get(row.structure_id, new.theory.id)
    assert label is not None
    assert (label.kind, label.theory_id) == (LabelKind.REUSED, old.theory.id)
    assert [found.id for _, found in labelled_candidates(new)] == [label.id]
    # nothing of it is left when the declaration is withdrawn
    new.ledger.equations.withdraw(old.theory.id, new.theory.id, "for this test")
    assert new.ledger.labels.get(row.structure_id, new.theory.id) is None


def test_a_job_gives_a_label_of_its_own_theory(write: Write) -> None:
    """Whose label counts for a theory is not asked where a label is stored."""
    ctx = open_campaign(write(0.0, "pot"))
    [candidate] = add_structures(ctx, [(Structure.from_atoms(bulk("Pt")), "test")]).ids
    structure_id = ctx.ledger.pool.get(candidate).structure_id
    other = ctx.ledger.theories.register("other", "emt", {}, "emt", {}, "f" * 64)
    ctx.ledger.equations.declare(other.id, ctx.theory.id, "for this test")
    ctx.ledger.pool.transition([candidate], CandidateState.SELECTED, "chosen")
    job = ctx.ledger.queue.enqueue(structure_id, ctx.theory.id, candidate)
    ctx.ledger.labels.store(structure_id, other.id, Properties(energy=1.0), kind=LabelKind.IMPORTED, evidence={})
    [claimed] = ctx.ledger.queue.claim(WorkerIdentity.current(), limit=1)
    ctx.ledger.queue.complete(claimed.job_id, claimed.fence, Properties(energy=2.0), {})
    assert ctx.ledger.queue.get(job.id).state is JobState.DONE
    label = ctx.ledger.labels.get(structure_id, ctx.theory.id)
    assert label is not None
    assert (label.theory_id, label.properties.energy) == (ctx.theory.id, 2.0)


def test_a_run_says_which_targets_are_below_the_noise(make_campaign: MakeCampaign) -> None:
    class Notes(SilentReporter):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    path = make_campaign()
    ctx = open_campaign(path, report=Notes())
    ctx.ledger.campaigns.set_state(ctx.campaign_id, CampaignState.STOPPED, "for this test")
    for noise, expected in ((0.001, 0), (0.02, 1)):
        ctx.ledger.theories.set_noise(ctx.theory.id, {"energy": noise})
        notes = Notes()
        run(open_campaign(path, report=notes))
        assert len([note for note in notes.notes if "below twice the noise" in note]) == expected
