from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from alflow.errors import PotentialError
from alflow.explore import (
    EnumerateSettings,
    EnumerateSource,
    ExploreContext,
    RelaxSettings,
    RelaxSource,
    check_source,
)
from alflow.structures import Structure
from tests.explore.committees import CalculatorCommittee

ELEMENTS = ("Ni", "Pt")


def orderings(max_atoms: int) -> list[Structure]:
    context = ExploreContext(rng=np.random.default_rng(0), elements=ELEMENTS)
    return [p.structure for p in EnumerateSource(EnumerateSettings(max_atoms=max_atoms)).propose(context)]


def context(starts: list[Structure], committee: CalculatorCommittee | None) -> ExploreContext:
    return ExploreContext(rng=np.random.default_rng(0), elements=ELEMENTS, starts=starts, committee=committee)


def test_relaxed_starts_come_in_order_with_their_parents(emt: CalculatorCommittee) -> None:
    starts = orderings(3)
    proposals = check_source(RelaxSource(RelaxSettings()), context(starts, emt))
    assert [p.parent for p in proposals] == [s.content_hash for s in starts]
    assert all(p.rejected is None and p.parameters["stop"] == "converged" for p in proposals)
    assert all(str(p.parameters["reason"]).startswith("relaxed in") for p in proposals)


def test_the_hull_window_rejects_with_a_reason(emt: CalculatorCommittee) -> None:
    starts = orderings(3)
    proposals = list(RelaxSource(RelaxSettings(e_hull_window=0.04)).propose(context(starts, emt)))
    heights = np.array([p.parameters["predicted_above_hull"] for p in proposals])
    assert (heights >= 0).all()
    assert heights[:2].max() == 0.0  # the elements
    rejected = [p.rejected is not None for p in proposals]
    assert rejected == list(heights > 0.04)
    assert any(rejected)
    assert not all(rejected)
    assert "above the predicted hull" in str(next(p.rejected for p in proposals if p.rejected))
    energies = {p.structure.reduced_formula: p.parameters["energy_per_atom"] for p in proposals if not p.rejected}
    by_hand = energies["NiPt"] - (energies["Ni"] + energies["Pt"]) / 2
    assert by_hand < -0.1


def test_the_geometry_at_which_it_left_what_is_known_is_proposed() -> None:
    committee = CalculatorCommittee(EMT(), spread=0.5)
    (proposal,) = RelaxSource(RelaxSettings(u_limit=1.0)).propose(
        context([Structure.from_atoms(bulk("Ni", a=3.7))], committee)
    )
    assert proposal.rejected is None
    assert proposal.parameters["stop"] == "uncertain"
    assert "left what the committee knows in step 1: u = " in proposal.parameters["reason"]


def test_what_did_not_relax_is_rejected_unless_asked_for(emt: CalculatorCommittee) -> None:
    starts = [Structure.from_atoms(bulk("Ni", a=3.7))] * 2
    settings = RelaxSettings(max_steps=2, max_starts=1)
    (proposal,) = RelaxSource(settings).propose(context(starts, emt))
    assert "not relaxed after 2 steps" in str(proposal.rejected)
    (proposal,) = RelaxSource(settings.model_copy(update={"propose_unconverged": True})).propose(context(starts, emt))
    assert proposal.rejected is None


def test_without_a_committee_it_says_so() -> None:
    with pytest.raises(PotentialError, match="needs a committee"):
        list(RelaxSource(RelaxSettings()).propose(context([], None)))
