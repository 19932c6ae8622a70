from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from alflow.errors import FailureKind, NotFoundError
from alflow.ledger import (
    CampaignRow,
    CandidateState,
    JobRow,
    LabelKind,
    Ledger,
    NewCandidate,
    NewScore,
    Stream,
    TheoryRow,
    WorkerIdentity,
)
from alflow.structures import Properties, Structure

WORKER = WorkerIdentity(name="w1", host="node1", pid=1)


def told(ledger: Ledger, candidate_id: int) -> str:
    why = ledger.why(candidate_id)
    assert why.candidate_id == candidate_id
    assert str(why) == "\n".join(why.sentences)
    for sentence in why.sentences:
        assert sentence.endswith((".", ")."))
        assert ".." not in sentence
        assert "None" not in sentence
    return str(why)


def test_a_candidate_that_was_labelled(
    ledger: Ledger,
    campaign: CampaignRow,
    add: Callable[..., list[int]],
    enqueue: Callable[[list[int]], list[JobRow]],
    crystals: Callable[[int], list[Structure]],
) -> None:
    [parent] = add(1)
    round_row = ledger.rounds.open(campaign.id, 4)
    new = NewCandidate(
        structure=crystals(2)[1],
        source="perturb",
        parameters={"rattle": 0.123456, "seed_number": 7},
        parent_id=parent,
        deliberate=True,
    )
    [candidate] = ledger.pool.add(campaign.id, round_row.id, [new])
    ledger.pool.transition([candidate], CandidateState.POOLED, "passed the filters")
    ledger.pool.pin([candidate], "looks interesting", actor="ada")
    committee = ledger.committees.add(
        round_row.id, spec={}, training={}, artifact_id=None, metrics={}, calibration=None, seed=0, labels=[]
    )
    score = NewScore(u=2.5, energy_error=0.0125, force_error=0.2, stress_error=0.01, e_hull=0.03)
    ledger.pool.record_scores(round_row.id, committee.id, [candidate], "selection", [score])
    ledger.pool.transition(
        [candidate], CandidateState.SELECTED, "pinned by ada", stream=Stream.MANUAL, rank=3, actor="loop"
    )
    [job] = enqueue([candidate])
    [claimed] = ledger.queue.claim(WORKER, limit=1)
    ledger.queue.fail(claimed.job_id, claimed.fence, FailureKind.NOT_CONVERGED, "60 SCF steps were not enough")
    [claimed] = ledger.queue.claim(WORKER, limit=1)
    ledger.queue.complete(claimed.job_id, claimed.fence, Properties(energy=-4.0), {}, {"seconds": 12.0})
    story = told(ledger, candidate)
    for part in (
        "of campaign Ni-Pt is",
        "proposed by perturb in round 4 with rattle 0.1235, seed number 7",
        f"made from candidate {parent} ",
        "marked deliberate",
        "ada pinned it: looks interesting",
        "from proposed to pooled: passed the filters",
        "from pooled to selected: pinned by ada",
        "In round 4, for selection, committee",
        "u = 2.5 (not known well enough)",
        "12.5 meV/atom",
        "30 meV/atom above the hull",
        "number 4 of its batch, by the manual stream",
        f"Job {job.id} asks for its label of theory emt",
        "Attempt 1, by w1 on node1",
        "failed (not_converged): 60 SCF steps were not enough",
        "Attempt 2",
        "gave the label after 12 s",
        "was computed by w1",
        "It is labelled: labelled by w1 in job",
    ):
        assert part in story, (part, story)
    facts = ledger.why(candidate).facts
    assert [h["to"] for h in facts["history"]] == ["pooled", "selected", "queued", "labelled"]
    assert [a["error"] for a in facts["jobs"][0]["attempts"]] == ["not_converged", None]


def test_an_added_candidate_names_its_file(
    ledger: Ledger, campaign: CampaignRow, crystals: Callable[[int], list[Structure]]
) -> None:
    new = NewCandidate(structure=crystals(1)[0], source="added", parameters={"from": "a.cif, frame 0"})
    [candidate] = ledger.pool.add(campaign.id, None, [new])
    assert "It was added from a.cif, frame 0, on " in told(ledger, candidate)


def test_a_duplicate_names_its_original(
    ledger: Ledger, campaign: CampaignRow, theory: TheoryRow, crystals: Callable[[int], list[Structure]]
) -> None:
    structures = crystals(4)
    [original] = ledger.pool.add(campaign.id, None, [NewCandidate(structure=structures[0], source="files")])
    other = ledger.campaigns.create("other", "", {}, 1)
    relation = {
        "relation": "redundant",
        "tolerance": 0.015,
        "isometry": {"max_displacement": 0.0101, "max_strain": 1e-4, "det": -1.0, "rotation": np.eye(3)},
    }
    [near] = ledger.pool.add(
        other.id,
        None,
        [
            NewCandidate(
                structure=structures[1],
                source="dynamics",
                state=CandidateState.DUPLICATE,
                reason="redundant within 0.015 Å",
                duplicate_of=original,
                relation=relation,
            )
        ],
    )
    story = told(ledger, near)
    for part in (
        f"within the tolerance of candidate {original} of campaign Ni-Pt",
        "no atom is off by more than 0.01 Å",
        "mirrored",
        "tolerance 0.015",
        f"not labelled because it repeats candidate {original}: redundant within 0.015 Å",
    ):
        assert part in story, (part, story)
    assert "One other candidate repeats it" in told(ledger, original)
    later = [NewCandidate(structure=s, source="perturb") for s in structures[2:]]
    ids = ledger.pool.add(campaign.id, None, later)
    ledger.pool.transition(
        ids, CandidateState.DUPLICATE, "same", duplicate_of=original, relation={"relation": "identical"}
    )
    assert f"It is the same structure as candidate {original} (" in told(ledger, ids[0])
    assert "3 other candidates repeat it" in told(ledger, original)


def test_a_reused_and_an_imported_label(
    ledger: Ledger, campaign: CampaignRow, theory: TheoryRow, add: Callable[..., list[int]]
) -> None:
    ids = add(2)
    rows = ledger.pool.rows(ids)
    with ledger.write():
        first = ledger.labels.store(
            rows[0].structure_id,
            theory.id,
            Properties(energy=-1.0),
            kind=LabelKind.IMPORTED,
            evidence={"file": "labels.extxyz", "frame": 3},
        )
        ledger.labels.store(
            rows[1].structure_id,
            theory.id,
            Properties(energy=-1.0),
            kind=LabelKind.REUSED,
            evidence={},
            derived_from=first.id,
            isometry={"max_displacement": 2e-6, "det": 1.0},
        )
        ledger.pool.transition(ids, CandidateState.LABELLED, ["imported", "reused from an identical structure"])
    assert "was imported on" in told(ledger, ids[0])
    assert "file labels.extxyz, frame 3" in told(ledger, ids[0])
    story = told(ledger, ids[1])
    assert f"taken from label {first.id} (candidate {ids[0]}) through an isometry: no atom is off" in story
    assert "It is labelled: reused from an identical structure" in story


def test_the_random_stream_says_how_likely(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    ids = add(1)
    ledger.pool.transition(
        ids, CandidateState.SELECTED, "drawn at random", stream=Stream.RANDOM, inclusion_probability=0.05, rank=1
    )
    assert "random stream, drawn with probability 0.05" in told(ledger, ids[0])


@pytest.mark.parametrize("state", [CandidateState.PROPOSED, CandidateState.POOLED, CandidateState.SELECTED])
def test_a_candidate_on_its_way(ledger: Ledger, add: Callable[..., list[int]], state: CandidateState) -> None:
    assert told(ledger, add(1, state)[0])


def test_rejection_cancellation_and_quarantine(
    ledger: Ledger,
    campaign: CampaignRow,
    add: Callable[..., list[int]],
    enqueue: Callable[[list[int]], list[JobRow]],
) -> None:
    ids = add(4, CandidateState.SELECTED)
    ledger.pool.exclude(ids[3:], "I know better", actor="ada")
    assert "was rejected: excluded by ada: I know better" in told(ledger, ids[3])
    jobs = enqueue(ids[:3])
    ledger.queue.cancel([jobs[0].id], actor="ada")
    story = told(ledger, ids[0])
    assert "Its request for job" in story
    assert "labelling was cancelled by ada" in story
    [claimed] = ledger.queue.claim(WORKER, limit=1)
    ledger.queue.fail(claimed.job_id, claimed.fence, FailureKind.MISSING_FILE, "no PAW data for Pt")
    story = told(ledger, ids[1])
    assert "quarantined after missing_file: no PAW data for Pt" in story
    assert "set aside for a person to look at" in story
    [claimed] = ledger.queue.claim(WORKER, limit=1, lease_seconds=0.1)
    ledger.queue.start(claimed.job_id, claimed.fence)
    time.sleep(0.15)
    ledger.queue.reclaim_expired()
    assert "was lost (worker_died): the lease of w1 ran out" in told(ledger, ids[2])


def test_an_unknown_candidate(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError, match="alflow ls"):
        ledger.why(99)
