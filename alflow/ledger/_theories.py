"""Theories: a labeler plus every setting that changes the physics."""

from __future__ import annotations

import builtins
import difflib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, or_, select, update

from alflow.errors import NotFoundError, TheoryError
from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, insert_or_ignore, table_columns
from alflow.ledger._events import record
from alflow.ledger._rows import TheoryRow, iso
from alflow.ledger._states import LabelQuality
from alflow.ledger._types import AnyRow, plain

_PREFIX = 4
"""Fewer characters of a fingerprint are taken for a mistyped name."""


def theory_row(row: AnyRow) -> TheoryRow:
    """Make the public row."""
    return TheoryRow(
        id=row.id,
        name=row.name,
        labeler=row.labeler,
        settings=row.settings,
        code=row.code,
        files=row.files,
        fingerprint=row.fingerprint,
        noise=row.noise,
        created=iso(row.created),
    )


def theory_name(row: AnyRow | TheoryRow) -> str:
    """The name of a theory, or where it has none the beginning of its fingerprint."""
    return str(row.name or row.fingerprint[:12])


def select_theory(connection: Connection, key: int | str) -> AnyRow:
    """The theory of that id, name or fingerprint; raises NotFoundError with the nearest names."""
    query = select(*table_columns(t.Theory))
    if isinstance(key, int):
        query = query.where(t.Theory.id == key)
    else:
        query = query.where(or_(t.Theory.name == key, t.Theory.fingerprint == key))
    row = connection.execute(query).first()
    if row is None:
        names = [name for name in connection.scalars(select(t.Theory.name)) if name]
        near = difflib.get_close_matches(str(key), names, n=3) or sorted(names)[:5]
        known = f"; there is {', '.join(near)}" if near else ""
        raise NotFoundError(f"no theory {key!r} in the ledger{known}; `alflow theory ls` shows all of them")
    return row


class Theories:
    """The theories of a ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(
        self,
        name: str | None,
        labeler: str,
        settings: Mapping[str, Any],
        code: str,
        files: Mapping[str, str],
        fingerprint: str,
    ) -> TheoryRow:
        """The theory of that fingerprint, added if it is new; a nameless one takes the first name it is given.

        Raises
        ------
        TheoryError
            if the name stands for another theory already, or the theory has another name
        """
        with self._database.read() as connection:
            known = connection.execute(
                select(*table_columns(t.Theory)).where(t.Theory.fingerprint == fingerprint)
            ).first()
        if known is not None and name in {None, known.name}:
            return theory_row(known)  # who only looks may not be allowed to write
        with self._database.write() as connection:
            namesake = (
                None
                if name is None
                else connection.execute(
                    select(t.Theory.id, t.Theory.fingerprint, t.Theory.code).where(t.Theory.name == name)
                ).first()
            )
            if namesake is not None and namesake.fingerprint != fingerprint:
                raise TheoryError(
                    f"theory {name!r} is in the ledger with other settings, files or code ({namesake.code}; now "
                    f"{code}), and labels of two theories never mix: restore them, or give the changed theory another "
                    "name (`theory: name:`)"
                )
            new = {
                "name": name,
                "labeler": labeler,
                "settings": plain(settings),
                "code": code,
                "files": plain(files),
                "fingerprint": fingerprint,
            }
            added = connection.execute(insert_or_ignore(connection, t.Theory).returning(t.Theory.id), new).first()
            row = select_theory(connection, fingerprint)
            if added is not None:
                record(connection, "theory", f"theory {name or fingerprint[:12]} ({labeler}, {code}) was registered")
            elif name is not None and row.name is None:
                connection.execute(update(t.Theory).where(t.Theory.id == row.id).values(name=name))
                row = select_theory(connection, fingerprint)
            elif name is not None and row.name != name:
                raise TheoryError(
                    f"these settings are in the ledger as theory {row.name!r}; use that name instead of {name!r}"
                )
            return theory_row(row)

    def get(self, key: int | str) -> TheoryRow:
        """The theory of that id, name or fingerprint; raises NotFoundError."""
        with self._database.read() as connection:
            return theory_row(select_theory(connection, key))

    def find(self, key: str) -> TheoryRow:
        """The theory of that name or id, or the only one whose fingerprint begins so, as people write it.

        Raises
        ------
        NotFoundError
            if there is none
        TheoryError
            if the fingerprints of several begin so
        """
        with self._database.read() as connection:
            rows = [theory_row(row) for row in connection.execute(select(*table_columns(t.Theory)))]
            exact = [row for row in rows if row.name == key] or [row for row in rows if str(row.id) == key]
            found = exact or [row for row in rows if len(key) >= _PREFIX and row.fingerprint.startswith(key.lower())]
            if len(found) > 1:
                names = ", ".join(f"{row.id} ({theory_name(row)})" for row in found)
                raise TheoryError(f"several theories' fingerprints begin with {key!r}: choose one of {names} by its id")
            return found[0] if found else theory_row(select_theory(connection, key))

    def label_counts(self) -> dict[int, int]:
        """Number of accepted labels of every theory that has one, by its id."""
        query = (
            select(t.Label.theory_id, func.count())
            .where(t.Label.quality == LabelQuality.ACCEPTED)
            .group_by(t.Label.theory_id)
        )
        with self._database.read() as connection:
            return dict(connection.execute(query).tuples().all())

    def list(self) -> builtins.list[TheoryRow]:
        """All theories in order of registration."""
        with self._database.read() as connection:
            rows = connection.execute(select(*table_columns(t.Theory)).order_by(t.Theory.id))
            return [theory_row(row) for row in rows]

    def set_noise(self, theory_id: int, noise: Mapping[str, Any]) -> TheoryRow:
        """Store the measured noise of a theory: the same crystal in other cells and orientations."""
        with self._database.write() as connection:
            select_theory(connection, theory_id)
            connection.execute(update(t.Theory).where(t.Theory.id == theory_id).values(noise=plain(noise)))
            return theory_row(select_theory(connection, theory_id))
