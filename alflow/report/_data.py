"""What a report says, before it is drawn: plain values gathered from the ledger. Energies here are in eV/atom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from alflow.ledger import CandidateState, FailureCount, Stream
from alflow.potentials import Kind


class Fate(StrEnum):
    """What became of a candidate, as a reader asks; the order is that of the figure."""

    LABELLED = "labelled"
    REUSED = "reused"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    POOLED = "pooled"
    QUEUED = "queued"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One candidate as its committee saw it before the label, and how wrong that was.

    Parameters
    ----------
    sigma, interval, error
        per kind, in the kind's unit: calibrated 1σ, half-width of the 90 % interval, actual |error|; a kind without a
        label, or one that vanishes by symmetry, is missing
    failed
        True where the calculation gave no label: it counts as a miss
    """

    structure_id: int
    round_index: int
    stream: Stream
    n_labels: int
    sigma: Mapping[Kind, float]
    interval: Mapping[Kind, float]
    error: Mapping[Kind, float]
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class ParityPoint:
    """Formation energy predicted before labelling against the label, eV/atom."""

    candidate_id: int
    formula: str
    stream: Stream
    predicted: float
    interval: float
    labelled: float


@dataclass(frozen=True, kw_only=True)
class HullPoint:
    """One candidate in the phase diagram; ``formation`` and ``error`` in eV/atom, ``error`` 0 for a label.

    ``fractions`` are the atomic fractions in the order of :attr:`Hull.elements`.
    """

    candidate_id: int
    formula: str
    fractions: tuple[float, ...]
    formation: float
    e_hull: float
    error: float
    state: CandidateState
    has_label: bool


@dataclass(frozen=True, kw_only=True)
class Compound:
    """A vertex of the hull of labelled energies, or one that the committee expects there.

    ``e_hull_error`` is None where nothing states an error. Residuals are those of the label: ``residual_force`` is the
    largest force on an atom in eV/Å, ``residual_stress`` the Frobenius norm in eV/Å³.
    """

    candidate_id: int | None
    label_id: int
    formula: str
    n_atoms: int
    fractions: tuple[float, ...]
    formation: float
    e_hull: float
    e_hull_error: float | None
    p_stable: float | None
    space_group: str
    residual_force: float | None
    residual_stress: float | None
    confirmed: bool
    remark: str


@dataclass(frozen=True, kw_only=True)
class Hull:
    """The phase diagram: what was labelled, what is only predicted, and the compounds on the hull of the labels."""

    elements: tuple[str, ...]
    points: tuple[HullPoint, ...]
    compounds: tuple[Compound, ...]
    promising: tuple[HullPoint, ...]
    missing_references: tuple[str, ...]

    @property
    def unconfirmed(self) -> tuple[Compound, ...]:
        """Compounds and elements on the hull of the labels that are open."""
        return tuple(c for c in self.compounds if not c.confirmed)


@dataclass(frozen=True, kw_only=True)
class RoundSummary:
    """One round: labels it added per stream, seconds per step, and coverage per kind where it judged something."""

    index: int
    n_labels_before: int
    labels: Mapping[Stream, int]
    seconds: Mapping[str, float]
    factors: Mapping[Kind, float]


@dataclass(frozen=True, kw_only=True)
class SourceFlow:
    """Where the candidates of one source went."""

    source: str
    fates: Mapping[Fate, int]

    @property
    def total(self) -> int:
        """All candidates of the source."""
        return sum(self.fates.values())


@dataclass(frozen=True, kw_only=True)
class ReasonCount:
    """A reason, its numbers left out, and how many candidates it befell."""

    fate: Fate
    reason: str
    count: int


@dataclass(frozen=True, kw_only=True)
class BudgetLine:
    """Something spent; ``limit`` is None where the campaign sets none."""

    name: str
    spent: float
    limit: float | None
    unit: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something worth a reader's attention, and what to do about it."""

    severity: str
    title: str
    text: str
    suggestion: str


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything the page shows; ``n_rounds`` are finished, ``rounds`` include one that only began or only trained."""

    name: str
    goal: str
    state: str
    reason: str
    created: str
    written: str
    version: str
    elements: tuple[str, ...]
    theory: Mapping[str, str]
    targets: Mapping[Kind, float]
    u_max: float
    n_candidates: int
    n_computed: int
    n_reused: int
    n_imported: int
    n_known_again: int
    n_set_aside: int
    n_uncertain: int
    n_rounds: int
    rounds: tuple[RoundSummary, ...]
    judged: tuple[Judged, ...]
    parity: tuple[ParityPoint, ...]
    hull: Hull | None
    flows: tuple[SourceFlow, ...]
    reasons: tuple[ReasonCount, ...]
    failures: tuple[FailureCount, ...]
    budget: tuple[BudgetLine, ...]
    findings: tuple[Finding, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    below_noise: tuple[str, ...] = ()
