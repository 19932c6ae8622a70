"""Scenes of a kill: a campaign on SQLite or on a PostgreSQL server of these tests' own, which they may crash."""

from __future__ import annotations

import multiprocessing
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.databases import PostgresqlServer, running_server
from tests.kill.scene import Outcome, Scene


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
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.kill.victim"])


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    return str(request.param)


@contextmanager
def new_scene(
    request: pytest.FixtureRequest, paths: pytest.TempPathFactory, database: str, *, prepared: bool
) -> Iterator[Scene]:
    """Make a campaign; end its processes and drop its database when the block ends."""
    directory = paths.mktemp("campaign")
    name = f"kill_{uuid.uuid4().hex}"
    if database == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), directory / "campaign.db")
        url = f"sqlite:///{directory / 'campaign.db'}"
    else:
        server: PostgresqlServer = request.getfixturevalue("crashing_server")
        server.administer(f"CREATE DATABASE {name} TEMPLATE {request.getfixturevalue('template')}")
        url = f"{server.url}/{name}"
    scene = Scene(directory=directory, url=url, prepared=prepared)
    scene.write()
    try:
        yield scene
    finally:
        scene.end_all()
        if database != "sqlite":
            server.administer(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Scene]:
    """A campaign whose commands are started as a shell would."""
    with new_scene(request, tmp_path_factory, database, prepared=False) as made:
        yield made


@pytest.fixture
def quick_scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, database: str
) -> Iterator[Scene]:
    """A campaign whose commands are forked from a prepared process."""
    with new_scene(request, tmp_path_factory, database, prepared=True) as made:
        yield made


@pytest.fixture(scope="session")
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What the campaign leaves when nobody touches it."""
    with new_scene(request, tmp_path_factory, "sqlite", prepared=False) as made:
        made.finish(at_most=1)
        assert made.losses() == []
        return made.outcome()
