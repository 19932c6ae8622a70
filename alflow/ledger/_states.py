"""Every state the ledger knows, and the changes between states that it allows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from alflow.errors import TransitionError

AUTOMATIC_ACTORS = frozenset({"loop", "worker", "reaper"})


class CampaignState(StrEnum):
    """Whether a campaign may be driven on."""

    ACTIVE = "active"
    WAITING = "waiting"
    STOPPED = "stopped"


class RoundState(StrEnum):
    """A round is open until its last step is finished."""

    OPEN = "open"
    CLOSED = "closed"


class StepState(StrEnum):
    """A finished step is never redone."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"


class CandidateState(StrEnum):
    """Where a candidate stands in its campaign."""

    PROPOSED = "proposed"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    POOLED = "pooled"
    SELECTED = "selected"
    QUEUED = "queued"
    LABELLED = "labelled"
    FAILED = "failed"
    QUARANTINED = "quarantined"


class Stream(StrEnum):
    """By which way a candidate came to be labelled."""

    ACTIVE = "active"
    RANDOM = "random"
    DESIGN = "design"
    CONFIRM = "confirm"
    DELIBERATE = "deliberate"
    IMPORTED = "imported"
    MANUAL = "manual"


class LabelKind(StrEnum):
    """How a label came into the ledger."""

    COMPUTED = "computed"
    REUSED = "reused"
    IMPORTED = "imported"


class LabelQuality(StrEnum):
    """Whether a label counts; at most one label per structure and theory is accepted."""

    ACCEPTED = "accepted"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"


class JobState(StrEnum):
    """Where the request for one label stands."""

    QUEUED = "queued"
    LEASED = "leased"
    SUBMITTED = "submitted"
    RUNNING = "running"
    DONE = "done"
    RETRY_WAIT = "retry_wait"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """What became of one execution of a job."""

    LEASED = "leased"
    SUBMITTED = "submitted"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    RELEASED = "released"


#: jobs that a worker holds under a lease
HELD_JOBS = (JobState.LEASED, JobState.SUBMITTED, JobState.RUNNING)
#: jobs that still have to become a label or a failure
OPEN_JOBS = (JobState.QUEUED, JobState.RETRY_WAIT, *HELD_JOBS)
#: candidates against which a new structure is compared: they are, were or will be paid for
KEPT_CANDIDATES = (
    CandidateState.POOLED,
    CandidateState.SELECTED,
    CandidateState.QUEUED,
    CandidateState.LABELLED,
    CandidateState.FAILED,
    CandidateState.QUARANTINED,
)
#: states in which a candidate may enter the ledger; labelled is for imported and reused labels
INITIAL_CANDIDATES = (
    CandidateState.PROPOSED,
    CandidateState.REJECTED,
    CandidateState.DUPLICATE,
    CandidateState.POOLED,
    CandidateState.LABELLED,
)

_C = CandidateState
CANDIDATE_TRANSITIONS: Mapping[CandidateState, frozenset[CandidateState]] = MappingProxyType(
    {
        _C.PROPOSED: frozenset({_C.REJECTED, _C.DUPLICATE, _C.POOLED}),
        _C.POOLED: frozenset({_C.SELECTED, _C.LABELLED, _C.REJECTED, _C.DUPLICATE}),
        _C.SELECTED: frozenset({_C.QUEUED, _C.DUPLICATE, _C.POOLED, _C.LABELLED, _C.FAILED, _C.QUARANTINED}),
        _C.QUEUED: frozenset({_C.LABELLED, _C.FAILED, _C.QUARANTINED}),
        _C.REJECTED: frozenset(),
        _C.DUPLICATE: frozenset(),
        _C.LABELLED: frozenset(),
        _C.FAILED: frozenset(),
        _C.QUARANTINED: frozenset(),
    }
)
#: what only a person may do, besides the automatic changes: cancel, exclude, take back, retry, import a label
PERSONAL_TRANSITIONS: Mapping[CandidateState, frozenset[CandidateState]] = MappingProxyType(
    {
        _C.SELECTED: frozenset({_C.REJECTED}),
        _C.QUEUED: frozenset({_C.REJECTED}),
        _C.REJECTED: frozenset({_C.POOLED, _C.QUEUED, _C.LABELLED}),
        _C.DUPLICATE: frozenset({_C.POOLED, _C.LABELLED}),
        _C.FAILED: frozenset({_C.QUEUED, _C.LABELLED}),
        _C.QUARANTINED: frozenset({_C.QUEUED, _C.LABELLED}),
    }
)

_J = JobState
_HELD_TO = frozenset({_J.DONE, _J.RETRY_WAIT, _J.FAILED, _J.QUARANTINED, _J.CANCELLED, _J.QUEUED})
JOB_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        _J.QUEUED: frozenset({_J.LEASED, _J.CANCELLED, _J.DONE}),
        _J.LEASED: _HELD_TO | {_J.SUBMITTED, _J.RUNNING},
        _J.SUBMITTED: _HELD_TO | {_J.RUNNING},
        _J.RUNNING: _HELD_TO,
        _J.RETRY_WAIT: frozenset({_J.QUEUED, _J.LEASED, _J.CANCELLED, _J.DONE}),
        _J.FAILED: frozenset({_J.QUEUED, _J.DONE}),
        _J.QUARANTINED: frozenset({_J.QUEUED, _J.DONE}),
        _J.CANCELLED: frozenset({_J.QUEUED, _J.DONE}),
        _J.DONE: frozenset(),
    }
)
CAMPAIGN_TRANSITIONS: Mapping[CampaignState, frozenset[CampaignState]] = MappingProxyType(
    {
        CampaignState.ACTIVE: frozenset({CampaignState.WAITING, CampaignState.STOPPED}),
        CampaignState.WAITING: frozenset({CampaignState.ACTIVE, CampaignState.STOPPED}),
        CampaignState.STOPPED: frozenset({CampaignState.ACTIVE}),
    }
)
STEP_TRANSITIONS: Mapping[StepState, frozenset[StepState]] = MappingProxyType(
    {
        StepState.PENDING: frozenset({StepState.RUNNING}),
        StepState.RUNNING: frozenset({StepState.FINISHED}),
        StepState.FINISHED: frozenset(),
    }
)

S = TypeVar("S", bound=StrEnum)


def allowed_candidate_states(state: CandidateState, actor: str) -> frozenset[CandidateState]:
    """States a candidate may go to from ``state``; a person may do more than the loop."""
    allowed = CANDIDATE_TRANSITIONS[state]
    if actor not in AUTOMATIC_ACTORS:
        allowed |= PERSONAL_TRANSITIONS.get(state, frozenset())
    return allowed


def check_transition(table: Mapping[S, frozenset[S]], what: str, old: S, new: S) -> None:
    """Refuse a change of state that ``table`` does not hold; staying where one is is always allowed.

    Raises
    ------
    TransitionError
        naming what, both states and the states that are allowed
    """
    if new == old or new in table[old]:
        return
    allowed = ", ".join(sorted(table[old])) or "nothing: this state is final"
    raise TransitionError(f"{what} is {old} and cannot become {new}; from {old} it may become {allowed}")
