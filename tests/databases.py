"""Databases to test with: SQLite files, and a PostgreSQL server that the tests start and stop themselves.

A test that asks for ``url`` or ``empty_url`` runs on SQLite, and as an integration test on PostgreSQL too; so does one
that asks for ``backend``, as everything does that makes campaigns. ``databases`` makes more of them for one test.
"""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

if TYPE_CHECKING:
    from alflow.ledger._engine import Database

# alflow is imported inside the fixtures: it loads numpy, and the environment of the tests must be set before that


def _programs() -> Path | None:
    """The newest PostgreSQL server's programs on this machine."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    elsewhere = shutil.which("initdb")
    return Path(elsewhere).resolve().parent if elsewhere else None


def _owner() -> str:
    """A user that may run a server: PostgreSQL refuses root."""
    if os.getuid() != 0:
        return getpass.getuser()
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class PostgresqlServer:
    """A server of our own on a free loopback port, in a temporary folder.

    Attributes
    ----------
    url
        ``postgresql+psycopg://alflow@127.0.0.1:port``, without a database
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._home = Path(tempfile.mkdtemp(prefix="alflow-postgresql-"))
        self._prefix: list[str] = []
        if os.getuid() == 0:
            shutil.chown(self._home, _owner())
            self._prefix = ["runuser", "-u", _owner(), "--"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"postgresql+psycopg://alflow@127.0.0.1:{self._port}"
        data = str(self._home / "data")
        self._call("initdb", "-D", data, "-A", "trust", "-U", "alflow", "-E", "UTF8", "--locale=C", "--no-sync")

    def start(self) -> None:
        """Start and wait until it answers."""
        options = f"-c listen_addresses=127.0.0.1 -p {self._port} -c unix_socket_directories='' -c fsync=off"
        self._control("-w", "-o", options, "-l", str(self._home / "server.log"), "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop; ``immediate`` is as a crash of the server: the next start recovers from the log."""
        self._control("-w", "-m", mode, "stop")

    def remove(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self._home, ignore_errors=True)
        self._log.unlink(missing_ok=True)

    def restore(self, dump: Path, name: str) -> None:
        """Fill a database with what ``pg_dump`` wrote."""
        command = [str(self._programs / "pg_restore"), "-h", "127.0.0.1", "-p", str(self._port), "-U", "alflow"]
        subprocess.run([*command, "--exit-on-error", "-d", name, str(dump)], check=True)

    def administer(self, *statements: str) -> None:
        """Execute statements outside transactions, such as CREATE DATABASE."""
        engine = sqlalchemy.create_engine(f"{self.url}/postgres", isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                for statement in statements:
                    connection.execute(sqlalchemy.text(statement))
        finally:
            engine.dispose()

    @property
    def _log(self) -> Path:
        return self._home.parent / f"{self._home.name}.log"

    def _control(self, *arguments: str) -> None:
        self._call("pg_ctl", "-D", str(self._home / "data"), *arguments)

    def _call(self, program: str, *arguments: str) -> None:
        command = [*self._prefix, str(self._programs / program), *arguments]
        # a log file, not a pipe: the server keeps its parent's pipe open, and waiting for its end would take forever
        with self._log.open("a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd=self._home)


@contextmanager
def running_server() -> Iterator[PostgresqlServer]:
    """Start a server for the length of the block; skip the test where the machine has none."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server programs on this machine (Debian: apt install postgresql)")
    server = PostgresqlServer(programs)
    try:
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """The server that tests share; who wants to crash one starts another with :func:`running_server`."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_ledger(postgresql_server: PostgresqlServer) -> str:
    """A ledger that the tests use in turn; emptying one is ten times faster than making one."""
    from alflow.ledger import upgrade_ledger

    postgresql_server.administer("CREATE DATABASE ledger")
    upgrade_ledger(f"{postgresql_server.url}/ledger")
    return f"{postgresql_server.url}/ledger"


def _empty(server: PostgresqlServer, url: str) -> None:
    """Leave a ledger as new, whatever a test did to its rows or to its schema."""
    from alflow.ledger import upgrade_ledger
    from alflow.ledger._base import Base
    from alflow.ledger._migrate import HEAD

    tables = ", ".join(f'"{name}"' for name in Base.metadata.tables)
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.begin() as connection:
            found = set(sqlalchemy.inspect(connection).get_table_names())
            whole = {*Base.metadata.tables, "alembic_version"} == found
            version = connection.scalar(sqlalchemy.text("SELECT version_num FROM alembic_version"))
            if whole and version == HEAD:
                connection.execute(sqlalchemy.text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
                return
    finally:
        engine.dispose()
    server.administer("DROP DATABASE ledger WITH (FORCE)", "CREATE DATABASE ledger")
    upgrade_ledger(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the schema, from which each test's own is copied."""
    from alflow.ledger import upgrade_ledger

    path = tmp_path_factory.mktemp("template") / "template.db"
    upgrade_ledger(f"sqlite:///{path}")
    return path


BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]
#: for tests whose subject is one of the two
ON_SQLITE = pytest.mark.parametrize("backend", BACKENDS[:1], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """``sqlite`` or ``postgresql``: where the campaigns of a test keep their ledgers."""
    return str(request.param)


class Databases:
    """Databases for one test, as many as it wants."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._request = request
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._names: list[str] = []
        self._opened: list[Database] = []

    @property
    def server(self) -> PostgresqlServer:
        """The server that the tests share."""
        server: PostgresqlServer = self._request.getfixturevalue("postgresql_server")
        return server

    def empty(self, backend: str) -> str:
        """URL of a database that has no schema yet."""
        if backend == "sqlite":
            return f"sqlite:///{self._folder / f'{uuid.uuid4().hex}.db'}"
        return self._create("")

    def ledger(self, backend: str) -> str:
        """URL of a fresh ledger."""
        if backend == "sqlite":
            url = self.empty(backend)
            shutil.copy(self._request.getfixturevalue("sqlite_template"), url.removeprefix("sqlite:///"))
            return url
        return self.copy(self._request.getfixturevalue("postgresql_template"))

    def copy(self, url: str) -> str:
        """URL of a copy of a database of the server, on which nobody works."""
        return self._create(f"TEMPLATE {url.rpartition('/')[2]}")

    def restore(self, dump: Path) -> str:
        """URL of a database made of what ``pg_dump`` wrote."""
        url = self._create("")
        self.server.restore(dump, url.rpartition("/")[2])
        return url

    def _create(self, how: str) -> str:
        name = f"test_{uuid.uuid4().hex}"
        self.server.administer(f"CREATE DATABASE {name} {how}")
        if not self._names:
            self._monkeypatch.setenv("ALFLOW_LEDGER_FILES", str(self._folder / "files"))
            self._record_connections()
        self._names.append(name)
        return f"{self.server.url}/{name}"

    def _record_connections(self) -> None:
        # campaigns that a test leaves open as a killed run does: psycopg warns when such a connection is collected
        from alflow.ledger._engine import Database

        initialise = Database.__init__

        def recorded(database: Database, *arguments: Any) -> None:
            initialise(database, *arguments)
            self._opened.append(database)

        self._monkeypatch.setattr(Database, "__init__", recorded)

    def remove(self) -> None:
        """Close what is open and drop what was made."""
        for database in self._opened:
            database.close()
        if self._names:
            self.server.administer(*(f"DROP DATABASE {name} WITH (FORCE)" for name in self._names))


@pytest.fixture
def databases(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    """Make databases for one test."""
    made = Databases(request, tmp_path, monkeypatch)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: PostgresqlServer) -> str:
    """A ledger that nobody opens, from which others are copied."""
    from alflow.ledger import upgrade_ledger

    postgresql_server.administer("CREATE DATABASE template_ledger")
    upgrade_ledger(f"{postgresql_server.url}/template_ledger")
    return f"{postgresql_server.url}/template_ledger"


@pytest.fixture(params=BACKENDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database that has no schema yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    name = f"empty_{uuid.uuid4().hex}"
    server.administer(f"CREATE DATABASE {name}")
    yield f"{server.url}/{name}"
    server.administer(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a fresh ledger."""
    if request.param == "sqlite":
        path = tmp_path / "ledger.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server, shared = request.getfixturevalue("postgresql_server"), request.getfixturevalue("postgresql_ledger")
    monkeypatch.setenv("ALFLOW_LEDGER_FILES", str(tmp_path / "files"))
    yield shared
    _empty(server, shared)
