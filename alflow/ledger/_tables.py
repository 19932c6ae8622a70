"""The tables of the ledger. Every change here needs a migration; a test compares the two."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    SmallInteger,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.type_api import TypeEngine

from alflow.ledger import _states as states
from alflow.ledger._base import Base
from alflow.ledger._types import Key, clock, one_of, state_column


def _key() -> Mapped[int]:
    return mapped_column(Key, primary_key=True)


def _reference(column: str, *, nullable: bool = False) -> Mapped[Any]:
    return mapped_column(Key, ForeignKey(column), nullable=nullable)


def _state(kind: type[StrEnum]) -> Mapped[str]:
    return mapped_column(state_column(kind))


def _now() -> Mapped[float]:
    return mapped_column(Double(), default=clock())


def _partial(condition: str, name: str, *columns: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(condition), postgresql_where=text(condition))


_HASH: TypeEngine[str] = String(64)


class Campaign(Base):
    """What one user wants to know, and who drives it."""

    __tablename__ = "campaign"
    id: Mapped[int] = _key()
    name: Mapped[str] = mapped_column(String(200), unique=True)
    goal: Mapped[str]
    config: Mapped[dict[str, Any]]
    config_version: Mapped[int]
    config_hash: Mapped[str] = mapped_column(_HASH)
    state: Mapped[str] = _state(states.CampaignState)
    reason: Mapped[str]
    lease_owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    created: Mapped[float] = _now()
    updated: Mapped[float] = _now()
    __table_args__ = (CheckConstraint(one_of("state", states.CampaignState), name="state"),)


class Round(Base):
    """One pass of the loop."""

    __tablename__ = "round"
    id: Mapped[int] = _key()
    campaign_id: Mapped[int] = _reference("campaign.id")
    index: Mapped[int]
    state: Mapped[str] = _state(states.RoundState)
    summary: Mapped[dict[str, Any]]
    started: Mapped[float] = _now()
    finished: Mapped[float | None]
    __table_args__ = (
        UniqueConstraint("campaign_id", "index"),
        CheckConstraint(one_of("state", states.RoundState), name="state"),
    )


class Step(Base):
    """A named, idempotent part of a round."""

    __tablename__ = "step"
    id: Mapped[int] = _key()
    round_id: Mapped[int] = _reference("round.id")
    name: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = _state(states.StepState)
    summary: Mapped[dict[str, Any]]
    started: Mapped[float] = _now()
    finished: Mapped[float | None]
    __table_args__ = (
        UniqueConstraint("round_id", "name"),
        CheckConstraint(one_of("state", states.StepState), name="state"),
    )


class Structure(Base):
    """An immutable geometry with its electronic state."""

    __tablename__ = "structure"
    id: Mapped[int] = _key()
    content_hash: Mapped[str] = mapped_column(_HASH, unique=True)
    formula: Mapped[str]
    reduced_formula: Mapped[str]
    anonymous_formula: Mapped[str]
    chemical_system: Mapped[str]
    n_atoms: Mapped[int]
    n_elements: Mapped[int]
    n_periodic: Mapped[int]
    volume: Mapped[float]
    charge: Mapped[float]
    #: not filled, and no column of candidates: finding one takes up to 8 ms, storing a structure 0.05 ms
    space_group: Mapped[int | None]
    geometry: Mapped[bytes]
    created: Mapped[float] = _now()


class Composition(Base):
    """The atoms of each element in a formula: few formulas stand for many structures."""

    __tablename__ = "composition"
    formula: Mapped[str] = mapped_column(primary_key=True)
    element: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    count: Mapped[int]
    __table_args__ = ({"sqlite_with_rowid": False},)


class ChemicalSystem(Base):
    """A set of elements, some thousands at most: every element query begins with those that fit."""

    __tablename__ = "chemical_system"
    id: Mapped[int] = _key()
    name: Mapped[str] = mapped_column(unique=True)


class Fingerprint(Base):
    """Invariants for the incremental duplicate check: a bucket, then ranges that one index holds."""

    __tablename__ = "fingerprint"
    structure_id: Mapped[int] = mapped_column(Key, ForeignKey("structure.id"), primary_key=True)
    version: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    bucket: Mapped[str]
    leading_0: Mapped[float]
    leading_1: Mapped[float]
    leading_2: Mapped[float]
    leading_3: Mapped[float]
    vector: Mapped[bytes]
    probe_0: Mapped[float]
    probe_1: Mapped[float]
    probe_2: Mapped[float]
    probe_3: Mapped[float]
    __table_args__ = (
        # searched by bucket and leading_0; the rest is compared inside the index, so that few rows are looked up
        Index(
            "ix_fingerprint_near",
            *("version", "bucket", "leading_0", "leading_2", "probe_0", "probe_1", "probe_2", "probe_3"),
        ),
        {"sqlite_with_rowid": False},
    )


class Candidate(Base):
    """A structure proposed to one campaign, with its current scores."""

    __tablename__ = "candidate"
    id: Mapped[int] = _key()
    campaign_id: Mapped[int] = _reference("campaign.id")
    structure_id: Mapped[int] = _reference("structure.id")
    round_id: Mapped[int | None] = _reference("round.id", nullable=True)
    parent_id: Mapped[int | None] = _reference("candidate.id", nullable=True)
    state: Mapped[str] = _state(states.CandidateState)
    reason: Mapped[str]
    source: Mapped[str]
    parameters: Mapped[dict[str, Any]]
    stream: Mapped[str] = _state(states.Stream)
    inclusion_probability: Mapped[float | None]
    rank: Mapped[int | None]
    duplicate_of: Mapped[int | None] = _reference("candidate.id", nullable=True)
    relation: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    pinned: Mapped[bool] = mapped_column(default=False)
    deliberate: Mapped[bool] = mapped_column(default=False)
    committee_id: Mapped[int | None] = _reference("committee.id", nullable=True)
    u: Mapped[float | None]
    energy: Mapped[float | None]
    energy_error: Mapped[float | None]
    force_error: Mapped[float | None]
    stress_error: Mapped[float | None]
    e_hull: Mapped[float | None]
    e_hull_error: Mapped[float | None]
    created: Mapped[float] = _now()
    updated: Mapped[float] = _now()
    #: of the structure, for the index that every element query goes through
    chemical_system_id: Mapped[int] = _reference("chemical_system.id")
    distance: Mapped[float | None]
    __table_args__ = (
        UniqueConstraint("structure_id", "campaign_id"),
        CheckConstraint(one_of("state", states.CandidateState), name="state"),
        CheckConstraint(one_of("stream", states.Stream), name="stream"),
        CheckConstraint("duplicate_of <> id", name="not_its_own_duplicate"),
        Index(None, "campaign_id", "state", "u"),
        Index(None, "chemical_system_id", "campaign_id", "state", "u"),
        _partial("duplicate_of IS NOT NULL", "ix_candidate_duplicate_of", "duplicate_of"),
    )


class Committee(Base):
    """The members trained together in one round."""

    __tablename__ = "committee"
    id: Mapped[int] = _key()
    round_id: Mapped[int] = _reference("round.id")
    spec: Mapped[dict[str, Any]]
    training: Mapped[dict[str, Any]]
    artifact_id: Mapped[int | None] = _reference("artifact.id", nullable=True)
    metrics: Mapped[dict[str, Any]]
    calibration: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    seed: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[float] = _now()
    __table_args__ = (UniqueConstraint("round_id", "artifact_id"),)


class CommitteeLabel(Base):
    """Which labels a committee was trained on, with which weight per member, and which were held out."""

    __tablename__ = "committee_label"
    committee_id: Mapped[int] = mapped_column(Key, ForeignKey("committee.id"), primary_key=True)
    label_id: Mapped[int] = mapped_column(Key, ForeignKey("label.id"), primary_key=True)
    held_out: Mapped[bool]
    weights: Mapped[list[Any]]
    __table_args__ = ({"sqlite_with_rowid": False},)


class Score(Base):
    """What the selection saw; kept for selected and random-stream candidates only."""

    __tablename__ = "score"
    id: Mapped[int] = _key()
    round_id: Mapped[int] = _reference("round.id")
    committee_id: Mapped[int] = _reference("committee.id")
    candidate_id: Mapped[int] = _reference("candidate.id")
    purpose: Mapped[str] = mapped_column(String(64))
    u: Mapped[float | None]
    energy: Mapped[float | None]
    energy_spread: Mapped[float | None]
    force_spread: Mapped[float | None]
    stress_spread: Mapped[float | None]
    energy_error: Mapped[float | None]
    force_error: Mapped[float | None]
    stress_error: Mapped[float | None]
    e_hull: Mapped[float | None]
    e_hull_error: Mapped[float | None]
    details: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created: Mapped[float] = _now()
    distance: Mapped[float | None]
    __table_args__ = (UniqueConstraint("candidate_id", "round_id", "committee_id", "purpose"), Index(None, "round_id"))


class Hull(Base):
    """A snapshot of the convex hull per round."""

    __tablename__ = "hull"
    id: Mapped[int] = _key()
    round_id: Mapped[int] = mapped_column(Key, ForeignKey("round.id"), unique=True)
    entries: Mapped[list[Any]]
    stable: Mapped[list[Any]]
    spread: Mapped[dict[str, Any]]
    created: Mapped[float] = _now()


class Theory(Base):
    """A labeler plus every setting that changes the physics."""

    __tablename__ = "theory"
    id: Mapped[int] = _key()
    name: Mapped[str | None] = mapped_column(String(200), unique=True)
    labeler: Mapped[str] = mapped_column(String(64))
    settings: Mapped[dict[str, Any]]
    code: Mapped[str]
    files: Mapped[dict[str, Any]]
    fingerprint: Mapped[str] = mapped_column(_HASH, unique=True)
    noise: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created: Mapped[float] = _now()


class TheoryEquation(Base):
    """The word of a person that labels of one theory count as labels of another; withdrawn, never removed."""

    __tablename__ = "theory_equation"
    id: Mapped[int] = _key()
    theory_id: Mapped[int] = _reference("theory.id")
    counts_as: Mapped[int] = _reference("theory.id")
    reason: Mapped[str]
    evidence: Mapped[dict[str, Any]]
    actor: Mapped[str] = mapped_column(String(200))
    created: Mapped[float] = _now()
    withdrawn: Mapped[float | None]
    __table_args__ = (
        CheckConstraint("theory_id <> counts_as", name="two_theories"),
        _partial("withdrawn IS NULL", "uq_theory_equation_standing", "counts_as", "theory_id", unique=True),
    )


class Label(Base):
    """What a theory says about a structure; at most one is accepted."""

    __tablename__ = "label"
    id: Mapped[int] = _key()
    structure_id: Mapped[int] = _reference("structure.id")
    theory_id: Mapped[int] = _reference("theory.id")
    kind: Mapped[str] = _state(states.LabelKind)
    quality: Mapped[str] = _state(states.LabelQuality)
    energy: Mapped[float]
    properties: Mapped[bytes]
    evidence: Mapped[dict[str, Any]]
    derived_from: Mapped[int | None] = _reference("label.id", nullable=True)
    isometry: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    supersedes: Mapped[int | None] = _reference("label.id", nullable=True)
    attempt_id: Mapped[int | None] = _reference("attempt.id", nullable=True)
    created: Mapped[float] = _now()
    __table_args__ = (
        CheckConstraint(one_of("kind", states.LabelKind), name="kind"),
        CheckConstraint(one_of("quality", states.LabelQuality), name="quality"),
        _partial("quality = 'accepted'", "uq_label_accepted", "structure_id", "theory_id", unique=True),
        Index(None, "theory_id"),
    )


class Job(Base):
    """The request for one label."""

    __tablename__ = "job"
    id: Mapped[int] = _key()
    structure_id: Mapped[int] = _reference("structure.id")
    theory_id: Mapped[int] = _reference("theory.id")
    state: Mapped[str] = _state(states.JobState)
    #: minus the priority, so that one ascending index serves the claim
    precedence: Mapped[float] = mapped_column(default=0.0)
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    worker: Mapped[str | None]
    lease_until: Mapped[float | None]
    not_before: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)
    infrastructure_failures: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    deaths: Mapped[int] = mapped_column(default=0)
    error_kind: Mapped[str | None] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(default="")
    created: Mapped[float] = _now()
    updated: Mapped[float] = _now()
    __table_args__ = (
        UniqueConstraint("structure_id", "theory_id"),
        CheckConstraint(one_of("state", states.JobState), name="state"),
        Index(None, "state", "precedence", "id"),
        _partial("lease_until IS NOT NULL", "ix_job_lease_until", "lease_until"),
    )


class JobRequest(Base):
    """Which candidates asked for a job; a cancelled request leaves the job to the others."""

    __tablename__ = "job_request"
    job_id: Mapped[int] = mapped_column(Key, ForeignKey("job.id"), primary_key=True)
    candidate_id: Mapped[int] = mapped_column(Key, ForeignKey("candidate.id"), primary_key=True)
    cancelled: Mapped[float | None]
    created: Mapped[float] = _now()
    __table_args__ = (Index(None, "candidate_id"), {"sqlite_with_rowid": False})


class Attempt(Base):
    """One execution of a job; rows are added and closed, never removed."""

    __tablename__ = "attempt"
    id: Mapped[int] = _key()
    job_id: Mapped[int] = _reference("job.id")
    fence: Mapped[int] = mapped_column(BigInteger)
    worker: Mapped[str]
    host: Mapped[str]
    boot_id: Mapped[str | None]
    pid: Mapped[int]
    pid_started: Mapped[int | None] = mapped_column(BigInteger)
    process_group: Mapped[int | None]
    scheduler_id: Mapped[str | None]
    directory: Mapped[str | None]
    numerics: Mapped[dict[str, Any]]
    state: Mapped[str] = _state(states.AttemptState)
    error_kind: Mapped[str | None] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(default="")
    log_id: Mapped[int | None] = _reference("artifact.id", nullable=True)
    timings: Mapped[dict[str, Any]]
    started: Mapped[float] = _now()
    finished: Mapped[float | None]
    __table_args__ = (
        UniqueConstraint("job_id", "fence"),
        CheckConstraint(one_of("state", states.AttemptState), name="state"),
    )


class Artifact(Base):
    """A file in the ledger's directory, addressed by its content."""

    __tablename__ = "artifact"
    id: Mapped[int] = _key()
    sha256: Mapped[str] = mapped_column(_HASH)
    kind: Mapped[str] = mapped_column(String(64))
    name: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    location: Mapped[str]
    created: Mapped[float] = _now()
    __table_args__ = (UniqueConstraint("sha256", "kind", "name"),)


class Event(Base):
    """What changed, when, why, by whom; one row per batch, whose payload holds the ids as ranges."""

    __tablename__ = "event"
    id: Mapped[int] = _key()
    time: Mapped[float] = _now()
    kind: Mapped[str] = mapped_column(String(64))
    message: Mapped[str]
    campaign_id: Mapped[int | None] = _reference("campaign.id", nullable=True)
    candidate_id: Mapped[int | None] = _reference("candidate.id", nullable=True)
    job_id: Mapped[int | None] = _reference("job.id", nullable=True)
    actor: Mapped[str] = mapped_column(String(200))
    payload: Mapped[dict[str, Any]]
    __table_args__ = (
        Index(None, "campaign_id", "id"),
        _partial("candidate_id IS NOT NULL", "ix_event_candidate_id", "candidate_id"),
    )
