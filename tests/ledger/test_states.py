from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from alflow.errors import TransitionError
from alflow.ledger import CampaignRow, CandidateState, JobState, Ledger, NewCandidate
from alflow.ledger._states import (
    CAMPAIGN_TRANSITIONS,
    CANDIDATE_TRANSITIONS,
    INITIAL_CANDIDATES,
    JOB_TRANSITIONS,
    STEP_TRANSITIONS,
    allowed_candidate_states,
    check_transition,
)
from alflow.structures import Structure

WAYS: dict[CandidateState, list[CandidateState]] = {
    CandidateState.PROPOSED: [],
    CandidateState.REJECTED: [CandidateState.REJECTED],
    CandidateState.DUPLICATE: [CandidateState.DUPLICATE],
    CandidateState.POOLED: [CandidateState.POOLED],
    CandidateState.SELECTED: [CandidateState.POOLED, CandidateState.SELECTED],
    CandidateState.QUEUED: [CandidateState.POOLED, CandidateState.SELECTED, CandidateState.QUEUED],
    CandidateState.LABELLED: [CandidateState.POOLED, CandidateState.LABELLED],
    CandidateState.FAILED: [CandidateState.POOLED, CandidateState.SELECTED, CandidateState.FAILED],
    CandidateState.QUARANTINED: [CandidateState.POOLED, CandidateState.SELECTED, CandidateState.QUARANTINED],
}


def test_every_state_has_its_transitions() -> None:
    assert set(CANDIDATE_TRANSITIONS) == set(CandidateState)
    assert set(JOB_TRANSITIONS) == set(JobState)
    for table in (CANDIDATE_TRANSITIONS, JOB_TRANSITIONS, CAMPAIGN_TRANSITIONS, STEP_TRANSITIONS):
        assert all(state not in allowed for state, allowed in table.items())


def test_the_transitions_are_those_of_the_design() -> None:
    s = CandidateState
    named = {
        (s.PROPOSED, s.REJECTED),
        (s.PROPOSED, s.DUPLICATE),
        (s.PROPOSED, s.POOLED),
        (s.POOLED, s.SELECTED),
        (s.SELECTED, s.QUEUED),
        (s.SELECTED, s.DUPLICATE),
        (s.QUEUED, s.LABELLED),
        (s.QUEUED, s.FAILED),
        (s.QUEUED, s.QUARANTINED),
        (s.POOLED, s.LABELLED),
    }
    assert all(new in CANDIDATE_TRANSITIONS[old] for old, new in named)
    assert not CANDIDATE_TRANSITIONS[s.LABELLED]
    for state in (s.FAILED, s.QUARANTINED):
        assert s.QUEUED not in allowed_candidate_states(state, "loop")
        assert s.QUEUED in allowed_candidate_states(state, "somebody")


@pytest.mark.parametrize("actor", ["loop", "somebody"])
def test_every_pair_of_states(
    ledger: Ledger, campaign: CampaignRow, crystals: Callable[[int], list[Structure]], actor: str
) -> None:
    pairs = list(product(CandidateState, CandidateState))
    structures = crystals(len(pairs) + 1)
    new = [NewCandidate(structure=s, source="perturb") for s in structures]
    original, *ids = ledger.pool.add(campaign.id, None, new)
    for candidate_id, (old, to) in zip(ids, pairs, strict=True):
        with ledger.write():
            for state in WAYS[old]:
                ledger.pool.transition([candidate_id], state, "on its way", duplicate_of=original)
        if to == old or to in allowed_candidate_states(old, actor):
            moved = ledger.pool.transition([candidate_id], to, "because", duplicate_of=original, actor=actor)
            assert moved == ([] if to == old else [candidate_id])
            assert ledger.pool.get(candidate_id).state == to
        else:
            with pytest.raises(TransitionError, match=f"candidate {candidate_id} is {old} and cannot become {to}"):
                ledger.pool.transition([candidate_id], to, "because", duplicate_of=original, actor=actor)
            assert ledger.pool.get(candidate_id).state == old


@pytest.mark.parametrize("state", CandidateState)
def test_where_a_candidate_may_begin(
    ledger: Ledger, campaign: CampaignRow, crystals: Callable[[int], list[Structure]], state: CandidateState
) -> None:
    first, second = crystals(2)
    [original] = ledger.pool.add(campaign.id, None, [NewCandidate(structure=first, source="files")])
    new = NewCandidate(structure=second, source="files", state=state, reason="read", duplicate_of=original)
    if state in INITIAL_CANDIDATES:
        [candidate] = ledger.pool.add(campaign.id, None, [new])
        assert ledger.pool.get(candidate).state == state
    else:
        with pytest.raises(TransitionError, match="cannot begin"):
            ledger.pool.add(campaign.id, None, [new])


@pytest.mark.parametrize(("old", "new"), list(product(JobState, JobState)))
def test_pairs_of_job_states(old: JobState, new: JobState) -> None:
    if new == old or new in JOB_TRANSITIONS[old]:
        check_transition(JOB_TRANSITIONS, "job 1", old, new)
    else:
        with pytest.raises(TransitionError, match="job 1"):
            check_transition(JOB_TRANSITIONS, "job 1", old, new)
