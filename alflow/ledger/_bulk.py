"""Many rows at once, spoken to the drivers: SQLAlchemy's handling of a row costs more than the database's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from alflow.ledger._base import Base


def bulk_insert(
    connection: Connection, table: type[Base], columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> int:
    """INSERT many rows of plain values, leaving existing ones as they are; return how many were added.

    JSON comes as text, so :func:`~alflow.ledger._types.to_json` has been called, and every column without a default of
    the database is given. The rows should be new: on PostgreSQL those that are not make the others slow.
    """
    if not rows:
        return 0
    name = table.__tablename__
    unknown = set(columns) - set(table.__table__.columns.keys())
    if unknown:
        raise ValueError(f"table {name} has no columns {sorted(unknown)}")
    quoted = ", ".join(f'"{column}"' for column in columns)
    if connection.dialect.name != "sqlite" and _copied(connection, f'COPY "{name}" ({quoted}) FROM STDIN', rows):
        return len(rows)
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    marks = ", ".join([mark] * len(columns))
    statement = f'INSERT INTO "{name}" ({quoted}) VALUES ({marks}) ON CONFLICT DO NOTHING'  # noqa: S608  our own names
    return int(connection.exec_driver_sql(statement, list(map(tuple, rows))).rowcount)


def _copied(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> bool:
    """COPY, five times faster than INSERT; False, with nothing done, where one of the rows exists already."""
    dialect = connection.dialect.loaded_dbapi
    savepoint = connection.begin_nested()
    try:
        with connection.connection.cursor() as cursor, cursor.copy(statement) as copy:  # type: ignore[attr-defined]
            for row in rows:
                copy.write_row(row)
    except dialect.IntegrityError:
        savepoint.rollback()
        return False
    except dialect.Error as error:
        raise DBAPIError.instance(statement, None, error, dialect.Error, dialect=connection.dialect) from error
    savepoint.commit()
    return True


def allocate_ids(connection: Connection, table: type[Base], count: int) -> Sequence[int]:
    """Reserve ids for a bulk insert, so that it needs no RETURNING.

    SQLite: inside BEGIN IMMEDIATE nobody else numbers rows, and rows are never deleted. PostgreSQL: from the sequence.
    """
    name = table.__tablename__
    if connection.dialect.name == "sqlite":
        top = connection.exec_driver_sql(f'SELECT coalesce(max(id), 0) FROM "{name}"').scalar_one()  # noqa: S608
        return range(top + 1, top + 1 + count)
    rows = connection.execute(
        select(func.nextval(f'"{name}_id_seq"')).select_from(func.generate_series(1, count).alias())
    )
    return [int(i) for i in rows.scalars()]
