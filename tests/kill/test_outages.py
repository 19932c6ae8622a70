"""A PostgreSQL server that crashes under a run: ``pg_ctl -m immediate`` at named points, as if its machine failed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.databases import PostgresqlServer
from tests.kill.conftest import Stage
from tests.kill.scene import ENDED, STEPS_OF_LATER_ROUNDS, STEPS_OF_ROUND_0, Command, Outcome, Scene
from tests.kill.victim import Point

AWAY_SECONDS = 1.5


@pytest.fixture
def scene(stage: Stage) -> Iterator[Scene]:
    """A campaign on PostgreSQL."""
    with stage.scene("postgresql") as made:
        impatient(made)
        yield made


def impatient(scene: Scene) -> None:
    """Let jobs whose claim was not answered be free again after two seconds."""
    scene.write(worker={"lease_seconds": 2.0})


def crash_at(point: Point, scene: Scene, server: PostgresqlServer, *, away: float, action: str = "wait") -> Command:
    """Run to a point, crash the server there, let the run go on without it, start it again."""
    command = scene.run(point, action=action)
    scene.wait_until_reached(command)
    server.stop("immediate")
    try:
        scene.go()
        time.sleep(away)
    finally:
        server.start()
    return command


def survives(command: Command, scene: Scene, undisturbed: Outcome) -> None:
    """The run has waited, went on to its end, and nobody can tell afterwards."""
    code = command.wait()
    output = command.output()
    assert code in ENDED, output
    assert "Traceback" not in output
    assert "cannot be reached" in output
    assert scene.losses() == []
    assert scene.outcome() == undisturbed


@pytest.mark.integration
@pytest.mark.parametrize(
    ("point", "action"),
    [
        pytest.param(Point.of(1, "train", "inside"), "wait", id="while training"),
        pytest.param(Point.of(1, "label", "inside"), "wait", id="while labelling"),
        pytest.param(Point.of(1, "select", "commit"), "wait", id="before a commit"),
        pytest.param(Point.of(2, "label", "complete-committed"), "lose", id="after a commit that is not answered"),
    ],
)
def test_a_run_survives_a_crash_of_the_server(
    point: Point, action: str, scene: Scene, crashing_server: PostgresqlServer, undisturbed: Outcome
) -> None:
    survives(crash_at(point, scene, crashing_server, away=AWAY_SECONDS, action=action), scene, undisturbed)


_CRASHES = [
    (Point.of(index, step, place), action)
    for index, steps in ((0, STEPS_OF_ROUND_0), (1, STEPS_OF_LATER_ROUNDS), (2, STEPS_OF_LATER_ROUNDS))
    for step in steps
    for place, action in (
        ("before", "wait"),
        ("writing", "wait"),
        ("commit", "wait"),
        ("committed", "lose"),
        *((("claim-committed", "lose"), ("complete-commit", "wait")) if step == "label" else ()),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "action"), _CRASHES, ids=[f"{point}.{action}" for point, action in _CRASHES])
def test_a_run_survives_a_crash_of_the_server_at_any_step(
    point: Point, action: str, stage: Stage, crashing_server: PostgresqlServer, undisturbed: Outcome
) -> None:
    with stage.scene("postgresql", before_round=point.round) as scene:
        impatient(scene)
        survives(crash_at(point, scene, crashing_server, away=0.3, action=action), scene, undisturbed)


@pytest.mark.integration
def test_a_run_that_waited_in_vain_ends_with_one_clear_error_and_continues_later(
    scene: Scene, crashing_server: PostgresqlServer, undisturbed: Outcome
) -> None:
    command = scene.run(Point.of(1, "train", "inside"), action="wait", patience=0.5)
    scene.wait_until_reached(command)
    crashing_server.stop("immediate")
    try:
        scene.go()
        assert command.wait() == 1
    finally:
        crashing_server.start()
    output = command.output()
    assert "Traceback" not in output
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "the same command continues" in errors[0]
    scene.finish(at_most=1)
    assert scene.losses() == []
    assert scene.outcome() == undisturbed
