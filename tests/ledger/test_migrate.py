from __future__ import annotations

import contextlib
import io
import multiprocessing
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, inspect, text

from alembic import command
from alflow.errors import LedgerVersionError, NotFoundError, UserError
from alflow.ledger import Ledger, check_ledger, open_ledger, upgrade_ledger
from alflow.ledger._base import Base
from alflow.ledger._engine import Database
from alflow.ledger._migrate import HEAD, alembic_config


def test_head_is_the_newest_revision(url: str) -> None:
    database = Database(url)
    with database.read() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
    database.close()
    assert scripts.get_heads() == [HEAD]


def test_migrations_and_models_are_the_same(url: str) -> None:
    database = Database(url)
    with database.write() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        command.check(alembic_config(connection))
    database.close()


def test_alembic_writes_where_the_caller_does(url: str) -> None:
    """Not to the stream that was stdout at its first import: that one may be closed by now."""
    database = Database(url)
    printed = io.StringIO()
    with database.write() as connection, contextlib.redirect_stdout(printed):
        command.check(alembic_config(connection))
    database.close()
    assert "No new upgrade operations" in printed.getvalue()


def test_check_constraints_and_partial_indexes_are_the_same(url: str) -> None:
    """What alembic does not compare: conditions."""
    database = Database(url)
    with database.read() as connection:
        inspector = inspect(connection)
        for name, table in Base.metadata.tables.items():
            models = {
                f"ck_{name}_{c.name}" if not str(c.name).startswith("ck_") else str(c.name)
                for c in table.constraints
                if isinstance(c, CheckConstraint)
            }
            assert {c["name"] for c in inspector.get_check_constraints(name)} == models
            for index in inspector.get_indexes(name):
                if "duplicates_constraint" in index:
                    continue
                options = index.get("dialect_options", {})
                where = next((str(v) for k, v in options.items() if k.endswith("_where")), "")
                model = next(i for i in table.indexes if i.name == index["name"])
                wanted = model.dialect_options[database.url.get_backend_name()]["where"]
                assert bool(where) == (wanted is not None), index["name"]
    database.close()


def _parts(sql: str) -> frozenset[str]:
    """A statement without what means nothing: the order of its constraints, quotes that renaming a table brings."""
    plain = " ".join(sql.replace('"', "").split()).replace(" WITHOUT ROWID", "").replace(" )", "")
    return frozenset(plain.split(", CONSTRAINT "))


def test_models_build_the_same_sqlite_schema(tmp_path: Path) -> None:
    def schema(path: Path) -> set[frozenset[str]]:
        with sqlite3.connect(path) as connection:
            rows = connection.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'"
            )
            statements = {_parts(sql) for (sql,) in rows}
        connection.close()
        return statements

    migrated, modelled = tmp_path / "migrated.db", tmp_path / "modelled.db"
    upgrade_ledger(f"sqlite:///{migrated}")
    database = Database(f"sqlite:///{modelled}")
    with database.write() as connection:
        Base.metadata.create_all(connection)
    database.close()
    assert schema(migrated) == schema(modelled)


def test_downgrade_leaves_nothing(url: str) -> None:
    database = Database(url)
    with database.write() as connection:
        command.downgrade(alembic_config(connection), "base")
    with database.read() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    database.close()


def test_an_empty_database_becomes_a_ledger(empty_url: str) -> None:
    with pytest.raises(NotFoundError, match="no ledger"):
        open_ledger(empty_url, create=False)
    assert upgrade_ledger(empty_url) == (None, HEAD)
    assert upgrade_ledger(empty_url) == (HEAD, HEAD)
    with open_ledger(empty_url, create=False) as ledger:
        assert ledger.campaigns.list() == []


def _open(url: str) -> None:
    open_ledger(url).close()


@pytest.mark.integration
def test_processes_that_create_at_once_make_one_ledger(empty_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open, args=(empty_url,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0]
    assert check_ledger(empty_url) == []


@pytest.mark.parametrize(("version", "remedy"), [("0000", "alflow db upgrade"), ("9999", "upgrade alflow")])
def test_another_version_is_refused_with_its_remedy(url: str, version: str, remedy: str) -> None:
    database = Database(url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version})
    database.close()
    with pytest.raises(LedgerVersionError, match=remedy):
        open_ledger(url)
    assert remedy in check_ledger(url)[0]


def test_a_foreign_database_is_left_alone(empty_url: str) -> None:
    database = Database(empty_url)
    with database.write() as connection:
        connection.execute(text("CREATE TABLE somebody_elses (id integer)"))
    for attempt in (open_ledger, upgrade_ledger):
        with pytest.raises(LedgerVersionError, match="somebody_elses"):
            attempt(empty_url)
    with database.read() as connection:
        assert inspect(connection).get_table_names() == ["somebody_elses"]
    database.close()


def test_an_interrupted_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'l.db'}"
    upgrade = command.upgrade

    def upgrade_and_die(*arguments: object) -> None:
        upgrade(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "upgrade", upgrade_and_die)
    with pytest.raises(KeyboardInterrupt):
        open_ledger(url)
    monkeypatch.undo()
    open_ledger(url).close()
    assert check_ledger(url) == []


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "campaign.db", "nonsense:///x"]
)
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(UserError) as caught:
        open_ledger(url)
    assert "secret" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no folder"):
        open_ledger(f"sqlite:///{tmp_path / 'nowhere' / 'l.db'}")


def test_passwords_stay_out_of_messages(tmp_path: Path) -> None:
    database = Database("postgresql://alflow:hunter2@127.0.0.1:1/ledger")
    ledger = Ledger(database, tmp_path)
    with pytest.raises(Exception, match="refused") as caught:
        ledger.now()
    assert "hunter2" not in f"{caught.value}{ledger!r}{ledger.url}"
    ledger.close()


@pytest.mark.integration
def test_alembic_runs_from_the_root(root: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'l.db'}"
    for arguments in (["upgrade", "head"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "alembic", "-x", f"url={url}", *arguments], cwd=root, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert check_ledger(url) == []


def test_the_migrations_folder_is_no_package(root: Path) -> None:
    """With an ``__init__.py``, ``python -m alembic`` in the root would import it instead of the library."""
    assert not list((root / "alembic").rglob("__init__.py"))
    assert (root / "alflow" / "migrations").is_symlink()


@pytest.mark.integration
def test_migrations_work_where_only_the_files_of_a_wheel_are(root: Path, tmp_path: Path) -> None:
    from setuptools import find_namespace_packages  # type: ignore[import-untyped]

    site = tmp_path / "site"
    for package in find_namespace_packages(str(root), include=["alflow*"]):
        source = root / package.replace(".", "/")
        target = site / package.replace(".", "/")
        target.mkdir(parents=True)
        for file in [*source.glob("*.py"), *source.glob("*.mako")]:
            (target / file.name).write_bytes(file.read_bytes())
    assert (site / "alflow" / "migrations" / "env.py").is_file()
    assert (site / "alflow" / "migrations" / "versions" / "0001_first_tables.py").is_file()
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import alflow.ledger as ledger\n"
        f"assert ledger.__file__.startswith({str(site)!r}), ledger.__file__\n"
        f"print(ledger.upgrade_ledger('sqlite:///{tmp_path / 'l.db'}'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert HEAD in done.stdout
