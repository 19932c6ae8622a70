"""The ledger: one database with its directory of files, and the rooms of its repository."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import func, select

from alflow.errors import NotFoundError
from alflow.ledger._artifacts import Artifacts
from alflow.ledger._base import Base
from alflow.ledger._campaigns import Campaigns
from alflow.ledger._check import find_problems
from alflow.ledger._columns import CandidateColumn
from alflow.ledger._committees import Committees
from alflow.ledger._engine import Database, now
from alflow.ledger._equations import Equations
from alflow.ledger._events import Events
from alflow.ledger._hulls import Hulls
from alflow.ledger._labels import Labels
from alflow.ledger._migrate import HEAD, check_version, create_or_upgrade, exists
from alflow.ledger._pool import Pool
from alflow.ledger._queue import Queue
from alflow.ledger._rounds import Rounds
from alflow.ledger._rows import CandidateRow, Why, iso
from alflow.ledger._search import search
from alflow.ledger._theories import Theories
from alflow.ledger._why import explain

_FILES_VARIABLE = "ALFLOW_LEDGER_FILES"


class Ledger:
    """An open ledger. Use it as a context manager, or call :meth:`close`.

    Every method is a transaction of its own; inside ``with ledger.write():`` the calls of the same thread join one
    transaction, which takes effect as a whole or not at all.

    Attributes
    ----------
    campaigns, rounds, pool, theories, equations, labels, queue, committees, artifacts, hulls, events
        the repository, by subject
    """

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._directory = directory
        self.campaigns = Campaigns(database)
        self.rounds = Rounds(database)
        self.pool = Pool(database)
        self.theories = Theories(database)
        self.equations = Equations(database)
        self.labels = Labels(database)
        self.queue = Queue(database)
        self.committees = Committees(database)
        self.artifacts = Artifacts(database, directory)
        self.hulls = Hulls(database)
        self.events = Events(database)

    @property
    def url(self) -> str:
        """The database URL, without its password."""
        return self._database.shown_url

    @property
    def directory(self) -> Path:
        """Where artifacts lie."""
        return self._directory

    @property
    def schema_version(self) -> str:
        """Revision of the schema."""
        return HEAD

    @contextmanager
    def write(self) -> Iterator[None]:
        """Join everything this thread does in the block into one transaction (SQLite: BEGIN IMMEDIATE)."""
        with self._database.write():
            yield

    @contextmanager
    def read(self) -> Iterator[None]:
        """Let the reads of this thread in the block share one connection (SQLite: one snapshot)."""
        with self._database.read():
            yield

    def now(self) -> str:
        """The database's time, UTC in ISO 8601."""
        with self._database.read() as connection:
            return iso(now(connection))

    def seconds_since(self, time: str) -> float:
        """Seconds that passed since a time taken from the ledger, by the database's clock."""
        return (datetime.fromisoformat(self.now()) - datetime.fromisoformat(time)).total_seconds()

    def candidates(
        self,
        selection: str = "",
        *,
        campaign: int | str | None = None,
        sort: str | CandidateColumn | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[CandidateRow]:
        """Candidates that match a selection in the syntax of ASE's databases, e.g. ``Ni,Pt,u>1,state=pooled``.

        Parameters
        ----------
        selection
            comma-separated conditions that must all hold: an element or formula (``Ni``, ``Cu3``: at least so many
            atoms), ``Cu>2``, ``formula=Ni3Pt``, a column compared with a value (``id=3``, ``0.5<u<2``), a column alone
            (it has a value; ``pinned``: it is set), ``-column`` (it has none)
        campaign
            id or name; None: all campaigns
        sort
            a column, with a leading minus for descending; unknown values come last. Without it: by id
        limit, offset
            at most so many, after so many

        Raises
        ------
        SelectionError
            naming the part that is wrong, its position and the nearest column
        """
        with self._database.read() as connection:
            campaign_id = None if campaign is None else self.campaigns.get(campaign).id
            return search(connection, selection, campaign_id=campaign_id, sort=sort, limit=limit, offset=offset)

    def why(self, candidate_id: int) -> Why:
        """Tell why a candidate was, or was not, labelled: from the ledger alone.

        Raises
        ------
        NotFoundError
            for an unknown candidate
        """
        with self._database.read() as connection:
            return explain(connection, candidate_id)

    def check(self) -> list[str]:
        """What is wrong with the ledger, one sentence with its remedy per problem; empty for a sound one."""
        return find_problems(self._database, self._directory)

    def stats(self) -> Mapping[str, Any]:
        """Rows per table, bytes of the database and of its files, version of the schema."""
        with self._database.read() as connection:
            rows = {
                name: connection.scalar(select(func.count()).select_from(table))
                for name, table in sorted(Base.metadata.tables.items())
            }
            path = self._database.path
            if path is not None:
                parts = [path, path.with_name(f"{path.name}-wal")]
                size = sum(p.stat().st_size for p in parts if p.exists())
            else:
                size = int(connection.scalar(select(func.pg_database_size(func.current_database()))) or 0)
        files = [p for p in self._directory.rglob("*") if p.is_file()]
        return {
            "url": self.url,
            "schema_version": self.schema_version,
            "rows": rows,
            "database_bytes": size,
            "directory": str(self._directory),
            "files": len(files),
            "file_bytes": sum(p.stat().st_size for p in files),
        }

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({self.url})"


def files_directory(database: Database) -> Path:
    """Where the artifacts of a database lie.

    Beside a SQLite file: ``<file>.files``. For PostgreSQL: the folder named by ``ALFLOW_LEDGER_FILES``, which all
    machines must share, else ``<database>.files`` in the working directory.
    """
    path = database.path
    if path is not None:
        return path.with_name(f"{path.name}.files")
    named = os.environ.get(_FILES_VARIABLE)
    return Path(named).absolute() if named else Path.cwd() / f"{database.url.database}.files"


def open_ledger(url: str, *, create: bool = True, directory: Path | str | None = None) -> Ledger:
    """Open a ledger.

    Parameters
    ----------
    url
        ``sqlite:///campaign.db`` or ``postgresql+psycopg://user@host/name``
    create
        make a ledger of a database that does not exist or is empty
    directory
        where artifacts lie; by default beside the database, see the guide to operations

    Raises
    ------
    NotFoundError
        if there is no ledger and ``create`` is False
    LedgerVersionError
        if the schema is older (``alflow db upgrade`` helps) or newer, or the database is not alflow's
    """
    database = Database(url)
    try:
        _make_ready(database, create=create)
    except BaseException:
        database.close()
        raise
    return Ledger(database, Path(directory).absolute() if directory is not None else files_directory(database))


def _make_ready(database: Database, *, create: bool) -> None:
    if exists(database):
        check_version(database)
    elif create:
        create_or_upgrade(database)
    else:
        raise NotFoundError(f"there is no ledger at {database.shown_url}; `alflow run CAMPAIGN.yaml` creates it")


def upgrade_ledger(url: str) -> tuple[str | None, str]:
    """Bring a ledger to this alflow's schema, or make one; return the versions before and after."""
    database = Database(url)
    try:
        return create_or_upgrade(database)
    finally:
        database.close()
