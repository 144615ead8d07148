"""Canaries and their share of production, the watch after a release, drills of the rollback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables and columns; production that is there has no canary."""
    op.create_table(
        "canaries",
        sa.Column("canary_id", sa.String(80), nullable=False),
        sa.Column("product", sa.String(120), nullable=False),
        sa.Column("candidate_digest", sa.String(80), nullable=False),
        sa.Column("baseline_digest", sa.String(80), nullable=False),
        sa.Column("run_id", sa.String(80)),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("step_started_at", sa.String(32)),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("progress", sa.Text, nullable=False),
        sa.Column("control", sa.String(20)),
        sa.Column("control_by", sa.String(200)),
        sa.Column("control_reason", sa.Text),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("started_at", sa.String(32), nullable=False),
        sa.Column("ended_at", sa.String(32)),
        sa.Column("reason", sa.Text),
        sa.Column("driver", sa.String(40)),
        sa.Column("heartbeat_at", sa.String(32)),
        sa.Column("flow_run_id", sa.String(40)),
        sa.PrimaryKeyConstraint("canary_id"),
    )
    op.create_index("ix_canaries_product", "canaries", ["product"])
    op.create_table(
        "watches",
        sa.Column("product", sa.String(120), nullable=False),
        sa.Column("mix_digest", sa.String(80), nullable=False),
        sa.Column("policy_digest", sa.String(80), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("counted_until", sa.String(32)),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("since", sa.String(32), nullable=False),
        sa.Column("updated_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("product"),
    )
    op.create_table(
        "drills",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("product", sa.String(120), nullable=False),
        sa.Column("router", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("ok", sa.Boolean, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("steps", sa.Text, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_drills_product", "drills", ["product"])
    op.add_column("production", sa.Column("candidate_digest", sa.String(80)))
    op.add_column("production", sa.Column("candidate_weight", sa.Float))
    op.add_column("transitions", sa.Column("weight", sa.Float))
    op.add_column("transitions", sa.Column("canary_id", sa.String(80)))
    op.add_column("runs", sa.Column("journal_id", sa.Integer))
    op.execute("UPDATE meta SET value = '4' WHERE key = 'state_version'")
