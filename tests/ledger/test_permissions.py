"""Ledgers that may not be written: they are read where SQLite can, and nobody locks their owner out by looking."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from alflow.errors import LedgerError
from alflow.ledger import open_ledger
from tests.permissions import run_held_back, unwritable

OPEN = "import sys; from alflow.ledger import *; ledger = open_ledger(sys.argv[1], create=len(sys.argv) > 2);"
READ = f"{OPEN} print(*(row.name for row in ledger.campaigns.list()))"
WRITE = f"{OPEN} ledger.events.add('note', 'hello')"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger that its owner has closed."""
    path = tmp_path / "shared folder 100%" / "a.db"
    path.parent.mkdir()
    with open_ledger(f"sqlite:///{path}") as ledger:
        ledger.campaigns.create("finished", "", {}, 1)
    assert [p.name for p in path.parent.iterdir()] == ["a.db"]
    return path


@pytest.fixture(params=["folder", "file", "both"])
def locked(request: pytest.FixtureRequest, path: Path) -> Iterator[Path]:
    """The same, where the folder, the file or both may not be written."""
    with unwritable(*{"folder": [path.parent], "file": [path], "both": [path.parent, path]}[request.param]):
        yield path


def test_a_ledger_that_nobody_may_write_can_be_read(locked: Path) -> None:
    done = run_held_back("-c", READ, f"sqlite:///{locked}")
    assert done.stdout == "finished\n", done.stderr
    assert [p.name for p in locked.parent.iterdir()] == ["a.db"]  # a reader's files would lock its owner out


def test_writing_it_is_refused_before_anything_is_made(locked: Path) -> None:
    done = run_held_back("-c", WRITE, f"sqlite:///{locked}")
    assert f"LedgerError: {locked.parent}" in done.stderr
    assert f"cannot be written, so the ledger {locked} can only be read" in done.stderr
    assert [p.name for p in locked.parent.iterdir()] == ["a.db"]


def test_what_somebody_is_writing_can_be_read(path: Path) -> None:
    with open_ledger(f"sqlite:///{path}") as ledger:
        ledger.campaigns.create("new", "", {}, 1)
        with unwritable(path.parent, *path.parent.glob("a.db*")):
            done = run_held_back("-c", READ, f"sqlite:///{path}")
        assert done.stdout == "finished new\n", done.stderr
        ledger.campaigns.create("newer", "", {}, 1)


def test_a_log_without_its_index_is_never_passed_over(path: Path, tmp_path: Path) -> None:
    """As a copy holds it, or a machine that lost its power."""
    copy = tmp_path / "copy" / "a.db"
    copy.parent.mkdir()
    with open_ledger(f"sqlite:///{path}") as ledger:
        ledger.campaigns.create("in the log", "", {}, 1)
        for name in ("a.db", "a.db-wal"):
            shutil.copy(path.with_name(name), copy.parent)
    with unwritable(copy.parent, *copy.parent.iterdir()):
        done = run_held_back("-c", READ, f"sqlite:///{copy}")
    assert "copy a.db, a.db-wal and a.db.files to a folder of your own" in done.stderr
    with open_ledger(f"sqlite:///{copy}") as ledger:
        assert [row.name for row in ledger.campaigns.list()] == ["finished", "in the log"]


def test_a_file_that_changes_while_it_is_read_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    with open_ledger(f"sqlite:///{path}") as ledger:
        assert [row.name for row in ledger.campaigns.list()] == ["finished"]
        monkeypatch.undo()
        with open_ledger(f"sqlite:///{path}") as owner:
            owner.campaigns.create("new", "", {}, 1)
        with pytest.raises(LedgerError, match="was written to while it was read: repeat the command"):
            ledger.campaigns.list()


def test_no_ledger_is_made_where_nobody_may_write(tmp_path: Path) -> None:
    path = tmp_path / "locked" / "a.db"
    path.parent.mkdir()
    with unwritable(path.parent):
        done = run_held_back("-c", READ, f"sqlite:///{path}", "create")
        assert f"LedgerError: the folder {path.parent} cannot be written" in done.stderr
        assert not list(path.parent.iterdir())


def test_a_file_that_nobody_may_read_is_named(path: Path) -> None:
    path.chmod(0)
    done = run_held_back("-c", READ, f"sqlite:///{path}")
    assert f"LedgerError: the ledger {path} cannot be read" in done.stderr


def test_a_check_tells_and_a_backup_is_a_way_out(locked: Path, tmp_path: Path) -> None:
    target = tmp_path / "own" / "b.db"
    code = "import sys; from alflow.ledger import *; print(check_ledger(sys.argv[1])); backup_ledger(*sys.argv[1:])"
    done = run_held_back("-c", code, f"sqlite:///{locked}", target)
    assert done.stdout.count("can only be read") == 1, done.stderr
    with open_ledger(f"sqlite:///{target}", create=False) as own:
        own.campaigns.create("mine", "", {}, 1)


def test_a_backup_where_nobody_may_write_is_refused(path: Path) -> None:
    code = "import sys; from alflow.ledger import *; backup_ledger(*sys.argv[1:])"
    with unwritable(path.parent):
        done = run_held_back("-c", code, f"sqlite:///{path}", path.with_name("b.db"))
    assert f"LedgerError: {path.with_name('b.db')}.partial cannot be written" in done.stderr
