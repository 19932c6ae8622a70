"""All tables of the ledger.

Revision: 0001, the first
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "artifact",
        sa.Column("id", KEY, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact")),
        sa.UniqueConstraint("sha256", "kind", "name", name=op.f("uq_artifact_sha256_kind_name")),
    )
    op.create_table(
        "campaign",
        sa.Column("id", KEY, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("goal", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("config_version", sa.Integer(), nullable=False),
        sa.Column("config_hash", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.CheckConstraint("state IN ('active', 'waiting', 'stopped')", name=op.f("ck_campaign_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaign")),
        sa.UniqueConstraint("name", name=op.f("uq_campaign_name")),
    )
    op.create_table(
        "structure",
        sa.Column("id", KEY, nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("formula", sa.Text(), nullable=False),
        sa.Column("reduced_formula", sa.Text(), nullable=False),
        sa.Column("anonymous_formula", sa.Text(), nullable=False),
        sa.Column("chemical_system", sa.Text(), nullable=False),
        sa.Column("n_atoms", sa.Integer(), nullable=False),
        sa.Column("n_elements", sa.Integer(), nullable=False),
        sa.Column("n_periodic", sa.Integer(), nullable=False),
        sa.Column("volume", sa.Double(), nullable=False),
        sa.Column("charge", sa.Double(), nullable=False),
        sa.Column("space_group", sa.Integer(), nullable=True),
        sa.Column("geometry", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_structure")),
        sa.UniqueConstraint("content_hash", name=op.f("uq_structure_content_hash")),
    )
    op.create_index(op.f("ix_structure_chemical_system"), "structure", ["chemical_system"], unique=False)
    op.create_index(op.f("ix_structure_reduced_formula"), "structure", ["reduced_formula"], unique=False)
    op.create_table(
        "theory",
        sa.Column("id", KEY, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("labeler", sa.String(length=64), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("noise", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_theory")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_theory_fingerprint")),
        sa.UniqueConstraint("name", name=op.f("uq_theory_name")),
    )
    op.create_table(
        "fingerprint",
        sa.Column("structure_id", KEY, nullable=False),
        sa.Column("version", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("leading_0", sa.Double(), nullable=False),
        sa.Column("leading_1", sa.Double(), nullable=False),
        sa.Column("leading_2", sa.Double(), nullable=False),
        sa.Column("leading_3", sa.Double(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["structure_id"], ["structure.id"], name=op.f("fk_fingerprint_structure_id")),
        sa.PrimaryKeyConstraint("structure_id", "version", name=op.f("pk_fingerprint")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_fingerprint_version_bucket_leading_0"), "fingerprint", ["version", "bucket", "leading_0"], unique=False
    )
    op.create_table(
        "job",
        sa.Column("id", KEY, nullable=False),
        sa.Column("structure_id", KEY, nullable=False),
        sa.Column("theory_id", KEY, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("precedence", sa.Double(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("not_before", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("infrastructure_failures", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("error_kind", sa.String(length=32), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "state IN ('queued', 'leased', 'submitted', 'running', 'done', "
            "'retry_wait', 'failed', 'quarantined', 'cancelled')",
            name=op.f("ck_job_state"),
        ),
        sa.ForeignKeyConstraint(["structure_id"], ["structure.id"], name=op.f("fk_job_structure_id")),
        sa.ForeignKeyConstraint(["theory_id"], ["theory.id"], name=op.f("fk_job_theory_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("structure_id", "theory_id", name=op.f("uq_job_structure_id_theory_id")),
    )
    op.create_index(
        "ix_job_lease_until",
        "job",
        ["lease_until"],
        unique=False,
        sqlite_where=sa.text("lease_until IS NOT NULL"),
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.create_index(op.f("ix_job_state_precedence_id"), "job", ["state", "precedence", "id"], unique=False)
    op.create_table(
        "round",
        sa.Column("id", KEY, nullable=False),
        sa.Column("campaign_id", KEY, nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("finished", sa.Double(), nullable=True),
        sa.CheckConstraint("state IN ('open', 'closed')", name=op.f("ck_round_state")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_round_campaign_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_round")),
        sa.UniqueConstraint("campaign_id", "index", name=op.f("uq_round_campaign_id_index")),
    )
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
    op.create_table(
        "attempt",
        sa.Column("id", KEY, nullable=False),
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("pid_started", sa.BigInteger(), nullable=True),
        sa.Column("process_group", sa.Integer(), nullable=True),
        sa.Column("scheduler_id", sa.Text(), nullable=True),
        sa.Column("directory", sa.Text(), nullable=True),
        sa.Column("numerics", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("error_kind", sa.String(length=32), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("log_id", KEY, nullable=True),
        sa.Column("timings", sa.JSON(), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("finished", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "state IN ('leased', 'submitted', 'running', 'done', 'failed', 'lost', 'released')",
            name=op.f("ck_attempt_state"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_attempt_job_id")),
        sa.ForeignKeyConstraint(["log_id"], ["artifact.id"], name=op.f("fk_attempt_log_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempt")),
        sa.UniqueConstraint("job_id", "fence", name=op.f("uq_attempt_job_id_fence")),
    )
    op.create_table(
        "committee",
        sa.Column("id", KEY, nullable=False),
        sa.Column("round_id", KEY, nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("training", sa.JSON(), nullable=False),
        sa.Column("artifact_id", KEY, nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("calibration", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifact.id"], name=op.f("fk_committee_artifact_id")),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name=op.f("fk_committee_round_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_committee")),
        sa.UniqueConstraint("round_id", "artifact_id", name=op.f("uq_committee_round_id_artifact_id")),
    )
    op.create_table(
        "hull",
        sa.Column("id", KEY, nullable=False),
        sa.Column("round_id", KEY, nullable=False),
        sa.Column("entries", sa.JSON(), nullable=False),
        sa.Column("stable", sa.JSON(), nullable=False),
        sa.Column("spread", sa.JSON(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name=op.f("fk_hull_round_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hull")),
        sa.UniqueConstraint("round_id", name=op.f("uq_hull_round_id")),
    )
    op.create_table(
        "step",
        sa.Column("id", KEY, nullable=False),
        sa.Column("round_id", KEY, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("finished", sa.Double(), nullable=True),
        sa.CheckConstraint("state IN ('pending', 'running', 'finished')", name=op.f("ck_step_state")),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name=op.f("fk_step_round_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_step")),
        sa.UniqueConstraint("round_id", "name", name=op.f("uq_step_round_id_name")),
    )
    op.create_table(
        "candidate",
        sa.Column("id", KEY, nullable=False),
        sa.Column("campaign_id", KEY, nullable=False),
        sa.Column("structure_id", KEY, nullable=False),
        sa.Column("round_id", KEY, nullable=True),
        sa.Column("parent_id", KEY, nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("stream", sa.String(length=16), nullable=False),
        sa.Column("inclusion_probability", sa.Double(), nullable=True),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("duplicate_of", KEY, nullable=True),
        sa.Column("relation", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("deliberate", sa.Boolean(), nullable=False),
        sa.Column("committee_id", KEY, nullable=True),
        sa.Column("u", sa.Double(), nullable=True),
        sa.Column("energy", sa.Double(), nullable=True),
        sa.Column("energy_error", sa.Double(), nullable=True),
        sa.Column("force_error", sa.Double(), nullable=True),
        sa.Column("stress_error", sa.Double(), nullable=True),
        sa.Column("e_hull", sa.Double(), nullable=True),
        sa.Column("e_hull_error", sa.Double(), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "state IN ('proposed', 'rejected', 'duplicate', 'pooled', 'selected', "
            "'queued', 'labelled', 'failed', 'quarantined')",
            name=op.f("ck_candidate_state"),
        ),
        sa.CheckConstraint(
            "stream IN ('active', 'random', 'design', 'confirm', 'deliberate', 'imported', 'manual')",
            name=op.f("ck_candidate_stream"),
        ),
        sa.CheckConstraint("duplicate_of <> id", name=op.f("ck_candidate_not_its_own_duplicate")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_candidate_campaign_id")),
        sa.ForeignKeyConstraint(["committee_id"], ["committee.id"], name=op.f("fk_candidate_committee_id")),
        sa.ForeignKeyConstraint(["duplicate_of"], ["candidate.id"], name=op.f("fk_candidate_duplicate_of")),
        sa.ForeignKeyConstraint(["parent_id"], ["candidate.id"], name=op.f("fk_candidate_parent_id")),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name=op.f("fk_candidate_round_id")),
        sa.ForeignKeyConstraint(["structure_id"], ["structure.id"], name=op.f("fk_candidate_structure_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidate")),
        sa.UniqueConstraint("campaign_id", "structure_id", name=op.f("uq_candidate_campaign_id_structure_id")),
    )
    op.create_index(op.f("ix_candidate_campaign_id_state_u"), "candidate", ["campaign_id", "state", "u"], unique=False)
    op.create_index(
        "ix_candidate_duplicate_of",
        "candidate",
        ["duplicate_of"],
        unique=False,
        sqlite_where=sa.text("duplicate_of IS NOT NULL"),
        postgresql_where=sa.text("duplicate_of IS NOT NULL"),
    )
    op.create_index(op.f("ix_candidate_structure_id"), "candidate", ["structure_id"], unique=False)
    op.create_table(
        "label",
        sa.Column("id", KEY, nullable=False),
        sa.Column("structure_id", KEY, nullable=False),
        sa.Column("theory_id", KEY, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("quality", sa.String(length=16), nullable=False),
        sa.Column("energy", sa.Double(), nullable=False),
        sa.Column("properties", sa.LargeBinary(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("derived_from", KEY, nullable=True),
        sa.Column("isometry", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("supersedes", KEY, nullable=True),
        sa.Column("attempt_id", KEY, nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.CheckConstraint("kind IN ('computed', 'reused', 'imported')", name=op.f("ck_label_kind")),
        sa.CheckConstraint("quality IN ('accepted', 'superseded', 'rejected')", name=op.f("ck_label_quality")),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempt.id"], name=op.f("fk_label_attempt_id")),
        sa.ForeignKeyConstraint(["derived_from"], ["label.id"], name=op.f("fk_label_derived_from")),
        sa.ForeignKeyConstraint(["structure_id"], ["structure.id"], name=op.f("fk_label_structure_id")),
        sa.ForeignKeyConstraint(["supersedes"], ["label.id"], name=op.f("fk_label_supersedes")),
        sa.ForeignKeyConstraint(["theory_id"], ["theory.id"], name=op.f("fk_label_theory_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label")),
    )
    op.create_index(op.f("ix_label_theory_id"), "label", ["theory_id"], unique=False)
    op.create_index(
        "uq_label_accepted",
        "label",
        ["structure_id", "theory_id"],
        unique=True,
        sqlite_where=sa.text("quality = 'accepted'"),
        postgresql_where=sa.text("quality = 'accepted'"),
    )
    op.create_table(
        "committee_label",
        sa.Column("committee_id", KEY, nullable=False),
        sa.Column("label_id", KEY, nullable=False),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.Column("weights", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["committee_id"], ["committee.id"], name=op.f("fk_committee_label_committee_id")),
        sa.ForeignKeyConstraint(["label_id"], ["label.id"], name=op.f("fk_committee_label_label_id")),
        sa.PrimaryKeyConstraint("committee_id", "label_id", name=op.f("pk_committee_label")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "event",
        sa.Column("id", KEY, nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("campaign_id", KEY, nullable=True),
        sa.Column("candidate_id", KEY, nullable=True),
        sa.Column("job_id", KEY, nullable=True),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name=op.f("fk_event_campaign_id")),
        sa.ForeignKeyConstraint(["candidate_id"], ["candidate.id"], name=op.f("fk_event_candidate_id")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_event_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
    )
    op.create_index(op.f("ix_event_campaign_id_id"), "event", ["campaign_id", "id"], unique=False)
    op.create_index(
        "ix_event_candidate_id",
        "event",
        ["candidate_id"],
        unique=False,
        sqlite_where=sa.text("candidate_id IS NOT NULL"),
        postgresql_where=sa.text("candidate_id IS NOT NULL"),
    )
    op.create_table(
        "job_request",
        sa.Column("job_id", KEY, nullable=False),
        sa.Column("candidate_id", KEY, nullable=False),
        sa.Column("cancelled", sa.Double(), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["candidate_id"], ["candidate.id"], name=op.f("fk_job_request_candidate_id")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_request_job_id")),
        sa.PrimaryKeyConstraint("job_id", "candidate_id", name=op.f("pk_job_request")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_job_request_candidate_id"), "job_request", ["candidate_id"], unique=False)
    op.create_table(
        "score",
        sa.Column("id", KEY, nullable=False),
        sa.Column("round_id", KEY, nullable=False),
        sa.Column("committee_id", KEY, nullable=False),
        sa.Column("candidate_id", KEY, nullable=False),
        sa.Column("purpose", sa.String(length=64), nullable=False),
        sa.Column("u", sa.Double(), nullable=True),
        sa.Column("energy", sa.Double(), nullable=True),
        sa.Column("energy_spread", sa.Double(), nullable=True),
        sa.Column("force_spread", sa.Double(), nullable=True),
        sa.Column("stress_spread", sa.Double(), nullable=True),
        sa.Column("energy_error", sa.Double(), nullable=True),
        sa.Column("force_error", sa.Double(), nullable=True),
        sa.Column("stress_error", sa.Double(), nullable=True),
        sa.Column("e_hull", sa.Double(), nullable=True),
        sa.Column("e_hull_error", sa.Double(), nullable=True),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["candidate_id"], ["candidate.id"], name=op.f("fk_score_candidate_id")),
        sa.ForeignKeyConstraint(["committee_id"], ["committee.id"], name=op.f("fk_score_committee_id")),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name=op.f("fk_score_round_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_score")),
        sa.UniqueConstraint(
            "candidate_id",
            "round_id",
            "committee_id",
            "purpose",
            name=op.f("uq_score_candidate_id_round_id_committee_id_purpose"),
        ),
    )
    op.create_index(op.f("ix_score_round_id"), "score", ["round_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_score_round_id"), table_name="score")
    op.drop_table("score")
    op.drop_index(op.f("ix_job_request_candidate_id"), table_name="job_request")
    op.drop_table("job_request")
    op.drop_index(
        "ix_event_candidate_id",
        table_name="event",
        sqlite_where=sa.text("candidate_id IS NOT NULL"),
        postgresql_where=sa.text("candidate_id IS NOT NULL"),
    )
    op.drop_index(op.f("ix_event_campaign_id_id"), table_name="event")
    op.drop_table("event")
    op.drop_table("committee_label")
    op.drop_index(
        "uq_label_accepted",
        table_name="label",
        sqlite_where=sa.text("quality = 'accepted'"),
        postgresql_where=sa.text("quality = 'accepted'"),
    )
    op.drop_index(op.f("ix_label_theory_id"), table_name="label")
    op.drop_table("label")
    op.drop_index(op.f("ix_candidate_structure_id"), table_name="candidate")
    op.drop_index(
        "ix_candidate_duplicate_of",
        table_name="candidate",
        sqlite_where=sa.text("duplicate_of IS NOT NULL"),
        postgresql_where=sa.text("duplicate_of IS NOT NULL"),
    )
    op.drop_index(op.f("ix_candidate_campaign_id_state_u"), table_name="candidate")
    op.drop_table("candidate")
    op.drop_table("step")
    op.drop_table("hull")
    op.drop_table("committee")
    op.drop_table("attempt")
    op.drop_table("structure_element")
    op.drop_table("round")
    op.drop_index(op.f("ix_job_state_precedence_id"), table_name="job")
    op.drop_index(
        "ix_job_lease_until",
        table_name="job",
        sqlite_where=sa.text("lease_until IS NOT NULL"),
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.drop_table("job")
    op.drop_index(op.f("ix_fingerprint_version_bucket_leading_0"), table_name="fingerprint")
    op.drop_table("fingerprint")
    op.drop_table("theory")
    op.drop_index(op.f("ix_structure_reduced_formula"), table_name="structure")
    op.drop_index(op.f("ix_structure_chemical_system"), table_name="structure")
    op.drop_table("structure")
    op.drop_table("campaign")
    op.drop_table("artifact")
