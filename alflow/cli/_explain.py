"""What ``queue explain`` says: of one job everything that decides what becomes of it, of the queue a few sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from alflow.cli._output import clock, duration, plural
from alflow.errors import ConfigError, TheoryError
from alflow.folder.outputs import find_outputs
from alflow.labelers import WorkerConfig, labeler_for_theory, logs_in
from alflow.ledger import HELD_JOBS, OPEN_JOBS, AttemptState, CampaignState, JobState, WorkerIdentity, driver_text

if TYPE_CHECKING:
    from alflow.ledger import AttemptRow, JobStanding, Ledger, QueueStanding, RequestRow, TheoryRow

SEEN_MINUTES = 10.0
"""A theory whose last job was taken longer ago has no worker that anybody knows of."""

Line = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is said about a job or the queue: lines of a name and a text, and the same as JSON."""

    title: str
    state: str
    lines: tuple[Line, ...]
    document: Mapping[str, Any]


# -- one job -----------------------------------------------------------------------------------------------------------


def explain_job(ledger: Ledger, job_id: int, config: WorkerConfig) -> Explanation:
    """Explain one job, with what this machine's worker file says of its theory and limits.

    Raises
    ------
    NotFoundError
        for an unknown job
    """
    standing = ledger.queue.standing(job_id)
    job = standing.job
    waits = tuple(_why_it_waits(ledger, standing, config)) if job.state is JobState.QUEUED else ()
    follows, limits = _what_follows(standing), _limits(standing, config)
    todo = _what_to_do(standing, waits)
    attempts = [list(_attempt(standing, attempt)) for attempt in standing.attempts]
    lines: list[Line] = [
        ("job", f"the label of structure {job.structure_id} by {_theory(standing)}, priority {job.priority:g}"),
        *(("asked by", _request(request)) for request in standing.requests),
        ("state", f"{_word(job.state)} since {_at(job.updated, standing.now)}"),
    ]
    for number, texts in enumerate(attempts, 1):
        lines += [(f"attempt {number}" if position == 0 else "", text) for position, text in enumerate(texts)]
    lines += [("limits", limits), ("next", follows)]
    lines += [("waits" if position == 0 else "", reason) for position, reason in enumerate(waits)]
    if todo:
        lines.append(("to do", todo))
    document = {
        "id": job.id,
        "formula": job.formula,
        "structure": job.structure_id,
        "theory": standing.theory_name,
        "labeler": standing.labeler,
        "priority": job.priority,
        "requests": standing.requests,
        "state": job.state,
        "since": job.updated,
        "created": job.created,
        "error_kind": job.error_kind,
        "message": job.message or None,
        "attempts": [_attempt_document(attempt) for attempt in standing.attempts],
        "worker": job.worker if job.state in HELD_JOBS else None,
        "lease_until": job.lease_until if job.state in HELD_JOBS else None,
        "not_before": job.not_before,
        "machine_failures": {"count": job.infrastructure_failures, "repeated": config.retries.machine},
        "calculation_failures": {"count": job.failures, "repeated": config.retries.calculation},
        "deaths": {"count": job.deaths, "quarantined_at": config.retries.deaths},
        "slots": {"under_way": standing.under_way, "at_most": config.slots.get(standing.labeler)},
        "ahead": standing.ahead,
        "last_seen": standing.last_seen,
        "next": follows,
        "waits": waits,
        "suggestion": todo or None,
    }
    return Explanation(title=f"{job.id}  {job.formula}", state=job.state.value, lines=tuple(lines), document=document)


def _theory(standing: JobStanding) -> str:
    named = f" {standing.theory_name}" if standing.theory_name else ""
    return f"theory {standing.job.theory_id}{named}, labeler {standing.labeler}"


def _request(request: RequestRow) -> str:
    text = f"candidate {request.candidate_id} ({request.candidate_state}) of campaign {request.campaign}"
    if request.withdrawn is not None:
        return f"{text}, withdrawn {clock(request.withdrawn)} UTC"
    reason = f": {request.campaign_reason.rstrip('.')}" if request.campaign_state is not CampaignState.ACTIVE else ""
    driver = f"driven by {driver_text(request.driven_by)}" if request.driven_by else "no run drives it now"
    return f"{text}, which is {request.campaign_state}{reason}; {driver}"


def _attempt(standing: JobStanding, attempt: AttemptRow) -> Iterator[str]:
    by = f"by {attempt.worker} on {attempt.host} (process {attempt.pid})"
    begun = f"{clock(attempt.started)} UTC"
    if attempt.finished is None:
        yield f"{by}, since {begun} ({duration(_seconds(attempt.started, standing.now))}): {_word(attempt.state)}"
    else:
        how = {
            AttemptState.DONE: "gave the label",
            AttemptState.LOST: "was lost",
            AttemptState.RELEASED: "was given back",
        }.get(attempt.state, "failed")
        cause = f", {_word(attempt.error_kind)}" if attempt.error_kind else ""
        said = f": {attempt.message.rstrip('.')}" if attempt.message else ""
        yield f"{by}, {begun}, for {duration(_seconds(attempt.started, attempt.finished))}: {how}{cause}{said}"
    if attempt.directory is not None:
        place = find_outputs(attempt.directory)
        if place is None:
            yield f"its outputs were in {attempt.directory}, which is not there now (removed, or on another machine)"
        else:
            logs = ", ".join(str(path.relative_to(place)) for path in logs_in(place)) if place.is_dir() else ""
            yield f"its outputs are in {place}{f'; read {logs}' if logs else ''}"
    if attempt.scheduler_id is not None:
        yield f"the scheduler knows it as {attempt.scheduler_id}"


def _attempt_document(attempt: AttemptRow) -> dict[str, Any]:
    place = None if attempt.directory is None else find_outputs(attempt.directory)
    return {
        "worker": attempt.worker,
        "host": attempt.host,
        "pid": attempt.pid,
        "state": attempt.state,
        "started": attempt.started,
        "finished": attempt.finished,
        "seconds": None if attempt.finished is None else _seconds(attempt.started, attempt.finished),
        "error_kind": attempt.error_kind,
        "message": attempt.message or None,
        "scheduler_id": attempt.scheduler_id,
        "directory": attempt.directory,
        "outputs": place,
        "logs": logs_in(place) if place is not None and place.is_dir() else (),
    }


def _limits(standing: JobStanding, config: WorkerConfig) -> str:
    job, retries = standing.job, config.retries
    text = (
        f"{plural(job.infrastructure_failures, 'failure')} of the machine (repeated {_times(retries.machine)}), "
        f"{job.failures} of the calculation (repeated {_times(retries.calculation)}), "
        f"{plural(job.deaths, 'worker')} died of it (quarantined at {retries.deaths})"
    )
    at_most = config.slots.get(standing.labeler)
    return text if at_most is None else f"{text}; {standing.under_way} of {at_most} slots of {standing.labeler} taken"


def _times(n: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(n, f"{n} times")


def _what_follows(standing: JobStanding) -> str:
    job = standing.job
    if job.state is JobState.DONE:
        return "nothing: its label is stored"
    if job.state is JobState.CANCELLED:
        return "nothing: nobody asks for it any more"
    if job.state in {JobState.FAILED, JobState.QUARANTINED}:
        return f"nothing by itself: it is {job.state} after {_word(job.error_kind)}: {job.message.rstrip('.')}"
    if job.state is JobState.RETRY_WAIT:
        assert job.not_before is not None
        wait = _seconds(standing.now, job.not_before)
        when = f"from {clock(job.not_before)} UTC on, in {duration(wait)}" if wait > 0 else "at once"
        return f"a worker may claim it again {when}, after {_word(job.error_kind)}: {job.message.rstrip('.')}"
    if job.state is JobState.QUEUED:
        ahead = f", after {plural(standing.ahead, 'job')} of this theory" if standing.ahead else ""
        return f"the next worker for this theory claims it{ahead}"
    assert job.lease_until is not None
    attempt = standing.attempts[-1]
    if WorkerIdentity.current().sees_gone(attempt):
        return f"the process of {job.worker} is gone: the next worker or run on this machine takes the job back"
    left = _seconds(standing.now, job.lease_until)
    if left <= 0:
        return f"the lease of {job.worker} ran out {duration(-left)} ago: the next worker takes the job back"
    until = f"{clock(job.lease_until)} UTC, in {duration(left)}"
    return f"{job.worker} holds it until {until}, and prolongs that while it lives"


def _why_it_waits(ledger: Ledger, standing: JobStanding, config: WorkerConfig) -> Iterator[str]:
    """What keeps workers from a queued job, as far as the ledger and this machine's worker file know."""
    at_most = config.slots.get(standing.labeler)
    if at_most is not None and standing.under_way >= at_most:
        taken = f"{standing.under_way} of {at_most}"
        yield f"all slots of {standing.labeler} are taken: {taken} (`slots` of the worker's file)"
    if standing.workers:
        yield f"workers that compute jobs of this theory now: {', '.join(standing.workers)}"
    elif standing.last_seen is None:
        yield "no worker has ever taken a job of this theory"
    elif _seconds(standing.last_seen.seen, standing.now) > 60 * SEEN_MINUTES:
        yield (
            f"no worker took a job of this theory in the last {SEEN_MINUTES:g} minutes; the last was "
            f"{standing.last_seen.worker} on {standing.last_seen.host}, {_at(standing.last_seen.seen, standing.now)}"
        )
    refused = refused_here(ledger.theories.get(standing.job.theory_id), config)
    if refused is not None:
        yield f"a worker with this machine's file leaves it to others: {refused}"
    asking = {r.campaign: r for r in standing.requests if r.withdrawn is None}
    if asking and not any(r.driven_by for r in asking.values()):
        idle = ", ".join(f"{name} ({r.campaign_state})" for name, r in asking.items())
        yield f"no run drives {idle}, so that only `alflow worker` can take it"


def refused_here(theory: TheoryRow, config: WorkerConfig) -> str | None:
    """Why this machine cannot compute a theory; None where it can."""
    try:
        labeler_for_theory(theory.labeler, theory.settings, theory.fingerprint, worker=config)
    except (ConfigError, TheoryError) as error:
        return str(error)
    return None


def _what_to_do(standing: JobStanding, waits: tuple[str, ...]) -> str:
    job = standing.job
    if job.state in {JobState.FAILED, JobState.QUARANTINED}:
        suggestion = job.error_kind.suggestion if job.error_kind else ""
        again = "" if "queue retry" in suggestion else f" Then `alflow queue retry {job.id}`."
        return f"{suggestion}{again}".strip()
    if job.state is JobState.CANCELLED:
        return f"`alflow queue retry {job.id}` asks for it again."
    if job.state is JobState.RETRY_WAIT:
        assert job.error_kind is not None
        return f"{job.error_kind.suggestion} `alflow queue release {job.id}` ends the waiting time."
    if waits and not standing.workers:
        return "Start `alflow worker` on a machine that has this theory's program, or `alflow run` the campaign."
    return ""


# -- the queue as a whole ----------------------------------------------------------------------------------------------


def explain_queue(ledger: Ledger, campaign_id: int | None, config: WorkerConfig, title: str) -> Explanation:
    """Explain the queue in a few sentences: what waits, what runs, how fast, what failed and what to do."""
    standing = ledger.queue.overview(campaign_id)
    counts = standing.counts
    n_open = sum(counts[state] for state in OPEN_JOBS)
    refused = {i: refused_here(ledger.theories.get(i), config) for i, *_ in standing.waiting}
    lines: list[Line] = [
        (
            "jobs",
            ", ".join(f"{n} {_word(state)}" for state, n in counts.items() if n) or "none was ever asked for",
        ),
        *_waiting_lines(standing, refused),
    ]
    if standing.workers:
        held = ", ".join(f"{worker} ({n})" for worker, n in standing.workers.items())
        lines.append(("workers", f"{plural(sum(standing.workers.values()), 'job')} with {held}"))
    elif n_open:
        lines.append(("workers", "none holds a job: start `alflow worker`, or `alflow run` the campaign"))
    if standing.next_retry is not None:
        wait = _seconds(standing.now, standing.next_retry)
        when = f"at {clock(standing.next_retry)} UTC, in {duration(wait)}" if wait > 0 else "now"
        lines.append(("repeated", f"{plural(counts[JobState.RETRY_WAIT], 'job')}, the first may be claimed {when}"))
    end = None
    if standing.per_hour is not None:
        text = f"{plural(standing.closed_last_hour, 'job')} ended in the last hour, {standing.per_hour:.3g} an hour"
        if n_open:
            seconds = 3600.0 * n_open / standing.per_hour
            end = (datetime.fromisoformat(standing.now) + timedelta(seconds=seconds)).isoformat()
            text += f": the {n_open} that are left end at about {clock(end)[:16]} UTC, in {duration(seconds)}"
        lines.append(("rate", text))
    elif n_open:
        lines.append(("rate", "no job ended in the last hour, so that nothing can be said about the end"))
    for failure in standing.failures:
        example = f", for example: {failure.example.rstrip('.')}" if failure.example else ""
        lines.append(("failures", f"{failure.count} {_word(failure.kind)}{example}. {failure.suggestion}"))
    document = {
        "counts": {state.value: n for state, n in counts.items()},
        "waiting": [
            {"theory": name, "labeler": labeler, "jobs": n, "refused_here": refused[i]}
            for i, name, labeler, n in standing.waiting
        ],
        "oldest": standing.oldest,
        "workers": standing.workers,
        "next_retry": standing.next_retry,
        "closed_last_hour": standing.closed_last_hour,
        "per_hour": standing.per_hour,
        "expected_end": end,
        "failures": standing.failures,
    }
    return Explanation(title=title, state="", lines=tuple(lines), document=document)


def _waiting_lines(standing: QueueStanding, refused: Mapping[int, str | None]) -> Iterator[Line]:
    if standing.oldest is not None:
        theories = ", ".join(f"{n} for {name or f'theory {i}'} ({labeler})" for i, name, labeler, n in standing.waiting)
        yield "waiting", f"{theories}; the oldest since {_at(standing.oldest, standing.now)}"
    for i, name, _, _ in standing.waiting:
        if refused[i] is not None:
            yield "", f"a worker with this machine's file leaves {name or f'theory {i}'} to others: {refused[i]}"


# -- words -------------------------------------------------------------------------------------------------------------


def _word(value: object) -> str:
    return str(value).replace("_", " ")


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _at(time: str, now: str) -> str:
    return f"{clock(time)} UTC ({duration(max(_seconds(time, now), 0.0))} ago)"
