"""When a campaign ends, and the sentence that says why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from alflow.potentials import Errors, Kind, Targets
from alflow.select._looks import best_window, clean_labels_needed, look_level, upper_bound, window_lengths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from alflow.select._batch import SelectionSettings

DEFAULT_HORIZON = 200
"""Planned length of the random stream where no budget of labels tells it."""


class StopRule(StrEnum):
    """The named reasons for which a campaign ends."""

    CONVERGED = "converged"
    POOL_EXHAUSTED = "pool_exhausted"
    BUDGET_LABELS = "budget_labels"
    BUDGET_ROUNDS = "budget_rounds"
    BUDGET_WALL_TIME = "budget_wall_time"
    BUDGET_CORE_HOURS = "budget_core_hours"
    FAILURE_RATE = "failure_rate"
    NO_PROGRESS = "no_progress"
    USER = "user"


class Budget(BaseModel):
    """What a campaign may spend; None means without limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: int | None = Field(default=None, ge=1, description="labels, round 0 included")
    rounds: int | None = Field(default=None, ge=1, description="rounds, round 0 included")
    wall_hours: float | None = Field(default=None, gt=0, description="hours since the campaign began")
    core_hours: float | None = Field(default=None, gt=0, description="core-hours of labelling")


class StoppingSettings(BaseModel):
    """When the potential counts as good enough, and when a campaign has gone wrong."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tolerance: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="largest share of candidates that may miss a target; 0.2 needs at least 14 clean labels of the "
        "random stream, 0.05 at least 59, and more where one looks often",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="probability of not stopping too early, over all looks together"
    )
    window: int | None = Field(
        default=None,
        ge=5,
        description="most recent labels of the random stream that count; default: four times the least clean number",
    )
    quiet_fraction: float = Field(
        default=0.01, gt=0, le=1, description="new candidates with u > 1 must be fewer than this share …"
    )
    quiet_rounds: int = Field(default=2, ge=1, description="… for so many rounds in a row")
    failure_window: int = Field(default=10, ge=1, description="labelling attempts that the failure rule looks back on")
    failure_least: int = Field(default=5, ge=1, description="failed attempts before the failure rule may stop")
    failure_fraction: float = Field(
        default=0.5, gt=0, lt=1, description="share of failed attempts above which labelling is not to be trusted"
    )
    no_progress_rounds: int = Field(default=3, ge=1, description="rounds without a new label before giving up")

    @property
    def alpha(self) -> float:
        """Allowed probability of a false stop."""
        return 1.0 - self.confidence

    @property
    def lengths(self) -> tuple[int, ...]:
        """Windows of the random stream that are looked at."""
        least = clean_labels_needed(self.tolerance, self.alpha)
        return window_lengths(self.window or 4 * least, min(least, self.window or least))


@dataclass(frozen=True, kw_only=True)
class StoppingInput:
    """Everything the decision rests on; all of it can be read from the ledger.

    Parameters
    ----------
    stream_failed
        random stream in order of labelling, predicted before it was labelled: True where an error exceeded its target
        in any labelled kind, or where the calculation failed
    quiet
        share of new candidates with u > 1 per finished round, latest last
    attempts_failed
        labelling attempts in order, True = failed
    labels_per_round
        new labels per finished round, latest last
    labels, rounds, wall_hours, core_hours
        spent so far
    pool
        candidates that could be labelled
    pool_uncertain
        of these, with 1 < u ≤ u_max
    pool_set_aside
        of these, with u > u_max
    waiting
        pinned candidates, confirmations and open jobs: while there are any, a pool is not exhausted
    pool_finite
        no source will propose anything new
    horizon
        planned length of the random stream, fixed when the campaign begins: :func:`stream_horizon`
    test_failed
        (n,) the user's own test set, True where an error exceeded its target; None without one
    test_looks
        how often that test set was looked at before
    user
        why a person stopped the campaign; None if nobody did
    """

    stream_failed: Sequence[bool] = ()
    quiet: Sequence[float] = ()
    attempts_failed: Sequence[bool] = ()
    labels_per_round: Sequence[int] = ()
    labels: int = 0
    rounds: int = 0
    wall_hours: float = 0.0
    core_hours: float = 0.0
    pool: int | None = None
    pool_uncertain: int | None = None
    pool_set_aside: int = 0
    waiting: int = 0
    pool_finite: bool = False
    horizon: int = DEFAULT_HORIZON
    test_failed: Sequence[bool] | None = None
    test_looks: int = 0
    user: str | None = None


@dataclass(frozen=True, kw_only=True)
class StopDecision:
    """A rule that fired, and the sentence to store and print."""

    rule: StopRule
    sentence: str


def stream_failures(errors: Errors, targets: Targets) -> NDArray[np.bool_]:
    """(n,) True where an actual error exceeds its target in any kind that has a label."""
    ratios = np.stack([errors.of(kind) / targets.of(kind) for kind in Kind])
    exceeded: NDArray[np.bool_] = np.nan_to_num(ratios, nan=0.0).max(axis=0) > 1.0
    return exceeded


def stream_horizon(budget: Budget, selection: SelectionSettings) -> int:
    """Planned length of the random stream: what the budget of labels leaves for it, at most 200."""
    if budget.labels is None:
        return DEFAULT_HORIZON
    per_batch = max(1, round(selection.random_fraction * selection.batch))
    return int(np.clip(math.ceil(budget.labels * per_batch / selection.batch), 1, DEFAULT_HORIZON))


def decide_stop(found: StoppingInput, settings: StoppingSettings, budget: Budget) -> StopDecision | None:
    """Apply the rules in the order a person would want to hear them; None: go on.

    User, failure rate, converged, pool exhausted, budgets, no progress. A plateau of the committee's spread alone is
    no reason: a committee can agree and be wrong.
    """
    for rule in (_user, _failure_rate, _converged, _pool_exhausted, _budget_spent, _no_progress):
        decision = rule(found, settings, budget)
        if decision is not None:
            return decision
    return None


def _user(found: StoppingInput, _settings: StoppingSettings, _budget: Budget) -> StopDecision | None:
    if found.user is None:
        return None
    return StopDecision(rule=StopRule.USER, sentence=f"Stopped by a person: {found.user}")


def _failure_rate(found: StoppingInput, settings: StoppingSettings, _budget: Budget) -> StopDecision | None:
    recent = list(found.attempts_failed)[-settings.failure_window :]
    failed = sum(recent)
    if failed < settings.failure_least or failed <= settings.failure_fraction * len(recent):
        return None
    return StopDecision(
        rule=StopRule.FAILURE_RATE,
        sentence=f"Stopped because labelling fails: {failed} of the last {len(recent)} calculations gave no label "
        f"(limit {settings.failure_fraction:.0%}). Nothing is lost; see the failed jobs, mend the cause, retry them "
        "and go on with `alflow run --resume`.",
    )


def _converged(found: StoppingInput, settings: StoppingSettings, _budget: Budget) -> StopDecision | None:
    shares = list(found.quiet)[-settings.quiet_rounds :]
    if len(shares) < settings.quiet_rounds or max(shares) >= settings.quiet_fraction:
        return None
    quiet = (
        f"and {', '.join(f'{share:.1%}' for share in shares)} of the new candidates had u > 1 in the last "
        f"{len(shares)} rounds (limit {settings.quiet_fraction:.0%})."
    )
    if found.test_failed:
        failed = np.asarray(found.test_failed, dtype=bool)
        looks = found.test_looks + 1
        # the same structures at every look: the levels alpha/2, alpha/6, alpha/12, … add up to alpha
        bound = upper_bound(int(failed.sum()), len(failed), settings.alpha / (looks * (looks + 1)))
        if bound <= settings.tolerance:
            evidence = f"{int(failed.sum())} of the {len(failed)} structures of the test set miss a target"
            return StopDecision(rule=StopRule.CONVERGED, sentence=_convergence(evidence, bound, settings, quiet))
    stream = np.asarray(found.stream_failed, dtype=bool)
    if len(stream) < clean_labels_needed(settings.tolerance, settings.alpha):
        return None
    level = look_level(settings.tolerance, settings.alpha, settings.lengths, found.horizon, len(stream))
    size, failures, p_value = best_window(stream, settings.tolerance, settings.lengths)
    if p_value > level:
        return None
    evidence = f"{failures} of the last {size} structures of the random stream missed a target"
    bound = upper_bound(failures, size, level)
    return StopDecision(rule=StopRule.CONVERGED, sentence=_convergence(evidence, bound, settings, quiet))


def _convergence(evidence: str, bound: float, settings: StoppingSettings, quiet: str) -> str:
    return (
        f"Converged: {evidence}, so with {settings.confidence:.0%} confidence, corrected for looking repeatedly, at "
        f"most {bound:.1%} of such candidates do (tolerance {settings.tolerance:.0%}), {quiet}"
    )


def _pool_exhausted(found: StoppingInput, _settings: StoppingSettings, _budget: Budget) -> StopDecision | None:
    if not found.pool_finite or found.pool is None or found.waiting > 0:
        return None
    if found.pool == 0:
        return StopDecision(
            rule=StopRule.POOL_EXHAUSTED, sentence="Pool exhausted: every candidate is labelled or accounted for."
        )
    if found.pool_uncertain is None or found.pool_uncertain > 0 or found.pool_set_aside > 0:
        return None
    return StopDecision(
        rule=StopRule.POOL_EXHAUSTED,
        sentence=f"Pool exhausted: none of the {found.pool} candidates left has u > 1, and no source proposes more.",
    )


def _budget_spent(found: StoppingInput, _settings: StoppingSettings, budget: Budget) -> StopDecision | None:
    spent: list[tuple[StopRule, float, float | None, str]] = [
        (StopRule.BUDGET_LABELS, found.labels, budget.labels, "labels"),
        (StopRule.BUDGET_ROUNDS, found.rounds, budget.rounds, "rounds"),
        (StopRule.BUDGET_WALL_TIME, found.wall_hours, budget.wall_hours, "hours"),
        (StopRule.BUDGET_CORE_HOURS, found.core_hours, budget.core_hours, "core-hours"),
    ]
    for rule, used, allowed, what in spent:
        if allowed is not None and used >= allowed:
            return StopDecision(
                rule=rule, sentence=f"Budget spent: {used:.4g} of {allowed:.4g} {what}. Raise it to go on."
            )
    return None


def _no_progress(found: StoppingInput, settings: StoppingSettings, _budget: Budget) -> StopDecision | None:
    recent = list(found.labels_per_round)[-settings.no_progress_rounds :]
    if len(recent) < settings.no_progress_rounds or any(recent):
        return None
    aside = f"; {found.pool_set_aside} candidates are set aside above u_max" if found.pool_set_aside else ""
    return StopDecision(
        rule=StopRule.NO_PROGRESS,
        sentence=f"Stopped because the last {len(recent)} rounds brought no new label{aside}. Widen the sources or the "
        "filters, or raise u_max, and run again.",
    )


def earliest_stop(
    settings: StoppingSettings,
    selection: SelectionSettings,
    budget: Budget,
    *,
    stream_failed: Sequence[bool] = (),
    labels: int = 0,
) -> str:
    """Say, for ``alflow plan``, when the convergence rule can fire at the earliest: if every further label is clean.

    Parameters
    ----------
    stream_failed
        random stream so far, as in :class:`StoppingInput`
    labels
        all labels so far
    """
    if selection.random_fraction == 0:
        return "Convergence cannot be declared: selection.random_fraction is 0, so no random stream tests it."
    horizon = stream_horizon(budget, selection)
    longest = settings.lengths[0]
    for missing in range(longest + 1):
        stream = np.concatenate([np.asarray(stream_failed, dtype=bool), np.zeros(missing, dtype=bool)])
        if len(stream) < settings.lengths[-1]:
            continue
        level = look_level(settings.tolerance, settings.alpha, settings.lengths, horizon, len(stream))
        if best_window(stream, settings.tolerance, settings.lengths)[2] <= level:
            break
    else:
        return (
            f"Convergence cannot be declared: even {longest} clean labels in a row cannot show a failure rate below "
            f"{settings.tolerance:.0%}; raise stopping.window."
        )
    per_batch = max(1, round(selection.random_fraction * selection.batch))
    rounds = max(settings.quiet_rounds, math.ceil(missing / per_batch))
    total = labels + missing * selection.batch // per_batch
    sentence = (
        f"Convergence can be declared after {missing} more clean labels of the random stream ({len(stream_failed)} "
        f"done): in {rounds} rounds at the earliest, at about {total} labels."
    )
    if budget.labels is not None and total > budget.labels:
        sentence += (
            f" The budget of {budget.labels} labels ends before; a larger selection.random_fraction or "
            "stopping.tolerance would bring it within reach."
        )
    return sentence
