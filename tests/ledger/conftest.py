"""Ledgers to test with: every repository test runs on SQLite, and as an integration test on PostgreSQL."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy

from alflow.ledger import (
    CampaignRow,
    CandidateState,
    JobRow,
    Ledger,
    NewCandidate,
    TheoryRow,
    open_ledger,
    upgrade_ledger,
)
from alflow.ledger._base import Base
from alflow.ledger._migrate import HEAD
from alflow.structures import Structure


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


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A server of our own on a free loopback port, gone after the session: ``postgresql://alflow@127.0.0.1:port``."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server programs on this machine (Debian: apt install postgresql)")
    home = Path(tempfile.mkdtemp(prefix="alflow-postgresql-"))
    prefix: list[str] = []
    if os.getuid() == 0:
        shutil.chown(home, _owner())
        prefix = ["runuser", "-u", _owner(), "--"]

    def call(program: str, *arguments: str) -> None:
        command = [*prefix, str(programs / program), *arguments]
        # a log file, not a pipe: the server keeps its parent's pipe open, and waiting for its end would take forever
        with (home.parent / f"{home.name}.log").open("a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd=home)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = str(home / "data")
    try:
        call("initdb", "-D", data, "-A", "trust", "-U", "alflow", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"
        call("pg_ctl", "-D", data, "-w", "-o", options, "-l", str(home / "server.log"), "start")
        try:
            yield f"postgresql+psycopg://alflow@127.0.0.1:{port}"
        finally:
            call("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)
        (home.parent / f"{home.name}.log").unlink(missing_ok=True)


def _administer(server: str, *statements: str) -> None:
    engine = sqlalchemy.create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(sqlalchemy.text(statement))
    finally:
        engine.dispose()


@pytest.fixture(scope="session")
def postgresql_ledger(postgresql_server: str) -> str:
    """A ledger that the tests use in turn; emptying one is ten times faster than making one."""
    _administer(postgresql_server, "CREATE DATABASE ledger")
    upgrade_ledger(f"{postgresql_server}/ledger")
    return f"{postgresql_server}/ledger"


def _empty(server: str, url: str) -> None:
    """Leave a ledger as new, whatever a test did to its rows or to its schema."""
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
    _administer(server, "DROP DATABASE ledger WITH (FORCE)", "CREATE DATABASE ledger")
    upgrade_ledger(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the schema, from which each test's own is copied."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    upgrade_ledger(f"sqlite:///{path}")
    return path


BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]


@pytest.fixture(params=BACKENDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database that has no schema yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server = request.getfixturevalue("postgresql_server")
    name = f"empty_{uuid.uuid4().hex}"
    _administer(server, f"CREATE DATABASE {name}")
    yield f"{server}/{name}"
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


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


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """A fresh open ledger."""
    with open_ledger(url) as opened:
        yield opened


@pytest.fixture
def campaign(ledger: Ledger) -> CampaignRow:
    return ledger.campaigns.create("Ni-Pt", "stable compounds", {"elements": ["Ni", "Pt"]}, 1)


@pytest.fixture
def theory(ledger: Ledger) -> TheoryRow:
    return ledger.theories.register("emt", "emt", {}, "ase 3.29 emt", {}, "e" * 64)


@pytest.fixture
def crystals() -> Callable[[int], list[Structure]]:
    """Different small crystals, the same ones for the same number."""
    return lambda n: [_crystal(i) for i in range(n)]


def _crystal(i: int) -> Structure:
    rng = np.random.default_rng(i)
    n_atoms = 1 + i % 4
    return Structure(
        cell=np.eye(3) * (2.5 + n_atoms),
        pbc=np.ones(3, dtype=bool),
        numbers=rng.choice([28, 78, 29], size=n_atoms),
        positions=rng.random((n_atoms, 3)) * 3 + np.arange(n_atoms)[:, None],
    )


@pytest.fixture
def add(ledger: Ledger, campaign: CampaignRow, crystals: Callable[[int], list[Structure]]) -> Callable[..., list[int]]:
    """Bring new candidates of a campaign into a state by the allowed way."""

    def add(n: int, to: CandidateState = CandidateState.POOLED, campaign_id: int | None = None) -> list[int]:
        structures = crystals(n)
        owner = campaign.id if campaign_id is None else campaign_id
        ids = ledger.pool.add(owner, None, [NewCandidate(structure=s, source="perturb") for s in structures])
        way = {
            CandidateState.PROPOSED: [],
            CandidateState.POOLED: [CandidateState.POOLED],
            CandidateState.SELECTED: [CandidateState.POOLED, CandidateState.SELECTED],
            CandidateState.QUEUED: [CandidateState.POOLED, CandidateState.SELECTED, CandidateState.QUEUED],
        }[to]
        for state in way:
            ledger.pool.transition(ids, state, f"made {state}")
        return ids

    return add


@pytest.fixture
def enqueue(ledger: Ledger, theory: TheoryRow) -> Callable[[Sequence[int]], list[JobRow]]:
    """Ask for labels of selected candidates."""

    def enqueue(ids: Sequence[int]) -> list[JobRow]:
        return [ledger.queue.enqueue(ledger.pool.get(i).structure_id, theory.id, i) for i in ids]

    return enqueue
