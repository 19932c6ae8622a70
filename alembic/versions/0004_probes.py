"""Fingerprints hold four of their distances as columns, and one index holds all that the duplicate check compares.

The distances are read from the stored vectors, whose layout is that of version 1: of s species the mean and then the
spread of s² k distances, then 2 s moments.

Revision: 0004, after 0003
"""

from __future__ import annotations

from collections.abc import Iterator

import msgpack
import numpy as np
import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PROBES = ("probe_0", "probe_1", "probe_2", "probe_3")
BATCH = 5000


def upgrade() -> None:
    op.drop_index(op.f("ix_fingerprint_version_bucket_leading_0"), table_name="fingerprint")
    for name in PROBES:
        op.add_column("fingerprint", sa.Column(name, sa.Double(), nullable=True))
    connection = op.get_bind()
    fill = sa.text(
        "UPDATE fingerprint SET probe_0 = :probe_0, probe_1 = :probe_1, probe_2 = :probe_2, probe_3 = :probe_3 "
        "WHERE structure_id = :structure_id AND version = :version"
    )
    for rows in _batches(connection):
        values = [
            {"structure_id": i, "version": v} | dict(zip(PROBES, _probes(blob), strict=True)) for i, v, blob in rows
        ]
        connection.execute(fill, values)
    # SQLite makes the table anew and does not know by itself that it has no row ids
    with op.batch_alter_table("fingerprint", table_kwargs={"sqlite_with_rowid": False}) as batch:
        for name in PROBES:
            batch.alter_column(name, existing_type=sa.Double(), nullable=False)
    op.create_index(
        "ix_fingerprint_near",
        "fingerprint",
        ["version", "bucket", "leading_0", "leading_2", *PROBES],
    )


def _batches(connection: sa.Connection) -> Iterator[list[tuple[int, int, bytes]]]:
    query = sa.text(
        "SELECT structure_id, version, vector FROM fingerprint "
        "WHERE (structure_id, version) > (:structure, :version) "
        "ORDER BY structure_id, version LIMIT :size"
    )
    structure, version = 0, 0
    while rows := list(
        connection.execute(query, {"structure": structure, "version": version, "size": BATCH}).tuples().all()
    ):
        yield rows
        structure, version, _ = rows[-1]


def _probes(blob: bytes) -> list[float]:
    vector = np.frombuffer(msgpack.unpackb(blob)["x"], dtype="<f4")
    shells = {s: max(3, 24 // s) for s in range(1, 120)}
    species = next(s for s, k in shells.items() if 2 * s * s * k + 2 * s >= len(vector))
    half, k = len(vector) // 2 - species, shells[species]
    places = [k // 2 - 1, half - k + k // 4, half - k + 3 * k // 4, half + k // 2 - 1]
    return [float(x) for x in vector[places]]


def downgrade() -> None:
    op.drop_index("ix_fingerprint_near", table_name="fingerprint")
    with op.batch_alter_table("fingerprint", table_kwargs={"sqlite_with_rowid": False}) as batch:
        for name in PROBES:
            batch.drop_column(name)
    op.create_index(op.f("ix_fingerprint_version_bucket_leading_0"), "fingerprint", ["version", "bucket", "leading_0"])
