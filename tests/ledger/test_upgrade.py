"""An older ledger that is in use: its upgrade loses nothing, can be undone, and leaves a sound ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.data import chemical_symbols
from sqlalchemy import inspect, text
from typer.testing import CliRunner

from alembic import command
from alflow.errors import LedgerVersionError
from alflow.ledger import CandidateState, NewCandidate, WorkerIdentity, check_ledger, open_ledger, upgrade_ledger
from alflow.ledger._engine import Database
from alflow.ledger._migrate import HEAD, alembic_config
from alflow.structures import DuplicatePolicy, Fingerprint, Properties, Structure, fingerprint, probes
from tests.crystals import random_crystal
from tests.ledger.populated_0001 import TABLES, dump, populate


@pytest.fixture
def older(empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a populated ledger of the first schema."""
    files = tmp_path / "empty.db.files"
    monkeypatch.setenv("ALFLOW_LEDGER_FILES", str(files))
    populate(empty_url, files)
    return empty_url


@pytest.fixture
def database(older: str) -> Iterator[Database]:
    opened = Database(older)
    yield opened
    opened.close()


def rows(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    with database.read() as connection:
        return dump(connection)


def test_every_table_of_the_first_schema_has_rows(database: Database) -> None:
    with database.read() as connection:
        tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
    assert tables == set(TABLES)
    assert all(rows(database).values())
    with database.read() as connection:
        for table, (names, _) in TABLES.items():
            assert [c["name"] for c in inspect(connection).get_columns(table)] == names.split()


def test_nothing_is_lost(older: str, database: Database) -> None:
    before = rows(database)
    with pytest.raises(LedgerVersionError, match="alflow db upgrade"):
        open_ledger(older)
    assert upgrade_ledger(older) == ("0001", HEAD)
    after = rows(database)
    elements = before.pop("structure_element")
    assert after == before
    with database.read() as connection:
        of_structures = text(
            "SELECT c.element, s.id, c.count FROM structure AS s JOIN composition AS c ON c.formula = s.formula "
            "ORDER BY 1, 2"
        )
        assert [tuple(row) for row in connection.execute(of_structures)] == [row[:3] for row in elements]
        of_candidates = text(
            "SELECT c.id, y.name FROM candidate AS c JOIN chemical_system AS y ON y.id = c.chemical_system_id "
            "ORDER BY c.id"
        )
        names = {row[0]: row[5] for row in before["structure"]}
        assert [tuple(row) for row in connection.execute(of_candidates)] == [
            (row[0], names[row[2]]) for row in before["candidate"]
        ]
    with database.write() as connection:
        command.check(alembic_config(connection))
    assert check_ledger(older) == []


def test_it_is_one_transaction(older: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(database)
    upgrade = command.upgrade

    def upgrade_and_die(*arguments: Any) -> None:
        upgrade(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "upgrade", upgrade_and_die)
    with pytest.raises(KeyboardInterrupt):
        upgrade_ledger(older)
    monkeypatch.undo()
    assert rows(database) == before


def test_the_upgraded_ledger_is_used_on(older: str) -> None:
    upgrade_ledger(older)
    with open_ledger(older, create=False) as ledger:

        def found(selection: str, campaign: int = 1) -> list[int]:
            return [row.id for row in ledger.candidates(selection, campaign=campaign, sort="-u", limit=9)]

        assert found("Ni,Pt") == [4, 3, 5]
        assert found("Ni3,Pt,state=queued") == [4]
        assert found("Ni,Pt=0") == [1]
        assert found("Pt,state=pooled", campaign=2) == [8]
        assert found("reduced_formula=Ni3Pt") == [4, 5]
        assert [row.id for row in ledger.candidates("chemical_system=Ni-Pt")] == [3, 4, 5, 7, 8]
        row = ledger.pool.get(4)
        assert ledger.pool.find(1, row.content_hash) == row
        assert ledger.pool.structures([4])[0].formula == "Ni3Pt"
        assert "label 2 of theory emt" in str(ledger.why(1))
        moved = ledger.pool.structures([3])[0]
        again = ledger.pool.add(1, 2, [NewCandidate(structure=moved, source="perturb")])
        assert again == [3]
        new = Structure(cell=moved.cell, pbc=moved.pbc, numbers=np.array([29, 78]), positions=moved.positions)
        [added] = ledger.pool.add(1, 2, [NewCandidate(structure=new, source="perturb")])
        assert added == 9
        assert found("Cu,Pt") == [9]
        assert ledger.pool.transition([3, 9], CandidateState.POOLED, "passed the filters") == [9]
        [job] = ledger.queue.claim(WorkerIdentity.current(), limit=5)
        ledger.queue.complete(job.job_id, job.fence, Properties(energy=-22.0), {})
        assert ledger.equations.list(withdrawn=True) == []
        other = ledger.theories.register("other", "emt", {}, "ase 3.29 emt", {}, "f" * 64)
        assert ledger.labels.accepted(other.id) == []
        ledger.equations.declare(1, other.id, "for this test")
        assert [label.id for label in ledger.labels.accepted(other.id)] == [2, 3]
        assert ledger.pool.get(4).state == CandidateState.LABELLED
    assert check_ledger(older) == []


def test_fingerprints_can_be_searched(older: str, database: Database) -> None:
    upgrade_ledger(older)
    with database.read() as connection:
        [(bucket, *columns, blob)] = connection.exec_driver_sql(
            "SELECT bucket, probe_0, probe_1, probe_2, probe_3, vector FROM fingerprint"
        ).all()
        if database.is_sqlite:
            [made] = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'fingerprint'").one()
            assert made.rstrip().endswith("WITHOUT ROWID")
    mark = Fingerprint.from_bytes(blob)
    assert columns == probes(mark).tolist()
    with open_ledger(older, create=False) as ledger:
        assert mark.bucket == bucket
        assert ledger.pool.near(1, mark, DuplicatePolicy.identical()) == [(1, 1)]


_SPECIES = [("Cu",), ("Cu", "Au"), ("Cu", "Au", "O"), ("Cu", "Au", "Ni", "Pt"), tuple(chemical_symbols[1:10])]


def test_fingerprints_of_any_length_are_filled_in(older: str, database: Database) -> None:
    marks = {}
    for i, symbols in enumerate(_SPECIES):
        atoms = random_crystal(np.random.default_rng(i), 12, symbols)
        marks[i + 2] = fingerprint(Structure.from_atoms(atoms))
    with database.write() as connection:
        for structure_id, mark in marks.items():
            if structure_id > 5:  # the older ledger holds five structures
                connection.execute(
                    text(
                        "INSERT INTO structure (id, content_hash, formula, reduced_formula, anonymous_formula, "
                        "chemical_system, n_atoms, n_elements, n_periodic, volume, charge, space_group, geometry, "
                        "created) SELECT :new, 'new', formula, reduced_formula, anonymous_formula, chemical_system, "
                        "n_atoms, n_elements, n_periodic, volume, charge, space_group, geometry, created "
                        "FROM structure WHERE id = 1"
                    ),
                    {"new": structure_id},
                )
            connection.execute(
                text(
                    "INSERT INTO fingerprint (structure_id, version, bucket, leading_0, leading_1, leading_2, "
                    "leading_3, vector) VALUES (:i, 1, :bucket, 1, 1, 1, 1, :vector)"
                ),
                {"i": structure_id, "bucket": mark.bucket, "vector": mark.to_bytes()},
            )
    upgrade_ledger(older)
    with database.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT structure_id, probe_0, probe_1, probe_2, probe_3 FROM fingerprint WHERE structure_id > 1"
        )
        assert {i: columns for i, *columns in rows} == {i: probes(m).tolist() for i, m in marks.items()}


def test_the_command_upgrades(older: str, database: Database) -> None:
    from alflow.cli._app import app

    before = rows(database)
    done = CliRunner().invoke(app, ["db", "upgrade", "--ledger", older], prog_name="alflow")
    assert done.exit_code == 0, done.output
    assert f"schema {HEAD}" in done.output
    before.pop("structure_element")
    assert rows(database) == before


def test_it_can_be_undone(older: str, database: Database) -> None:
    before = rows(database)
    upgrade_ledger(older)
    database.enforce_foreign_keys = False
    with database.write() as connection:
        command.downgrade(alembic_config(connection), "0001")
    assert rows(database) == before
    database.enforce_foreign_keys = True
    assert upgrade_ledger(older) == ("0001", HEAD)
