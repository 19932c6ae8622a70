"""SIGKILL at every named point of a campaign, and the same command again.

What is promised (``docs/reliability.md`` says it for users):

- A run that is killed at any instant continues by the same command. With budgets of steps or epochs and one thread it
  ends with the same set of (structure, state of its candidate, label) as a run that nobody touched, bit by bit, and
  with the same committees. With budgets of time nothing is lost and nothing is double.
- Nothing is labelled twice: one attempt that is done and one label for each structure, however many workers died.
- A PostgreSQL server that crashes is waited for; a result that was computed meanwhile is stored when it is back.
  Whether a transaction took effect whose commit was never answered is read from the ledger.

The processes are real ones and so are the signals: ``tests/kill/victim.py`` is the command line with a trap, and the
command that continues is the command line itself. ``tests/kill/scene.py`` names the points. A sample of them runs with
``make test-integration``, all of them with ``make test-slow``.
"""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.kill.conftest import Stage
from tests.kill.scene import CAMPAIGN, ENDED, Outcome, Scene, all_points
from tests.kill.victim import Point

SAMPLE = [Point.of(1, "train", "inside")]
QUICK_SAMPLE = [
    Point.of(1, "explore-dynamics", "inside"),
    Point.of(2, "select", "commit"),
    Point.of(2, "label", "complete-committed"),
]


def kill_at(point: Point, scene: Scene) -> None:
    """Run into the trap, then run to the end."""
    command = scene.run(point)
    code = command.wait()
    assert code == -signal.SIGKILL, f"the point was not reached, exit code {code}:\n{command.output()}"
    scene.finish()


@pytest.mark.integration
@pytest.mark.parametrize("point", SAMPLE, ids=str)
def test_a_killed_command_continues_to_the_same_ledger(point: Point, scene: Scene, undisturbed: Outcome) -> None:
    kill_at(point, scene)
    assert scene.losses() == []
    assert scene.outcome() == undisturbed


@pytest.mark.integration
@pytest.mark.parametrize("point", QUICK_SAMPLE, ids=str)
def test_a_run_killed_elsewhere_continues_to_the_same_ledger(
    point: Point, quick_scene: Scene, undisturbed: Outcome
) -> None:
    kill_at(point, quick_scene)
    assert quick_scene.losses() == []
    assert quick_scene.outcome() == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("point", all_points(), ids=str)
def test_a_run_killed_at_any_point_continues_to_the_same_ledger(
    point: Point, database: str, stage: Stage, undisturbed: Outcome
) -> None:
    with stage.scene(database, before_round=point.round) as scene:
        kill_at(point, scene)
        assert scene.losses() == []
        assert scene.outcome() == undisturbed


@pytest.mark.slow
def test_a_run_killed_at_every_point_in_turn(quick_scene: Scene, undisturbed: Outcome) -> None:
    for point in all_points():
        if point.place != "after":  # the step is finished by then: its commit was the kill before
            assert quick_scene.run(point).wait() == -signal.SIGKILL, str(point)
    quick_scene.finish()
    assert quick_scene.losses() == []
    assert quick_scene.outcome() == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_run_killed_at_random_moments(seed: int, quick_scene: Scene, undisturbed: Outcome) -> None:
    draw = random.Random(seed)
    for _ in range(6):
        command = quick_scene.run()
        time.sleep(draw.uniform(0.2, 3.0))
        command.kill()
        code = command.wait()
        if code in ENDED:
            break
        assert code == -signal.SIGKILL, command.output()
    quick_scene.finish()
    assert quick_scene.losses() == []
    assert quick_scene.outcome() == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        Point.of(1, "train", "inside"),
        Point.of(1, "train", "checkpoint"),
        Point.of(2, "train", "committed"),
        Point.of(1, "label", "inside"),
        Point.of(2, "explore-dynamics", "inside"),
    ],
    ids=str,
)
def test_with_budgets_of_time_nothing_is_lost_or_double(point: Point, quick_scene: Scene) -> None:
    quick_scene.write(training=CAMPAIGN["training"] | {"cpu_seconds": 0.5})
    kill_at(point, quick_scene)
    assert quick_scene.losses() == []


@pytest.mark.integration
def test_both_databases_hold_the_same(quick_scene: Scene, undisturbed: Outcome) -> None:
    quick_scene.finish(at_most=1)
    assert quick_scene.outcome() == undisturbed
