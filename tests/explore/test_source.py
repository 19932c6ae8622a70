from __future__ import annotations

import subprocess
import sys

import numpy as np
from ase.build import bulk

import alflow.explore
from alflow.explore import ExploreContext, Proposal
from alflow.explore._starts import draw_starts
from alflow.structures import Structure


def test_the_face_of_the_room_is_what_it_says() -> None:
    public = {name for name in vars(alflow.explore) if not name.startswith("_")}
    assert public == set(alflow.explore.__all__)


def test_settings_and_sources_load_nothing_heavy() -> None:
    code = (
        "import alflow.explore, sys; print(sorted({'torch', 'pymatgen', 'prefect', 'sqlalchemy'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_progress_goes_to_whoever_listens() -> None:
    heard: list[tuple[str, int, int | None]] = []
    ExploreContext(rng=np.random.default_rng(0), elements=("Cu",)).report("silence", 1)
    ExploreContext(
        rng=np.random.default_rng(0), elements=("Cu",), progress=lambda *report: heard.append(report)
    ).report("work", 1, 2)
    assert heard == [("work", 1, 2)]


def test_a_proposal_needs_little() -> None:
    proposal = Proposal(structure=Structure.from_atoms(bulk("Cu")), source="own")
    assert proposal.rejected is None
    assert proposal.parent is None
    assert not proposal.deliberate


def test_starts_come_in_random_order_and_all_before_any_again() -> None:
    starts = [Structure.from_atoms(bulk("Cu", a=3.5 + i / 10)) for i in range(5)]
    drawn = list(draw_starts(np.random.default_rng(0), starts, 12))
    assert len(drawn) == 12
    assert set(drawn[:5]) == set(drawn[5:10]) == set(starts)
    assert drawn[:5] != starts
    assert list(draw_starts(np.random.default_rng(0), [], 3)) == []
