"""Read one campaign from the ledger into the values that a report shows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import alflow
from alflow.errors import NotFoundError
from alflow.labelers import below_noise
from alflow.ledger import (
    CampaignRow,
    CandidateRow,
    CandidateState,
    LabelKind,
    LabelRow,
    RoundRow,
    Stream,
)
from alflow.potentials import Calibration, Errors, Kind, Spreads, Targets
from alflow.report._data import (
    BudgetLine,
    Fate,
    Judged,
    ParityPoint,
    ReasonCount,
    ReportData,
    RoundSummary,
    SourceFlow,
)
from alflow.report._hull import baseline, gather_hull

if TYPE_CHECKING:
    from alflow.ledger import Ledger, TheoryRow


@dataclass(frozen=True, kw_only=True)
class Records:
    """Everything that is read from the ledger, once."""

    campaign: CampaignRow
    settings: Mapping[str, Any]
    rounds: Sequence[RoundRow]
    candidates: Sequence[CandidateRow]
    labels: Sequence[LabelRow]

    @property
    def by_structure(self) -> dict[int, CandidateRow]:
        """The campaign's candidate of every structure."""
        return {row.structure_id: row for row in self.candidates}


def gather(ledger: Ledger, campaign: str | int) -> ReportData:
    """Collect everything about one campaign; findings are added by :func:`alflow.report._findings.with_findings`.

    Raises
    ------
    NotFoundError
        if the ledger holds no such campaign
    """
    with ledger.read():  # one snapshot, also while the campaign runs
        return _gather(ledger, campaign)


def _gather(ledger: Ledger, campaign: str | int) -> ReportData:
    row = ledger.campaigns.get(campaign)
    settings = settings_of(row)
    theory = theory_of(ledger, row)
    records = Records(
        campaign=row,
        settings=settings,
        rounds=ledger.rounds.list(row.id),
        candidates=ledger.pool.rows(ledger.pool.ids(row.id, list(CandidateState))),
        labels=ledger.labels.accepted(theory.id, row.id) if theory is not None else (),
    )
    targets = Targets.model_validate(settings.get("targets", {}))
    kinds = Counter(label.kind for label in records.labels)
    pooled = [c for c in records.candidates if c.state is CandidateState.POOLED]
    calibrations = {
        c.round_index: Calibration.from_dict(dict(c.calibration))
        for c in ledger.committees.list(row.id)
        if c.calibration is not None
    }
    rounds = _rounds(ledger, records, calibrations)
    return ReportData(
        name=row.name,
        goal=row.goal,
        state=str(row.state),
        reason=row.reason,
        created=_day(row.created),
        written=datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=alflow.__version__,
        elements=tuple(settings.get("elements") or _elements(records)),
        theory={} if theory is None else _theory_facts(theory),
        targets={kind: targets.of(kind) for kind in Kind},
        u_max=targets.u_max,
        below_noise=tuple(
            below_noise(None if theory is None else theory.noise, {k.value: targets.of(k) for k in Kind})
        ),
        n_candidates=len(records.candidates),
        n_computed=kinds[LabelKind.COMPUTED],
        n_reused=kinds[LabelKind.REUSED],
        n_imported=kinds[LabelKind.IMPORTED],
        n_known_again=_known_again(ledger, records.rounds),
        n_set_aside=sum(1 for c in pooled if c.u is not None and c.u > targets.u_max),
        n_rounds=sum(row.finished is not None for row in records.rounds),
        n_uncertain=sum(1 for c in pooled if c.u is not None and 1 < c.u <= targets.u_max),
        rounds=rounds,
        judged=_judged(records, calibrations, {r.index: r.n_labels_before for r in rounds}),
        parity=_parity(ledger, records, calibrations),
        hull=gather_hull(
            records.candidates, records.labels, settings.get("discovery") or {}, ledger.hulls.latest(row.id)
        ),
        flows=_flows(records),
        reasons=_reasons(records),
        failures=tuple(ledger.queue.failures(row.id)),
        budget=_budget(ledger, records, kinds[LabelKind.COMPUTED]),
        settings=_setting_lines(settings),
    )


def settings_of(row: CampaignRow) -> Mapping[str, Any]:
    """The campaign's configuration, as its file had it."""
    settings: Mapping[str, Any] = row.config.get("campaign", row.config)
    return settings


def theory_of(ledger: Ledger, row: CampaignRow) -> TheoryRow | None:
    """Theory that labels a campaign; None where the ledger knows none.

    Raises
    ------
    NotFoundError
        if the campaign does not say which of several
    """
    named = row.config.get("theory")
    if isinstance(named, str):
        return ledger.theories.get(named)
    if isinstance(named, Mapping) and named.get("name"):
        return ledger.theories.get(str(named["name"]))
    known = ledger.theories.list()
    if len(known) > 1:
        raise NotFoundError(f"campaign {row.name!r} does not say which of {len(known)} theories labels it")
    return known[0] if known else None


def _theory_facts(theory: TheoryRow) -> dict[str, str]:
    facts = {"labeler": theory.labeler, "code": theory.code, "fingerprint": theory.fingerprint[:16]}
    if theory.name:
        facts = {"name": theory.name, **facts}
    return facts | {f"setting: {key}": str(value) for key, value in theory.settings.items()}


def _elements(records: Records) -> list[str]:
    return sorted({element for c in records.candidates for element in c.chemical_system.split("-")})


def _day(time: str) -> str:
    return time[:16].replace("T", " ")


def _known_again(ledger: Ledger, rounds: Sequence[RoundRow]) -> int:
    """Proposals that were already in the ledger to the last digit: they have no row of their own."""
    return sum(int(step.summary.get("known", 0)) for row in rounds for step in ledger.rounds.steps(row.id))


# -- rounds and what their committees predicted ------------------------------------------------------------------------


def _rounds(ledger: Ledger, records: Records, calibrations: Mapping[int, Calibration]) -> tuple[RoundSummary, ...]:
    chosen: dict[int, Counter[Stream]] = defaultdict(Counter)
    at_once = 0
    candidates = records.by_structure
    batches = _batch_rounds(ledger, records.rounds)
    for label in records.labels:
        candidate = candidates.get(label.structure_id)
        if candidate is None or label.kind is LabelKind.IMPORTED:
            at_once += 1
            continue
        index = batches.get(candidate.id, candidate.round_index or 0)
        chosen[index][candidate.stream] += 1
    found = []
    before = at_once
    for row in records.rounds:
        calibration = calibrations.get(row.index)
        found.append(
            RoundSummary(
                index=row.index,
                n_labels_before=before,
                labels=dict(chosen[row.index]),
                seconds=_seconds(ledger, row),
                factors={}
                if calibration is None
                else {kind: k.a for kind in Kind if (k := calibration.of(kind)) is not None},
            )
        )
        before += sum(chosen[row.index].values())
    return tuple(found)


def _batch_rounds(ledger: Ledger, rounds: Sequence[RoundRow]) -> dict[int, int]:
    """Return the round in which each candidate was selected: it may have been proposed long before."""
    return {
        int(item["id"]): row.index
        for row in rounds
        for step in ledger.rounds.steps(row.id)
        if step.name == "select"
        for item in step.summary.get("batch", ())
    }


def _seconds(ledger: Ledger, row: RoundRow) -> dict[str, float]:
    seconds: dict[str, float] = defaultdict(float)
    for step in ledger.rounds.steps(row.id):
        if step.started is not None and step.finished is not None:
            took = datetime.fromisoformat(step.finished) - datetime.fromisoformat(step.started)
            # the digest at the end of a source's step name means nothing to a reader
            seconds[re.sub(r"-[0-9a-f]{8}$", "", step.name)] += took.total_seconds()
    return dict(seconds)


def _judged(
    records: Records, calibrations: Mapping[int, Calibration], labels_before: Mapping[int, int]
) -> tuple[Judged, ...]:
    found = []
    for row in records.rounds:
        calibration = calibrations.get(row.index)
        for entry in row.summary.get("assessed", ()):
            sigma, interval = _stated(calibration, entry.get("spread") or {})
            error = entry.get("error") or {}
            found.append(
                Judged(
                    structure_id=int(entry["structure_id"]),
                    round_index=row.index,
                    stream=Stream(entry["stream"]),
                    n_labels=labels_before.get(row.index, 0),
                    sigma=sigma,
                    interval=interval,
                    error={kind: float(error[kind]) for kind in Kind if error.get(kind) is not None},
                    failed=entry.get("error") is None,
                )
            )
    return tuple(found)


def _stated(
    calibration: Calibration | None, spread: Mapping[str, float | None]
) -> tuple[dict[Kind, float], dict[Kind, float]]:
    """Calibrated σ and 90 % half-width per kind, as the committee of that round states them."""
    if calibration is None:
        return {}, {}
    errors: Errors = calibration.apply(Spreads.from_rows([spread]))
    intervals = calibration.intervals(errors)
    present = [kind for kind in Kind if spread.get(kind.value) is not None and calibration.of(kind) is not None]
    return {k: float(errors.of(k)[0]) for k in present}, {k: float(intervals.of(k)[0]) for k in present}


def _parity(ledger: Ledger, records: Records, calibrations: Mapping[int, Calibration]) -> tuple[ParityPoint, ...]:
    reference = baseline(records.labels)
    label_of = {label.structure_id: label for label in records.labels}
    candidates = {c.id: c for c in records.candidates}
    last: dict[int, Any] = {}
    for score in ledger.pool.scores(records.campaign.id):
        if score.energy is not None:
            last[score.candidate_id] = score
    points = []
    for candidate_id, score in last.items():
        candidate = candidates.get(candidate_id)
        label = None if candidate is None else label_of.get(candidate.structure_id)
        if candidate is None or label is None:
            continue
        composition = label.structure.composition
        n_atoms = label.structure.n_atoms
        offset = sum(reference[element] * n for element, n in composition.items()) / n_atoms
        calibration = calibrations.get(score.round_index)
        kind = None if calibration is None else calibration.energy
        points.append(
            ParityPoint(
                candidate_id=candidate_id,
                formula=candidate.formula,
                stream=candidate.stream,
                predicted=score.energy / n_atoms - offset,
                interval=(score.energy_error or float("nan")) * (1.0 if kind is None else kind.interval_factor),
                labelled=label.properties.energy / n_atoms - offset,
            )
        )
    return tuple(sorted(points, key=lambda p: p.candidate_id))


# -- where the candidates went -----------------------------------------------------------------------------------------


def _fate(candidate: CandidateRow, free: set[int]) -> Fate:
    state = candidate.state
    if state is CandidateState.LABELLED:
        return Fate.REUSED if candidate.structure_id in free else Fate.LABELLED
    if state in {CandidateState.FAILED, CandidateState.QUARANTINED}:
        return Fate.FAILED
    if state in {CandidateState.SELECTED, CandidateState.QUEUED}:
        return Fate.QUEUED
    if state in {CandidateState.POOLED, CandidateState.PROPOSED}:
        return Fate.POOLED
    return Fate(state.value)


def _free_structures(records: Records) -> set[int]:
    return {label.structure_id for label in records.labels if label.kind is not LabelKind.COMPUTED}


def _flows(records: Records) -> tuple[SourceFlow, ...]:
    free = _free_structures(records)
    counts: dict[str, Counter[Fate]] = defaultdict(Counter)
    for candidate in records.candidates:
        counts[candidate.source][_fate(candidate, free)] += 1
    return tuple(SourceFlow(source=source, fates=dict(fates)) for source, fates in sorted(counts.items()))


def group_reason(reason: str) -> str:
    """Leave out what differs from case to case: numbers, pairs of elements, details after a colon or in parentheses."""
    text = re.sub(r"\s*\([^)]*\)", "", reason.split(": ", 1)[0])
    text = re.sub(r"\b[A-Z][a-z]?[-–][A-Z][a-z]?\b", "X–Y", text)
    return re.sub(r"(?<![A-Za-z_])[-+−]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", "…", text).strip()


def _reasons(records: Records) -> tuple[ReasonCount, ...]:
    free = _free_structures(records)
    counts: Counter[tuple[Fate, str]] = Counter()
    for candidate in records.candidates:
        fate = _fate(candidate, free)
        if fate in {Fate.REJECTED, Fate.DUPLICATE, Fate.REUSED, Fate.FAILED}:
            counts[fate, group_reason(candidate.reason)] += 1
    ordered = sorted(counts.items(), key=lambda item: (list(Fate).index(item[0][0]), -item[1]))
    return tuple(ReasonCount(fate=fate, reason=reason, count=n) for (fate, reason), n in ordered)


# -- what it cost ------------------------------------------------------------------------------------------------------


def _budget(ledger: Ledger, records: Records, n_computed: int) -> tuple[BudgetLine, ...]:
    limits = records.settings.get("budget") or {}
    closed = [row for row in records.rounds if row.finished is not None]
    last = max((row.finished for row in closed if row.finished), default=records.campaign.created)
    wall = datetime.fromisoformat(last) - datetime.fromisoformat(records.campaign.created)
    return (
        BudgetLine(name="labels computed", spent=n_computed, limit=limits.get("labels"), unit=""),
        BudgetLine(name="rounds", spent=len(closed), limit=limits.get("rounds"), unit=""),
        BudgetLine(name="wall time", spent=wall.total_seconds() / 3600, limit=limits.get("wall_hours"), unit="h"),
        BudgetLine(
            name="labelling time",
            spent=_labelling_seconds(ledger, records.campaign.id) / 3600,
            limit=limits.get("core_hours"),
            unit="h",
        ),
    )


def _labelling_seconds(ledger: Ledger, campaign_id: int) -> float:
    """Seconds that calculations took, failed ones as well."""
    total = 0.0
    for job in ledger.queue.list(campaign_id):
        for attempt in ledger.queue.attempts(job.id):
            if attempt.finished is not None:
                took = datetime.fromisoformat(attempt.finished) - datetime.fromisoformat(attempt.started)
                total += float(attempt.timings.get("seconds", took.total_seconds()))
    return total


def _setting_lines(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten the campaign's configuration into lines ``key.key: value``."""
    lines: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            lines |= _setting_lines(value, f"{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value):
                lines |= _setting_lines(item, f"{name}[{number}].") if isinstance(item, Mapping) else {name: str(item)}
        else:
            lines[name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    # a ledger's address may hold a password
    return {name: value for name, value in lines.items() if name.split(".")[-1] != "ledger"}
