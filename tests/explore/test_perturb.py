from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from alflow.explore import ExploreContext, PerturbSettings, PerturbSource, check_source
from alflow.structures import Structure

STARTS = [Structure.from_atoms(bulk(e, cubic=True)) for e in ("Cu", "Ag", "Au")]


def context(starts: list[Structure], seed: int = 0) -> ExploreContext:
    return ExploreContext(rng=np.random.default_rng(seed), elements=("Cu",), starts=starts)


def test_every_start_is_used_before_any_is_used_again() -> None:
    proposals = check_source(PerturbSource(PerturbSettings(n=7)), context(STARTS))
    assert len(proposals) == 7
    assert sorted(Counter(p.parent for p in proposals).values()) == [2, 2, 3]
    assert len({p.structure.content_hash for p in proposals}) == 7


def test_amplitudes_stay_within_the_settings() -> None:
    settings = PerturbSettings(n=200, rattle=0.1, strain=0.03, volume=0.04)
    by_hash = {s.content_hash: s for s in STARTS}
    for p in PerturbSource(settings).propose(context(STARTS)):
        assert p.parent is not None
        ratio = p.structure.volume / by_hash[p.parent].volume
        assert ratio == pytest.approx(p.parameters["volume_factor"])
        assert 0.96 <= ratio <= 1.04
        assert 0 <= p.parameters["rattle"] <= 0.1


def test_small_cells_are_repeated_and_nothing_comes_from_nothing() -> None:
    (proposal,) = PerturbSource(PerturbSettings(n=1, min_atoms=9)).propose(context(STARTS[:1]))
    assert proposal.structure.n_atoms == 16
    assert proposal.parameters["repeated"] == 4
    assert list(PerturbSource(PerturbSettings()).propose(context([]))) == []


def test_molecules_are_rattled_only() -> None:
    molecule = Structure.from_atoms(Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.2]]))
    (proposal,) = PerturbSource(PerturbSettings(n=1)).propose(context([molecule]))
    assert proposal.parameters["strain"] == 0.0
    assert not proposal.structure.pbc.any()
