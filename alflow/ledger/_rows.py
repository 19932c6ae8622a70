"""What the ledger hands out: frozen rows, detached from the database. Times are UTC in ISO 8601."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alflow.ledger._columns import CandidateColumn
from alflow.ledger._states import (
    AttemptState,
    CampaignState,
    CandidateState,
    JobState,
    LabelKind,
    LabelQuality,
    RoundState,
    StepState,
    Stream,
)

if TYPE_CHECKING:
    from alflow.errors import FailureKind
    from alflow.structures import Fingerprint, Properties, Structure

Json = Mapping[str, Any]


def iso(seconds: float) -> str:
    """UTC time in ISO 8601 of seconds since the epoch, microseconds kept."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="microseconds")


def clock(seconds: float) -> str:
    """UTC time to the second of seconds since the epoch, as people read it in a message."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def maybe_iso(seconds: float | None) -> str | None:
    """As :func:`iso`, None stays None."""
    return None if seconds is None else iso(seconds)


@dataclass(frozen=True, kw_only=True)
class CampaignRow:
    """A campaign with its configuration and its lease."""

    id: int
    name: str
    goal: str
    config: Json
    config_version: int
    config_hash: str
    state: CampaignState
    reason: str
    created: str
    lease_owner: str | None
    lease_until: str | None
    fence: int


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """One pass of the loop."""

    id: int
    campaign_id: int
    index: int
    state: RoundState
    summary: Json
    started: str
    finished: str | None


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """A named part of a round; ``id`` is None while it is pending."""

    id: int | None
    round_id: int
    name: str
    state: StepState
    summary: Json
    started: str | None
    finished: str | None


@dataclass(frozen=True, kw_only=True)
class NewCandidate:
    """A structure to propose to a campaign.

    Parameters
    ----------
    structure
        the geometry with its electronic state
    source, parameters
        what proposed it, and how
    parent_id
        the candidate it was made from
    stream
        how it would come to be labelled
    deliberate
        exempt from the redundancy check (phonon displacements, elastic strains)
    state, reason
        the first state (proposed, rejected, duplicate, pooled; labelled with an imported or reused label) and why
    duplicate_of, relation
        the candidate it repeats, and how: ``{"relation": "identical", "isometry": {...}, "policy": {...}}``, the policy
        with the tolerances that held
    fingerprint
        stored for the incremental duplicate check; that of a duplicate is not needed, as nothing is compared with it
    """

    structure: Structure
    source: str
    parameters: Json = field(default_factory=dict)
    parent_id: int | None = None
    stream: Stream = Stream.ACTIVE
    deliberate: bool = False
    state: CandidateState = CandidateState.PROPOSED
    reason: str = ""
    duplicate_of: int | None = None
    relation: Json | None = None
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    """A structure proposed to one campaign; errors are calibrated 1σ of the current committee.

    ``energy`` is the predicted energy in eV per cell; ``energy_error`` eV/atom, ``force_error`` eV/Å (largest atom),
    ``stress_error`` eV/Å³, ``e_hull`` and ``e_hull_error`` eV/atom, ``volume`` Å³.
    """

    id: int
    campaign_id: int
    campaign: str
    structure_id: int
    content_hash: str
    formula: str
    reduced_formula: str
    anonymous_formula: str
    chemical_system: str
    n_atoms: int
    n_elements: int
    volume: float
    charge: float
    state: CandidateState
    reason: str
    source: str
    parameters: Json
    parent_id: int | None
    round_index: int | None
    stream: Stream
    inclusion_probability: float | None
    rank: int | None
    duplicate_of: int | None
    relation: Json | None
    pinned: bool
    deliberate: bool
    committee_id: int | None
    u: float | None
    energy: float | None
    energy_error: float | None
    force_error: float | None
    stress_error: float | None
    distance: float | None
    e_hull: float | None
    e_hull_error: float | None
    created: str

    @property
    def energy_per_atom(self) -> float | None:
        """Predicted energy, eV/atom."""
        return None if self.energy is None else self.energy / self.n_atoms

    def value(self, column: CandidateColumn) -> Any:
        """What this row holds in a column."""
        return getattr(self, column.attribute)


@dataclass(frozen=True, kw_only=True)
class NewScore:
    """What one committee said about one candidate when the selection saw it; units as in :class:`CandidateRow`."""

    u: float
    energy: float | None = None
    energy_spread: float | None = None
    force_spread: float | None = None
    stress_spread: float | None = None
    energy_error: float | None = None
    force_error: float | None = None
    stress_error: float | None = None
    distance: float | None = None
    e_hull: float | None = None
    e_hull_error: float | None = None
    details: Json | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreRow(NewScore):
    """A stored score."""

    id: int
    round_id: int
    round_index: int
    committee_id: int
    candidate_id: int
    purpose: str
    created: str


@dataclass(frozen=True, kw_only=True)
class TheoryRow:
    """A labeler with every setting that changes the physics."""

    id: int
    name: str | None
    labeler: str
    settings: Json
    code: str
    files: Mapping[str, str]
    fingerprint: str
    noise: Json | None
    created: str


@dataclass(frozen=True, kw_only=True)
class EquationRow:
    """The word of a person that labels of one theory count as labels of another.

    ``theory_id`` is the theory whose labels are meant, ``counts_as`` the theory that they count for; the reverse does
    not follow, and neither does a third theory. ``evidence`` compares the structures that had labels of both when it
    was declared.
    """

    id: int
    theory_id: int
    counts_as: int
    reason: str
    evidence: Json
    actor: str
    created: str
    withdrawn: str | None


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """What a theory says about a structure, with the evidence."""

    id: int
    structure_id: int
    theory_id: int
    structure: Structure
    properties: Properties
    kind: LabelKind
    quality: LabelQuality
    evidence: Json
    derived_from: int | None
    isometry: Json | None
    supersedes: int | None
    attempt_id: int | None
    created: str


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """The request for one label; higher ``priority`` first."""

    id: int
    structure_id: int
    theory_id: int
    formula: str
    state: JobState
    priority: float
    fence: int
    worker: str | None
    lease_until: str | None
    not_before: str | None
    attempts: int
    infrastructure_failures: int
    failures: int
    deaths: int
    error_kind: FailureKind | None
    message: str
    created: str
    updated: str


@dataclass(frozen=True, kw_only=True)
class ClaimedJob:
    """A job under lease, with what is needed to execute it."""

    job_id: int
    fence: int
    attempt_id: int
    attempt_number: int
    structure_id: int
    structure: Structure
    theory_id: int


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """One execution of a job."""

    id: int
    job_id: int
    fence: int
    worker: str
    host: str
    boot_id: str | None
    pid: int
    pid_started: int | None
    process_group: int | None
    scheduler_id: str | None
    directory: str | None
    numerics: Json
    state: AttemptState
    error_kind: FailureKind | None
    message: str
    timings: Json
    started: str
    finished: str | None


@dataclass(frozen=True, kw_only=True)
class CommitteeLabel:
    """One label in the training of a committee; ``weights`` holds one number per member."""

    label_id: int
    held_out: bool
    weights: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CommitteeRow:
    """The members trained together in one round."""

    id: int
    campaign_id: int
    round_id: int
    round_index: int
    spec: Json
    training: Json
    artifact_id: int | None
    metrics: Json
    calibration: Json | None
    seed: int
    created: str


@dataclass(frozen=True, kw_only=True)
class HullRow:
    """A snapshot of the convex hull."""

    id: int
    campaign_id: int
    round_id: int
    round_index: int
    entries: tuple[Json, ...]
    stable: tuple[Json, ...]
    spread: Json
    created: str


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """A file addressed by its content."""

    id: int
    sha256: str
    kind: str
    name: str
    size: int
    path: Path
    created: str


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """What changed, when, why, by whom."""

    id: int
    time: str
    kind: str
    message: str
    campaign_id: int | None
    candidate_id: int | None
    job_id: int | None
    actor: str
    payload: Json


@dataclass(frozen=True, kw_only=True)
class Why:
    """The story of one candidate in plain words, and the facts it was told from."""

    candidate_id: int
    sentences: tuple[str, ...]
    facts: Json

    def __str__(self) -> str:
        return "\n".join(self.sentences)
