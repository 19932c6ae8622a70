"""The story of one candidate: why it was, or was not, labelled, told from the ledger alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, func, select

from alflow.errors import NotFoundError
from alflow.folder.outputs import find_outputs
from alflow.ledger import _tables as t
from alflow.ledger._candidates import CANDIDATE, CANDIDATES, candidate_rows
from alflow.ledger._engine import table_columns
from alflow.ledger._events import in_ranges
from alflow.ledger._jobs import attempt_row, job_row, select_jobs
from alflow.ledger._rows import AttemptRow, CandidateRow, JobRow, Why, iso
from alflow.ledger._scores import score_row
from alflow.ledger._states import AttemptState, CandidateState, JobState, LabelKind, LabelQuality
from alflow.ledger._types import plain

_STATE_SENTENCES: Mapping[CandidateState, str] = {
    CandidateState.PROPOSED: "It has not been judged yet.",
    CandidateState.REJECTED: "It was not labelled because it was rejected: {reason}.",
    CandidateState.DUPLICATE: "It was not labelled because it repeats candidate {duplicate_of}: {reason}.",
    CandidateState.POOLED: "It is in the pool and has not been chosen for a label so far: {reason}.",
    CandidateState.SELECTED: "It was chosen and waits to be queued: {reason}.",
    CandidateState.QUEUED: "It waits for its label: {reason}.",
    CandidateState.LABELLED: "It is labelled: {reason}.",
    CandidateState.FAILED: "It has no label because the calculation gave none: {reason}.",
    CandidateState.QUARANTINED: "It has no label and was set aside for a person to look at: {reason}.",
}


def explain(connection: Connection, candidate_id: int) -> Why:
    """Compose the story of a candidate.

    Raises
    ------
    NotFoundError
        for an unknown candidate
    """
    candidate = _candidate(connection, candidate_id)
    if candidate is None:
        raise NotFoundError(f"no candidate with id {candidate_id} in the ledger; `alflow ls` lists them")
    facts: dict[str, Any] = {"candidate": _facts(candidate)}
    sentences = [
        *_origin(connection, candidate),
        *_history(connection, candidate, facts),
        *_scores(connection, candidate, facts),
        *_duplicates(connection, candidate, facts),
        *_jobs(connection, candidate, facts),
        *_labels(connection, candidate, facts),
        _STATE_SENTENCES[candidate.state].format(
            reason=candidate.reason.rstrip("."), duplicate_of=candidate.duplicate_of
        ),
    ]
    return Why(candidate_id=candidate_id, sentences=tuple(sentences), facts=plain(facts))


def _candidate(connection: Connection, candidate_id: int) -> CandidateRow | None:
    rows = candidate_rows(connection.execute(CANDIDATES.where(CANDIDATE.id == candidate_id)))
    return rows[0] if rows else None


def _facts(candidate: CandidateRow) -> dict[str, Any]:
    return {name: getattr(candidate, name) for name in candidate.__dataclass_fields__}


def _when(time: str) -> str:
    return time[:16].replace("T", " ")


def _told(values: Mapping[str, Any]) -> str:
    shown = [f"{name.replace('_', ' ')} {_short(value)}" for name, value in values.items() if value is not None]
    return ", ".join(shown)


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _origin(connection: Connection, candidate: CandidateRow) -> Iterator[str]:
    atoms = "1 atom" if candidate.n_atoms == 1 else f"{candidate.n_atoms} atoms"
    yield (
        f"Candidate {candidate.id} of campaign {candidate.campaign} is {candidate.formula} ({atoms}, "
        f"structure {candidate.content_hash[:12]})."
    )
    where = "" if candidate.round_index is None else f" in round {candidate.round_index}"
    told = dict(candidate.parameters)
    if candidate.source == "added":
        origin = told.pop("from", None)
        proposed = f"It was added from {origin}{where}" if origin else f"It was added{where}"
    else:
        proposed = f"It was proposed by {candidate.source}{where}"
    how = f" with {_told(told)}" if told else ""
    yield f"{proposed}{how}, on {_when(candidate.created)} UTC."
    if candidate.parent_id is not None:
        parent = _candidate(connection, candidate.parent_id)
        assert parent is not None
        yield f"It was made from candidate {parent.id} ({parent.formula}, {parent.state}, by {parent.source})."
    if candidate.deliberate:
        yield "Its source is marked deliberate, so closeness to other structures does not count against it."
    if candidate.pinned:
        yield "A person pinned it: the next selection takes it, whatever its scores."


def _history(connection: Connection, candidate: CandidateRow, facts: dict[str, Any]) -> Iterator[str]:
    query = (
        select(*table_columns(t.Event))
        .where(t.Event.campaign_id == candidate.campaign_id, t.Event.kind.in_(["transition", "pinned", "unpinned"]))
        .where((t.Event.candidate_id == candidate.id) | t.Event.candidate_id.is_(None))
        .order_by(t.Event.id)
    )
    history = []
    for event in connection.execute(query):
        when = _when(iso(event.time))
        if event.kind != "transition":
            if in_ranges(event.payload["ids"], candidate.id):
                yield f"On {when} UTC {event.actor} {event.kind} it: {event.payload['reason'].rstrip('.')}."
            continue
        for change in event.payload["changes"]:
            if in_ranges(change["ids"], candidate.id):
                history.append({"time": iso(event.time), "to": event.payload["to"], "actor": event.actor, **change})
                by = "" if event.actor == "loop" else f" (by {event.actor})"
                became = f"it went from {change['from']} to {event.payload['to']}{by}"
                yield f"On {when} UTC {became}: {change['reason'].rstrip('.')}."
    facts["history"] = [{name: value for name, value in change.items() if name != "ids"} for change in history]


def _scores(connection: Connection, candidate: CandidateRow, facts: dict[str, Any]) -> Iterator[str]:
    query = (
        select(*table_columns(t.Score), t.Round.index.label("round_index"))
        .join(t.Round, t.Round.id == t.Score.round_id)
        .where(t.Score.candidate_id == candidate.id)
        .order_by(t.Score.id)
    )
    scores = [score_row(row, row.round_index) for row in connection.execute(query)]
    facts["scores"] = [
        {"round": s.round_index, "committee": s.committee_id, "purpose": s.purpose, "u": s.u} for s in scores
    ]
    for score in scores:
        judged = _judged(score.u, score.energy_error, score.force_error, score.stress_error, score.e_hull)
        yield f"In round {score.round_index}, for {score.purpose}, committee {score.committee_id} gave it {judged}."
    if candidate.u is not None and not scores:
        judged = _judged(
            candidate.u, candidate.energy_error, candidate.force_error, candidate.stress_error, candidate.e_hull
        )
        yield f"Committee {candidate.committee_id} gives it {judged}."
    if candidate.stream == "random" and candidate.inclusion_probability is not None:
        chance = candidate.inclusion_probability
        yield f"It belongs to the random stream, drawn with probability {chance:.3g}, which tests and calibrates."
    elif candidate.rank is not None:
        yield f"It was number {candidate.rank + 1} of its batch, by the {candidate.stream} stream."


def _judged(
    u: float | None, energy: float | None, force: float | None, stress: float | None, e_hull: float | None
) -> str:
    parts = [] if u is None else [f"u = {u:.3g} ({'not known well enough' if u > 1 else 'known well enough'})"]
    if energy is not None:
        parts.append(f"an energy error of {1000 * energy:.3g} meV/atom")
    if force is not None:
        parts.append(f"a largest force error of {force:.3g} eV/Å")
    if stress is not None:
        parts.append(f"a stress error of {stress:.3g} eV/Å³")
    if e_hull is not None:
        parts.append(f"{1000 * e_hull:.3g} meV/atom above the hull")
    return ", ".join(parts) or "no score"


def _duplicates(connection: Connection, candidate: CandidateRow, facts: dict[str, Any]) -> Iterator[str]:
    if candidate.duplicate_of is not None:
        original = _candidate(connection, candidate.duplicate_of)
        assert original is not None
        relation = dict(candidate.relation or {})
        facts["original"] = {"candidate": original.id, "relation": relation}
        kind = relation.pop("relation", None)
        same = {"identical": "the same structure as", "redundant": "within the tolerance of"}.get(
            str(kind), "a duplicate of"
        )
        elsewhere = "" if original.campaign_id == candidate.campaign_id else f" of campaign {original.campaign}"
        yield (
            f"It is {same} candidate {original.id}{elsewhere} ({original.formula}, {original.state})"
            f"{_mapped(relation)}."
        )
    count = connection.scalar(select(func.count()).where(t.Candidate.duplicate_of == candidate.id)) or 0
    facts["duplicates"] = count
    if count:
        yield f"{count} other candidates repeat it." if count > 1 else "One other candidate repeats it."


def _mapped(relation: Mapping[str, Any]) -> str:
    isometry = relation.get("isometry") or relation
    parts = []
    if isometry.get("max_displacement") is not None:
        parts.append(f"no atom is off by more than {isometry['max_displacement']:.2g} Å")
    if isometry.get("max_strain") is not None:
        parts.append(f"strain {isometry['max_strain']:.2g}")
    if isometry.get("det") is not None:
        parts.append("mirrored" if isometry["det"] < 0 else "not mirrored")
    if relation.get("tolerance") is not None:
        parts.append(f"tolerance {_short(relation['tolerance'])}")
    policy = relation.get("policy")
    if policy is not None:
        allowed = f"{_short(policy['max_displacement'])} Å and a strain of {_short(policy['max_strain'])} were allowed"
        parts.append(allowed if policy["mirror"] else f"{allowed}, mirror images were not")
    return f": {', '.join(parts)}" if parts else ""


def _jobs(connection: Connection, candidate: CandidateRow, facts: dict[str, Any]) -> Iterator[str]:
    query = (
        select_jobs()
        .add_columns(t.JobRequest.cancelled, t.Theory.name.label("theory"), t.Theory.labeler)
        .join(t.JobRequest, t.JobRequest.job_id == t.Job.id)
        .join(t.Theory, t.Theory.id == t.Job.theory_id)
        .where(t.JobRequest.candidate_id == candidate.id)
        .order_by(t.Job.id)
    )
    facts["jobs"] = []
    for row in connection.execute(query).all():
        job = job_row(row)
        others = connection.scalar(select(func.count()).where(t.JobRequest.job_id == job.id)) or 1
        shared = f", shared with {others - 1} other candidate(s)" if others > 1 else ""
        theory = row.theory or row.labeler
        yield f"Job {job.id} asks for its label of theory {theory}{shared}; the job is {_standing(job)}."
        if row.cancelled is not None:
            yield f"Its request for job {job.id} was withdrawn on {_when(iso(row.cancelled))} UTC."
        attempts = [
            attempt_row(a)
            for a in connection.execute(
                select(*table_columns(t.Attempt)).where(t.Attempt.job_id == job.id).order_by(t.Attempt.id)
            )
        ]
        facts["jobs"].append(
            {
                "job": job.id,
                "state": job.state,
                "attempts": [
                    {"worker": a.worker, "state": a.state, "error": a.error_kind, "directory": a.directory}
                    for a in attempts
                ],
            }
        )
        for number, attempt in enumerate(attempts, start=1):
            place = None if attempt.directory is None else find_outputs(attempt.directory)
            yield _attempt(number, attempt) + ("" if place is None else f" Its outputs are in {place}.")


def _standing(job: JobRow) -> str:
    if job.state == JobState.RETRY_WAIT:
        return f"waiting to be repeated after {job.error_kind}: {job.message}".rstrip(".")
    if job.state in {JobState.FAILED, JobState.QUARANTINED}:
        return f"{job.state} after {job.error_kind}: {job.message}".rstrip(".")
    return f"held by {job.worker}" if job.worker and job.state != JobState.DONE else str(job.state)


def _attempt(number: int, attempt: AttemptRow) -> str:
    begun = f"Attempt {number}, by {attempt.worker} on {attempt.host}, began on {_when(attempt.started)} UTC and"
    if attempt.state == AttemptState.DONE:
        seconds = attempt.timings.get("seconds")
        return f"{begun} gave the label{'' if seconds is None else f' after {seconds:.3g} s'}."
    if attempt.finished is None:
        return f"{begun} is {attempt.state}."
    cause = f" ({attempt.error_kind})" if attempt.error_kind else ""
    ended = {AttemptState.LOST: "was lost", AttemptState.RELEASED: "was given back"}.get(attempt.state, "failed")
    return f"{begun} {ended}{cause}: {attempt.message}".rstrip(".: ") + "."


def _labels(connection: Connection, candidate: CandidateRow, facts: dict[str, Any]) -> Iterator[str]:
    columns = [t.Label.id, t.Label.kind, t.Label.energy, t.Label.evidence, t.Label.derived_from, t.Label.isometry]
    query = (
        select(*columns, t.Label.created, t.Attempt.worker, t.Theory.name.label("theory"), t.Theory.labeler)
        .join(t.Theory, t.Theory.id == t.Label.theory_id)
        .outerjoin(t.Attempt, t.Attempt.id == t.Label.attempt_id)
        .where(t.Label.structure_id == candidate.structure_id, t.Label.quality == LabelQuality.ACCEPTED)
        .order_by(t.Label.id)
    )
    facts["labels"] = []
    for label in connection.execute(query).all():
        facts["labels"].append({"label": label.id, "kind": label.kind, "derived_from": label.derived_from})
        theory = label.theory or label.labeler
        what = f"Label {label.id} of theory {theory} ({label.energy / candidate.n_atoms:.4f} eV/atom)"
        when = _when(iso(label.created))
        if label.kind == LabelKind.COMPUTED:
            yield f"{what} was computed{f' by {label.worker}' if label.worker else ''}, accepted on {when} UTC."
        elif label.kind == LabelKind.REUSED:
            source = f"label {label.derived_from}" if label.derived_from else "an identical structure"
            owner = _first_candidate(connection, label.derived_from)
            yield f"{what} was taken from {source}{owner} through an isometry{_mapped({'isometry': label.isometry})}."
        else:
            told = _told({k: v for k, v in label.evidence.items() if isinstance(v, str | int | float)})
            yield f"{what} was imported on {when} UTC{f': {told}' if told else ''}."


def _first_candidate(connection: Connection, label_id: int | None) -> str:
    query = (
        select(t.Candidate.id)
        .join(t.Label, t.Label.structure_id == t.Candidate.structure_id)
        .where(t.Label.id == label_id)
        .order_by(t.Candidate.id)
        .limit(1)
    )
    found = connection.scalar(query)
    return "" if found is None else f" (candidate {found})"
