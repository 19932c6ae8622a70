from typing import Any

import numpy as np
import pytest

from alflow.potentials import Errors, Targets
from alflow.select import (
    Budget,
    SelectionSettings,
    StopDecision,
    StoppingInput,
    StoppingSettings,
    StopRule,
    decide_stop,
    earliest_stop,
    stream_failures,
    stream_horizon,
)

SETTINGS = StoppingSettings()
QUIET = (0.0, 0.004)


def decide(budget: Budget | None = None, **found: Any) -> StopDecision | None:
    return decide_stop(StoppingInput(**found), SETTINGS, budget or Budget())


def rule(decision: StopDecision | None) -> StopRule | None:
    return None if decision is None else decision.rule


def test_a_young_campaign_goes_on() -> None:
    assert decide() is None
    assert decide(stream_failed=[False] * 5, quiet=QUIET, labels=50, labels_per_round=[10] * 5) is None


def test_convergence_needs_clean_labels_and_quiet_candidates() -> None:
    clean: dict[str, Any] = {"stream_failed": [False] * 14, "horizon": 14}
    decision = decide(quiet=QUIET, **clean)
    assert rule(decision) == StopRule.CONVERGED
    assert decision is not None
    for words in (
        "0 of the last 14",
        "95% confidence",
        "corrected for looking repeatedly",
        "tolerance 20%",
        "0.0%, 0.4%",
    ):
        assert words in decision.sentence
    assert decide(quiet=(0.0,), **clean) is None
    assert decide(quiet=(0.0, 0.02), **clean) is None
    assert decide(quiet=(0.5, 0.0, 0.0), **clean) is not None
    assert decide(quiet=QUIET, stream_failed=[False] * 13, horizon=14) is None
    assert decide(quiet=QUIET, stream_failed=[False] * 13 + [True], horizon=14) is None
    assert decide(quiet=QUIET, stream_failed=[False] * 14, horizon=200) is None, "many planned looks need more evidence"


def test_old_failures_leave_the_window() -> None:
    stream = [True] * 20 + [False] * 40
    assert rule(decide(quiet=QUIET, stream_failed=stream)) == StopRule.CONVERGED


def test_the_users_own_test_set_serves_as_well_and_every_look_at_it_costs() -> None:
    assert rule(decide(quiet=QUIET, test_failed=[False] * 30)) == StopRule.CONVERGED
    assert decide(quiet=QUIET, test_failed=[False] * 16, test_looks=0) is None
    assert decide(quiet=QUIET, test_failed=[False] * 30, test_looks=30) is None
    assert decide(quiet=QUIET, test_failed=[True] * 10 + [False] * 30) is None


@pytest.mark.parametrize(("failing", "labels"), [(0.2, 300), (0.22, 2000), (0.3, 1000)])
def test_false_stops_are_rare(failing: float, labels: int) -> None:
    """250 replays of potentials that never get good enough, asked after every round, candidates always quiet."""
    rng, budget, n_replays = np.random.default_rng(8), Budget(labels=labels), 400
    horizon = stream_horizon(budget, SelectionSettings())
    stopped = 0
    for _ in range(n_replays):
        stream = rng.random(horizon) < failing
        stopped += any(
            rule(decide(budget, stream_failed=stream[:n], quiet=QUIET, horizon=horizon)) == StopRule.CONVERGED
            for n in range(14, horizon + 1)
        )
    noise = 2 * np.sqrt(0.05 * 0.95 / n_replays) if failing == 0.2 else 0.0  # at the tolerance the rate is 5 % itself
    assert stopped / n_replays <= 0.05 + noise


def test_a_potential_that_becomes_good_is_recognised() -> None:
    """Power: 40 bad labels, then 2 % failures; nine of ten campaigns stop within 60 further labels."""
    rng = np.random.default_rng(0)
    stops = []
    for _ in range(200):
        stream = np.concatenate([rng.random(40) < 0.5, rng.random(60) < 0.02])
        stops.append(any(rule(decide(stream_failed=stream[:n], quiet=QUIET, horizon=100)) for n in range(40, 101)))
    assert np.mean(stops) > 0.9


def test_failing_labelling_stops_and_single_failures_do_not() -> None:
    assert rule(decide(attempts_failed=[True] * 5)) == StopRule.FAILURE_RATE
    assert decide(attempts_failed=[True] * 4) is None
    assert decide(attempts_failed=[True] * 5 + [False] * 5) is None
    assert decide(attempts_failed=[True] * 30 + [False] * 10) is None
    decision = decide(attempts_failed=[False] * 50 + [True] * 6)
    assert decision is not None
    assert "6 of the last 10 calculations gave no label" in decision.sentence
    assert decide(attempts_failed=[False, True] * 20) is None


def test_a_finite_pool_is_exhausted_when_nothing_is_uncertain() -> None:
    done: dict[str, Any] = {"pool_finite": True, "pool": 80, "pool_uncertain": 0}
    decision = decide(**done)
    assert rule(decision) == StopRule.POOL_EXHAUSTED
    assert decision is not None
    assert "none of the 80 candidates left has u > 1" in decision.sentence
    assert decide(**{**done, "pool_finite": False}) is None
    assert decide(**{**done, "waiting": 1}) is None
    assert decide(**{**done, "pool_set_aside": 2}) is None
    assert decide(**{**done, "pool_uncertain": 3}) is None
    assert decide(**{**done, "pool_uncertain": None}) is None
    assert rule(decide(pool_finite=True, pool=0)) == StopRule.POOL_EXHAUSTED


@pytest.mark.parametrize(
    ("budget", "spent", "expected"),
    [
        (Budget(labels=100), {"labels": 100}, StopRule.BUDGET_LABELS),
        (Budget(rounds=3), {"rounds": 3}, StopRule.BUDGET_ROUNDS),
        (Budget(wall_hours=1.5), {"wall_hours": 1.6}, StopRule.BUDGET_WALL_TIME),
        (Budget(core_hours=10), {"core_hours": 10.0}, StopRule.BUDGET_CORE_HOURS),
        (Budget(labels=100, rounds=9), {"labels": 99, "rounds": 8}, None),
    ],
)
def test_budgets(budget: Budget, spent: dict[str, Any], expected: StopRule | None) -> None:
    assert rule(decide(budget, **spent)) == expected


def test_rounds_without_labels_stop_and_say_what_was_set_aside() -> None:
    decision = decide(labels_per_round=[5, 0, 0, 0], pool_set_aside=12)
    assert rule(decision) == StopRule.NO_PROGRESS
    assert decision is not None
    assert "12 candidates are set aside" in decision.sentence
    assert decide(labels_per_round=[0, 0]) is None
    assert decide(labels_per_round=[0, 0, 1]) is None


def test_the_most_telling_rule_is_named() -> None:
    both: dict[str, Any] = {"stream_failed": [False] * 14, "horizon": 14, "quiet": QUIET, "labels": 100}
    assert rule(decide(Budget(labels=100), **both)) == StopRule.CONVERGED
    assert rule(decide(Budget(labels=100), attempts_failed=[True] * 9, **both)) == StopRule.FAILURE_RATE
    assert rule(decide(user="enough", attempts_failed=[True] * 9)) == StopRule.USER


def test_a_failure_is_an_error_above_its_target_in_any_labelled_kind() -> None:
    nan = np.nan
    errors = Errors(
        energy=np.array([0.004, 0.006, nan, 0.001]), force=np.array([0.05, 0.05, nan, 0.2]), stress=np.full(4, nan)
    )
    assert stream_failures(errors, Targets()).tolist() == [False, True, False, True]


def test_the_planned_stream_follows_from_the_budget() -> None:
    assert stream_horizon(Budget(labels=150), SelectionSettings(batch=10)) == 15
    assert stream_horizon(Budget(labels=150), SelectionSettings(batch=5)) == 30
    assert stream_horizon(Budget(), SelectionSettings()) == 200


def test_plan_says_when_convergence_is_possible_and_decide_agrees() -> None:
    budget = Budget(labels=300)
    assert "after 19 more clean labels" in earliest_stop(SETTINGS, SelectionSettings(), budget)
    assert "at about 190 labels" in earliest_stop(SETTINGS, SelectionSettings(), budget)
    horizon = stream_horizon(budget, SelectionSettings())
    assert decide(budget, stream_failed=[False] * 18, quiet=QUIET, horizon=horizon) is None
    assert rule(decide(budget, stream_failed=[False] * 19, quiet=QUIET, horizon=horizon)) == StopRule.CONVERGED
    late = earliest_stop(SETTINGS, SelectionSettings(), budget, stream_failed=[True, *[False] * 10], labels=110)
    assert "(11 done)" in late
    assert "ends before" in earliest_stop(SETTINGS, SelectionSettings(), Budget(labels=50))
    assert "random_fraction is 0" in earliest_stop(SETTINGS, SelectionSettings(random_fraction=0), budget)
    assert "raise stopping.window" in earliest_stop(StoppingSettings(window=10), SelectionSettings(), budget)
