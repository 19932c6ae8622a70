"""What a careful reader would notice, in plain words, each with something to do about it.

Every rule is a function from the data to at most a few findings; the order of severity is that of :class:`Severity`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import StrEnum

import numpy as np
from scipy import stats

from alflow.ledger import Stream
from alflow.potentials import Kind
from alflow.report._data import Fate, Finding, ReportData
from alflow.report._learning import NOMINAL, errors_of, hits_of, judged_of
from alflow.report._style import pretty_formula

_MANY_REJECTED = 0.4
_MANY_DUPLICATES = 0.9
_ENOUGH = 20
_LARGE_FACTOR = 3.0
_SIGNIFICANT = 0.02
_WORDS = {Kind.ENERGY: "energies", Kind.FORCE: "forces", Kind.STRESS: "stresses"}


class Severity(StrEnum):
    """How much a finding matters."""

    WARNING = "warning"
    ADVICE = "advice"
    GOOD = "good"


Rule = Callable[[ReportData], Iterator[Finding]]


def with_findings(data: ReportData) -> ReportData:
    """Return the data with everything that the rules found, most important first."""
    found = [finding for rule in RULES for finding in rule(data)]
    if not any(finding.severity != Severity.GOOD for finding in found):
        found.append(
            Finding(
                severity=Severity.GOOD,
                title="Nothing stands out",
                text="No rule of this report found anything that asks for attention.",
                suggestion="",
            )
        )
    order = list(Severity)
    return replace(data, findings=tuple(sorted(found, key=lambda f: order.index(Severity(f.severity)))))


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


# -- the phase diagram -------------------------------------------------------------------------------------------------


def unconfirmed_compounds(data: ReportData) -> Iterator[Finding]:
    """Vertices of the hull whose label does not prove that they are relaxed."""
    if data.hull is None:
        return
    open_ = [c for c in data.hull.unconfirmed if max(c.fractions) < 1]
    if open_:
        names = ", ".join(f"{pretty_formula(c.formula)} ({c.remark})" for c in open_)
        yield Finding(
            severity=Severity.WARNING,
            title=f"{_count(len(open_), 'compound')} on the hull without confirmation",
            text=f"{names}.",
            suggestion="They may move when they relax. Let the campaign run on: it labels relaxed geometries near the "
            "hull first. If it has stopped, raise the budget, or pin the candidates with `alflow pin`.",
        )


def unconfirmed_references(data: ReportData) -> Iterator[Finding]:
    """Formation energies hang on the elements."""
    if data.hull is None:
        return
    if data.hull.missing_references:
        names = ", ".join(data.hull.missing_references)
        yield Finding(
            severity=Severity.WARNING,
            title=f"No labelled reference of {names}",
            text="Without a labelled crystal of each element there are no formation energies against the elements.",
            suggestion="Add elemental structures with `alflow add`, or let round 0 design them (`round0` in the "
            "campaign file).",
        )
    open_ = [c for c in data.hull.unconfirmed if max(c.fractions) == 1]
    if open_:
        names = ", ".join(f"{pretty_formula(c.formula)} ({c.remark})" for c in open_)
        yield Finding(
            severity=Severity.ADVICE,
            title="An elemental reference is not relaxed",
            text=f"{names}. Every formation energy is too low by a share of what it would still relax.",
            suggestion="Check the prototypes of round 0, or pin the relaxed element with `alflow pin`.",
        )


def promising_candidates(data: ReportData) -> Iterator[Finding]:
    """Predictions below the hull of the labels that nobody has labelled."""
    if data.hull is None or not data.hull.promising:
        return
    best = data.hull.promising[0]
    n = len(data.hull.promising)
    clear = sum(1 for p in data.hull.promising if p.e_hull + p.error < 0)
    yield Finding(
        severity=Severity.WARNING if clear else Severity.ADVICE,
        title=f"{_count(n, 'unlabelled candidate is', 'unlabelled candidates are')} predicted below the hull",
        text=f"The lowest is candidate {best.candidate_id} ({pretty_formula(best.formula)}), "
        f"{1e3 * -best.e_hull:.1f} ± {1e3 * best.error:.1f} meV/atom below it. "
        f"{clear} of them by more than their stated error. The lowest of many predictions is biased low.",
        suggestion="Label them before you believe the hull: `alflow pin` the lowest, or give the campaign more labels.",
    )


# -- the committee -----------------------------------------------------------------------------------------------------


def calibration_drift(data: ReportData) -> Iterator[Finding]:
    """Intervals that hold more or fewer labels than they promise, on the newest judged labels."""
    newest = sorted(data.judged, key=lambda row: -row.round_index)
    for kind in Kind:
        rows = judged_of(newest, kind)[: 3 * _ENOUGH]
        hits, n = hits_of(rows, kind)
        if n < _ENOUGH:
            continue
        if stats.binomtest(hits, n, NOMINAL, alternative="less").pvalue < _SIGNIFICANT:
            yield Finding(
                severity=Severity.WARNING,
                title=f"Stated errors of {_WORDS[kind]} are too small",
                text=f"Of the newest {n} labels {_percent(hits / n)} lie inside their 90 % interval. Active batches "
                "are chosen for surprise, so some shortfall is expected; this is more.",
                suggestion="Trust `u` less near 1: lower the target, raise `selection.random_fraction` so that the "
                "calibration sees ordinary structures, or use more members.",
            )
        elif hits == n and stats.binomtest(hits, n, NOMINAL, alternative="greater").pvalue < _SIGNIFICANT:
            yield Finding(
                severity=Severity.ADVICE,
                title=f"Stated errors of {_WORDS[kind]} are larger than needed",
                text=f"All of the newest {n} labels lie inside their 90 % interval.",
                suggestion="The campaign is more careful than it has to be and may pay for a few labels too many.",
            )


def overconfident_members(data: ReportData) -> Iterator[Finding]:
    """A factor a far above 1 means that the members agree with each other more than with the truth."""
    latest = next((r for r in reversed(data.rounds) if r.factors), None)
    if latest is None:
        return
    large = {kind: a for kind, a in latest.factors.items() if a > _LARGE_FACTOR}
    if large:
        listed = ", ".join(f"{_WORDS[kind]} × {a:.1f}" for kind, a in large.items())
        yield Finding(
            severity=Severity.ADVICE,
            title="The members agree with each other more than with the labels",
            text=f"The calibration multiplies the committee's spread: {listed}.",
            suggestion="Switch warm starts off for a round (`training.warm_start: false`), or use more members.",
        )


def errors_above_target(data: ReportData) -> Iterator[Finding]:
    """The random stream says how good the committee is on ordinary candidates."""
    indices = sorted({row.round_index for row in data.judged})[-3:]
    rows = [row for row in data.judged if row.stream is Stream.RANDOM and row.round_index in indices]
    above, checked = [], 0
    for kind in Kind:
        errors = errors_of(rows, kind)
        if len(errors) < 5:
            continue
        checked += 1
        rms = float(np.sqrt(np.square(errors).mean()))
        if rms > data.targets[kind]:
            above.append(f"{_WORDS[kind]} {1e3 * rms:.3g} against {1e3 * data.targets[kind]:.3g} m{kind.unit}")
    if above:
        yield Finding(
            severity=Severity.ADVICE,
            title="The targets are not reached yet",
            text=f"Rms errors on the random stream of the last {_count(len(indices), 'round')}: {'; '.join(above)}.",
            suggestion="More labels, a larger committee (`committee.channels`), or looser `targets` if these will do.",
        )
    elif checked:
        yield Finding(
            severity=Severity.GOOD,
            title="The targets are reached on ordinary candidates",
            text=f"Rms errors on the random stream of the last {_count(len(indices), 'round')} are below every target.",
            suggestion="",
        )


def targets_below_noise(data: ReportData) -> Iterator[Finding]:
    """The same crystal in another cell has another label: below that nothing can be learned."""
    if data.below_noise:
        yield Finding(
            severity=Severity.WARNING,
            title="Targets below the noise of the labels",
            text=" ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in data.below_noise),
            suggestion="Denser k-points or a larger cutoff lower the noise (`alflow labeler converge` shows how far); "
            "else raise `targets`.",
        )


# -- candidates --------------------------------------------------------------------------------------------------------

_REMEDIES = (
    (
        "distance",
        "Softer moves: lower `rattle` or `strain` of the source, lower temperatures, or larger starting volumes.",
    ),
    (
        "close",
        "Softer moves: lower `rattle` or `strain` of the source, lower temperatures, or larger starting volumes.",
    ),
    ("volume", "The cells have come apart: limit the strain or the temperature of the source, or its `u_limit`."),
    (
        "force",
        "The geometries are far from anything plausible: lower the amplitude, or end walkers at a smaller `u_limit`.",
    ),
    ("atoms", "The cells are larger than `filters.max_atoms` allows: raise it if you can pay for them."),
)


def many_rejected(data: ReportData) -> Iterator[Finding]:
    """A source whose proposals mostly break a rule wastes its time."""
    reasons = [r for r in data.reasons if r.fate is Fate.REJECTED]
    for flow in data.flows:
        rejected = flow.fates.get(Fate.REJECTED, 0)
        if flow.total < _ENOUGH or rejected / flow.total < _MANY_REJECTED:
            continue
        main = max(reasons, key=lambda r: r.count)
        remedy = next(
            (text for word, text in _REMEDIES if word in main.reason), "Look at them: `alflow ls state=rejected`."
        )
        yield Finding(
            severity=Severity.ADVICE,
            title=f"{_percent(rejected / flow.total)} of what {flow.source} proposes is rejected",
            text=f"{rejected} of {flow.total}; the most frequent reason of all is “{main.reason}” ({main.count}).",
            suggestion=remedy,
        )


def exhausted_sources(data: ReportData) -> Iterator[Finding]:
    """A source that finds only what is known has nothing left to give."""
    for flow in data.flows:
        copies = flow.fates.get(Fate.DUPLICATE, 0) + flow.fates.get(Fate.REUSED, 0)
        if flow.total >= _ENOUGH and copies / flow.total > _MANY_DUPLICATES:
            yield Finding(
                severity=Severity.ADVICE,
                title=f"{flow.source} finds hardly anything new",
                text=f"{copies} of its {flow.total} candidates repeat structures that are kept. None was paid for.",
                suggestion="Remove the source to save time, or widen it: more heat, larger cells, other starts.",
            )


def left_in_pool(data: ReportData) -> Iterator[Finding]:
    """What the campaign leaves behind when it stops."""
    if data.n_set_aside > max(_ENOUGH, 0.2 * (data.n_set_aside + data.n_uncertain)):
        yield Finding(
            severity=Severity.ADVICE,
            title=f"{data.n_set_aside} candidates are set aside as implausible",
            text=f"Their u is above u_max = {data.u_max:g}: the committee knows next to nothing about them.",
            suggestion="Look at some (`alflow ls 'state=pooled' -s -u`). If they make sense, raise `targets.u_max`; if "
            "not, tame the source that makes them.",
        )
    if data.state == "stopped" and data.n_uncertain:
        yield Finding(
            severity=Severity.ADVICE,
            title=f"{_count(data.n_uncertain, 'candidate is', 'candidates are')} still not known well enough",
            text="They have no label, and had u > 1 when they were last scored. The rule that stopped the campaign did "
            "not need them.",
            suggestion="Raise the budget and run again if they matter to you; the campaign continues where it stopped.",
        )


def failures(data: ReportData) -> Iterator[Finding]:
    """Failed calculations, by their typed cause."""
    for failure in data.failures:
        total = sum(f.count for f in data.failures) + data.n_computed
        yield Finding(
            severity=Severity.WARNING if failure.count > 0.1 * total else Severity.ADVICE,
            title=f"{_count(failure.count, 'calculation')} failed: {failure.kind.replace('_', ' ')}",
            text=f"For example: {failure.example}" if failure.example else "",
            suggestion=failure.suggestion,
        )


def calculations_saved(data: ReportData) -> Iterator[Finding]:
    """What deduplication and reuse took out of the campaign; not each of these would have been labelled without."""
    avoided = sum(flow.fates.get(Fate.DUPLICATE, 0) for flow in data.flows)
    if avoided + data.n_reused:
        reused = f", and {_count(data.n_reused, 'label was', 'labels were')} carried over" if data.n_reused else ""
        yield Finding(
            severity=Severity.GOOD,
            title=f"{_count(avoided + data.n_reused, 'duplicate')} never paid for",
            text=f"{_count(avoided, 'candidate repeats', 'candidates repeat')} structures that are kept{reused}.",
            suggestion="",
        )


RULES: tuple[Rule, ...] = (
    unconfirmed_compounds,
    unconfirmed_references,
    promising_candidates,
    failures,
    calibration_drift,
    overconfident_members,
    errors_above_target,
    targets_below_noise,
    many_rejected,
    exhausted_sources,
    left_in_pool,
    calculations_saved,
)
