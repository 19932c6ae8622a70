"""Labels of one theory may be declared to count as labels of another, with a reason; until then none do.

Revision: 0005, after 0004
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "theory_equation",
        sa.Column("id", KEY, nullable=False),
        sa.Column("theory_id", KEY, nullable=False),
        sa.Column("counts_as", KEY, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("withdrawn", sa.Double(), nullable=True),
        sa.CheckConstraint("theory_id <> counts_as", name=op.f("ck_theory_equation_two_theories")),
        sa.ForeignKeyConstraint(["theory_id"], ["theory.id"], name=op.f("fk_theory_equation_theory_id")),
        sa.ForeignKeyConstraint(["counts_as"], ["theory.id"], name=op.f("fk_theory_equation_counts_as")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_theory_equation")),
    )
    op.create_index(
        "uq_theory_equation_standing",
        "theory_equation",
        ["counts_as", "theory_id"],
        unique=True,
        sqlite_where=sa.text("withdrawn IS NULL"),
        postgresql_where=sa.text("withdrawn IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("uq_theory_equation_standing", table_name="theory_equation")
    op.drop_table("theory_equation")
