"""Label workers that are killed while a run waits for their labels."""

from __future__ import annotations

import signal

import pytest

from tests.kill.scene import ENDED, Outcome, Scene
from tests.kill.victim import WORKER, Point

DEATHS = [
    Point(*WORKER, "claim-commit", 1),
    Point(*WORKER, "claim-committed", 1),
    Point(*WORKER, "inside", 1),
    Point(*WORKER, "inside", 2),
    Point(*WORKER, "complete-commit", 2),
    Point(*WORKER, "complete-committed", 1),
]


@pytest.mark.slow
def test_workers_die_at_every_point_while_a_run_waits(quick_scene: Scene, undisturbed: Outcome) -> None:
    run = quick_scene.run_without_work()
    for point in DEATHS:
        worker = quick_scene.start("worker", "--until", "forever", point=point)
        assert worker.wait() == -signal.SIGKILL, worker.output()
    last = quick_scene.start("worker", "--until", "forever")
    assert run.wait() in ENDED, run.output()
    last.kill()
    assert quick_scene.losses() == []
    assert quick_scene.outcome() == undisturbed


@pytest.mark.integration
def test_two_workers_at_once_one_of_which_dies(quick_scene: Scene, undisturbed: Outcome) -> None:
    run = quick_scene.run_without_work()
    victim = quick_scene.start("worker", "--until", "forever", point=Point(*WORKER, "inside", 2))
    other = quick_scene.start("worker", "--until", "forever")
    assert run.wait() in ENDED, run.output()
    victim.kill()
    other.kill()
    assert quick_scene.losses() == []
    assert quick_scene.outcome() == undisturbed, "who labelled what, and in which order, must not matter"


@pytest.mark.integration
def test_a_run_that_waits_is_killed_while_a_worker_works(quick_scene: Scene, undisturbed: Outcome) -> None:
    point = Point.of(1, "label", "before")
    run = quick_scene.run_without_work(point)
    worker = quick_scene.start("worker", "--until", "forever")
    assert run.wait() == -signal.SIGKILL, run.output()
    again = quick_scene.run_without_work()
    assert again.wait() in ENDED, again.output()
    worker.kill()
    assert quick_scene.losses() == []
    assert quick_scene.outcome() == undisturbed
