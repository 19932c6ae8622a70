"""Scenes of a kill: a campaign on SQLite or on a PostgreSQL server of these tests' own, which they may crash."""

from __future__ import annotations

import multiprocessing
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.databases import PostgresqlServer, running_server
from tests.kill.labelling import Bench
from tests.kill.scene import ROUNDS, Outcome, Scene


@pytest.fixture(scope="session")
def crashing_server() -> Iterator[PostgresqlServer]:
    """A server for these tests alone."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def template(crashing_server: PostgresqlServer) -> str:
    """Name of a database with the schema, from which others are copied in a moment."""
    from alflow.ledger import upgrade_ledger

    crashing_server.administer("CREATE DATABASE template_ledger")
    upgrade_ledger(f"{crashing_server.url}/template_ledger")
    return "template_ledger"


@pytest.fixture(scope="session", autouse=True)
def _prepared_process() -> None:
    """Let commands be forked from a process that has imported everything."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.kill.victim", "tests.kill.labelling"])


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    return str(request.param)


class Stage:
    """Makes scenes: the campaign as it stands at the beginning, or before a later round of an undisturbed run.

    Beginning at a later round spares a kill in that round what has been killed elsewhere.
    """

    def __init__(self, request: pytest.FixtureRequest, paths: pytest.TempPathFactory) -> None:
        self._request, self._paths = request, paths
        self._kept: dict[tuple[str, int], Scene] = {}

    @contextmanager
    def scene(self, database: str, *, before_round: int = 0, prepared: bool = True) -> Iterator[Scene]:
        """Make a scene; end its processes and drop its database when the block ends."""
        if before_round > 0 and (database, before_round) not in self._kept:
            self._keep_rounds(database)
        made = self._copy(database, self._kept.get((database, before_round)), prepared=prepared)
        try:
            yield made
        finally:
            made.end_all()
            if database != "sqlite":
                self._server.administer(f"DROP DATABASE {made.name} WITH (FORCE)")

    def _keep_rounds(self, database: str) -> None:
        with self.scene(database) as made:
            for index in range(1, ROUNDS):
                command = made.run_rounds(1)
                assert command.wait() == 0, command.output()
                self._kept[database, index] = self._copy(database, made, prepared=True)

    def _copy(self, database: str, old: Scene | None, *, prepared: bool) -> Scene:
        directory = self._paths.mktemp("campaign")
        name = f"kill_{uuid.uuid4().hex}"
        if old is not None:
            shutil.copytree(old.directory, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.log"))
        if database == "sqlite":
            url = f"sqlite:///{directory / 'campaign.db'}"
            if old is None:
                shutil.copy(self._request.getfixturevalue("sqlite_template"), directory / "campaign.db")
        else:
            url = f"{self._server.url}/{name}"
            template = self._request.getfixturevalue("template") if old is None else old.name
            self._server.administer(
                # the command has ended, its connections may take a moment longer
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{template}'",
                f"CREATE DATABASE {name} TEMPLATE {template}",
                # a copied sequence has numbers in hand that the log does not know of: a crash would give them out again
                "CHECKPOINT",
            )
        scene = Scene(directory=directory, url=url, prepared=prepared)
        scene.write()
        return scene

    @property
    def _server(self) -> PostgresqlServer:
        server: PostgresqlServer = self._request.getfixturevalue("crashing_server")
        return server


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Where scenes come from."""
    return Stage(request, tmp_path_factory)


@pytest.fixture
def scene(stage: Stage, database: str) -> Iterator[Scene]:
    """A campaign whose commands are started as a shell would."""
    with stage.scene(database, prepared=False) as made:
        yield made


@pytest.fixture
def quick_scene(stage: Stage, database: str) -> Iterator[Scene]:
    """A campaign whose commands are forked from a prepared process."""
    with stage.scene(database) as made:
        yield made


@pytest.fixture
def bench(quick_scene: Scene) -> Bench:
    """Jobs without a campaign around them, and the processes that label them."""
    return Bench(scene=quick_scene)


@pytest.fixture(scope="session")
def undisturbed(stage: Stage) -> Outcome:
    """What the campaign leaves when nobody touches it."""
    with stage.scene("sqlite", prepared=False) as made:
        made.finish(at_most=1)
        assert made.losses() == []
        return made.outcome()
