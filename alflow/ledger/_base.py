"""The base of all tables: the same types and names of constraints on every database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Double, LargeBinary, MetaData
from sqlalchemy.orm import DeclarativeBase

from alflow.ledger._types import Words

CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Names constraints alike on every database, so that migrations can address them."""

    metadata = MetaData(naming_convention=CONVENTION)
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy reads it from the class
        str: Words(),
        float: Double(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
        bytes: LargeBinary(),
    }
