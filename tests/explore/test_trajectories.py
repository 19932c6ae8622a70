from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from alflow.errors import PotentialError
from alflow.explore import DynamicsSettings, DynamicsSource, ExploreContext, check_source
from alflow.structures import Structure
from tests.explore.committees import SpringCommittee


def context(starts: list[Structure], committee: SpringCommittee | None) -> ExploreContext:
    return ExploreContext(rng=np.random.default_rng(0), elements=("Cu",), starts=starts, committee=committee)


STARTS = [Structure.from_atoms(bulk("Cu")), Structure.from_atoms(bulk("Cu", "hcp", a=2.5, c=4.1))]


def test_frames_of_all_walkers_at_their_temperatures() -> None:
    settings = DynamicsSettings(walkers=4, steps=20, save_every=10, temperatures=(200.0, 400.0))
    proposals = check_source(DynamicsSource(settings), context(STARTS, SpringCommittee()))
    assert [p.parameters["walker"] for p in proposals] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [p.parameters["temperature"] for p in proposals] == [200.0] * 2 + [400.0] * 2 + [200.0] * 2 + [400.0] * 2
    assert {p.parent for p in proposals} == {s.content_hash for s in STARTS}
    for p in proposals:
        assert p.structure.n_atoms >= 8
        assert 0.95 < p.parameters["volume_factor"] < 1.05
        assert "reason" not in p.parameters


def test_the_frame_that_ends_a_walker_says_why() -> None:
    settings = DynamicsSettings(walkers=1, steps=200, temperatures=(2000.0,), u_limit=1.0)
    (*_, last) = DynamicsSource(settings).propose(context(STARTS, SpringCommittee(spread=0.3)))
    assert "dynamics at 2000 K left what the committee knows in step" in last.parameters["reason"]
    assert last.parameters["u"] > 1.0
    assert last.rejected is None


def test_without_a_committee_or_a_start() -> None:
    with pytest.raises(PotentialError, match="needs a committee"):
        list(DynamicsSource(DynamicsSettings()).propose(context(STARTS, None)))
    atom = Structure.from_atoms(Atoms("Cu"))
    assert list(DynamicsSource(DynamicsSettings()).propose(context([atom], SpringCommittee()))) == []
