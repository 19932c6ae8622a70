"""Element queries go through chemical systems, which are few, instead of a row per structure and element.

``structure_element`` becomes ``composition``, with rows per formula; candidates know their chemical system. On the way
the indexes go that nothing needs any more.

Revision: 0002, after 0001
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "chemical_system",
        sa.Column("id", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chemical_system")),
        sa.UniqueConstraint("name", name=op.f("uq_chemical_system_name")),
    )
    op.execute(
        "INSERT INTO chemical_system (name) SELECT chemical_system FROM structure "
        "GROUP BY chemical_system ORDER BY min(id)"
    )
    op.create_table(
        "composition",
        sa.Column("formula", sa.Text(), nullable=False),
        sa.Column("element", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("formula", "element", name=op.f("pk_composition")),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO composition (formula, element, count) SELECT one.formula, e.element, e.count "
        "FROM (SELECT formula, min(id) AS id FROM structure GROUP BY formula) AS one "
        "JOIN structure_element AS e ON e.structure_id = one.id"
    )
    op.drop_table("structure_element")
    op.drop_index(op.f("ix_structure_chemical_system"), table_name="structure")
    op.drop_index(op.f("ix_structure_reduced_formula"), table_name="structure")
    op.drop_index(op.f("ix_candidate_structure_id"), table_name="candidate")
    op.add_column("candidate", sa.Column("chemical_system_id", KEY, nullable=True))
    op.execute(
        "UPDATE candidate SET chemical_system_id = (SELECT s.id FROM chemical_system AS s JOIN structure AS g "
        "ON g.chemical_system = s.name WHERE g.id = candidate.structure_id)"
    )
    with op.batch_alter_table("candidate") as batch:
        batch.alter_column("chemical_system_id", existing_type=KEY, nullable=False)
        batch.create_foreign_key(
            op.f("fk_candidate_chemical_system_id"), "chemical_system", ["chemical_system_id"], ["id"]
        )
        batch.drop_constraint(op.f("uq_candidate_campaign_id_structure_id"), type_="unique")
        batch.create_unique_constraint(op.f("uq_candidate_structure_id_campaign_id"), ["structure_id", "campaign_id"])
    op.create_index(
        op.f("ix_candidate_chemical_system_id_campaign_id_state_u"),
        "candidate",
        ["chemical_system_id", "campaign_id", "state", "u"],
    )


def downgrade() -> None:
    op.create_table(
        "structure_element",
        sa.Column("element", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("structure_id", KEY, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("fraction", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["structure_id"], ["structure.id"], name=op.f("fk_structure_element_structure_id")),
        sa.PrimaryKeyConstraint("element", "structure_id", name=op.f("pk_structure_element")),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO structure_element (element, structure_id, count, fraction) "
        "SELECT c.element, s.id, c.count, CAST(c.count AS DOUBLE PRECISION) / s.n_atoms "
        "FROM structure AS s JOIN composition AS c ON c.formula = s.formula"
    )
    op.drop_index(op.f("ix_candidate_chemical_system_id_campaign_id_state_u"), table_name="candidate")
    with op.batch_alter_table("candidate") as batch:
        batch.drop_constraint(op.f("fk_candidate_chemical_system_id"), type_="foreignkey")
        batch.drop_constraint(op.f("uq_candidate_structure_id_campaign_id"), type_="unique")
        batch.create_unique_constraint(op.f("uq_candidate_campaign_id_structure_id"), ["campaign_id", "structure_id"])
        batch.drop_column("chemical_system_id")
    op.create_index(op.f("ix_candidate_structure_id"), "candidate", ["structure_id"])
    op.create_index(op.f("ix_structure_reduced_formula"), "structure", ["reduced_formula"])
    op.create_index(op.f("ix_structure_chemical_system"), "structure", ["chemical_system"])
    op.drop_table("composition")
    op.drop_table("chemical_system")
