"""Candidates and scores hold the distance from the training data, the second signal beside the spread.

Revision: 0003, after 0002
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("candidate", "score"):
        op.add_column(table, sa.Column("distance", sa.Double(), nullable=True))


def downgrade() -> None:
    for table in ("score", "candidate"):
        op.drop_column(table, "distance")
