"""Runs the migrations of the ledger: on a connection it is handed, or on the database named by ``-x url=…``."""

from __future__ import annotations

from alembic.util import CommandError
from sqlalchemy import Connection

from alembic import context
from alflow.ledger._engine import Database
from alflow.ledger._tables import Base


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite cannot alter most of a table in place
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    if context.is_offline_mode():
        raise CommandError("the ledger is migrated on a live database: leave --sql away")
    connection = context.config.attributes.get("connection")
    if connection is not None:
        migrate(connection)
        return
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise CommandError("name the ledger: python -m alembic -x url=sqlite:///campaign.db upgrade head")
    database = Database(url)
    try:
        database.use_write_ahead_log()
        with database.write() as connection:
            migrate(connection)
    finally:
        database.close()


main()
