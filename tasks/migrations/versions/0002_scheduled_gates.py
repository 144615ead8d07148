"""Drivers with heartbeats, approvals, incidents, threads of messages, schedules, budgets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add to the tables of state version 1; rows that are there stay as they are."""
    op.create_table(
        "alert_channels",
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failing_since", sa.String(32)),
        sa.Column("not_before", sa.String(32)),
        sa.Column("limited", sa.Boolean, server_default=sa.false(), nullable=False),
        sa.Column("last_error", sa.Text),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "alert_threads",
        sa.Column("thread", sa.String(200), nullable=False),
        sa.Column("channel", sa.String(80), nullable=False),
        sa.Column("ts", sa.String(40), nullable=False),
        sa.Column("opened_at", sa.String(32), nullable=False),
        sa.Column("updated_at", sa.String(32)),
        sa.PrimaryKeyConstraint("thread"),
    )
    op.create_table(
        "approvals",
        sa.Column("run_id", sa.String(80), nullable=False),
        sa.Column("product", sa.String(120), nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("asked_because", sa.Text, nullable=False),
        sa.Column("requester", sa.String(200), nullable=False),
        sa.Column("requested_at", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=False),
        sa.Column("decided_by", sa.String(200)),
        sa.Column("decided_at", sa.String(32)),
        sa.Column("decided_via", sa.String(20)),
        sa.Column("reason", sa.Text),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("rules", sa.Text, nullable=False),
        sa.Column("journal_id", sa.Integer, nullable=False),
        sa.Column("flow_run_id", sa.String(40)),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("ix_approvals_flow_run_id", "approvals", ["flow_run_id"])
    op.create_index("ix_approvals_product", "approvals", ["product"])
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "incidents",
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("product", sa.String(120)),
        sa.Column("severity", sa.String(12), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("opened_at", sa.String(32), nullable=False),
        sa.Column("last_at", sa.String(32), nullable=False),
        sa.Column("resolved_at", sa.String(32)),
        sa.Column("acknowledged_by", sa.String(200)),
        sa.Column("acknowledged_at", sa.String(32)),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "resumes",
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("product", sa.String(120)),
        sa.Column("cron", sa.String(120), nullable=False),
        sa.Column("timezone", sa.String(80), nullable=False),
        sa.Column("registered_at", sa.String(32), nullable=False),
        sa.Column("started_at", sa.String(32)),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "slack_clicks",
        sa.Column("click", sa.String(200), nullable=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("about", sa.Text, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("outcome", sa.Text),
        sa.PrimaryKeyConstraint("click"),
    )
    op.create_table(
        "spend_windows",
        sa.Column("who", sa.String(120), nullable=False),
        sa.Column("start_at", sa.String(32), nullable=False),
        sa.Column("end_at", sa.String(32), nullable=False),
        sa.Column("microusd", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("who", "start_at", "end_at"),
    )
    op.add_column("outbox", sa.Column("kind", sa.String(12), server_default="open", nullable=False))
    op.add_column("outbox", sa.Column("thread", sa.String(200)))
    op.add_column("outbox", sa.Column("product", sa.String(120)))
    op.add_column(
        "outbox", sa.Column("severity", sa.String(12), server_default="info", nullable=False)
    )
    op.add_column("outbox", sa.Column("not_before", sa.String(32)))
    op.add_column(
        "outbox", sa.Column("refusals", sa.Integer, server_default=sa.text("0"), nullable=False)
    )
    op.add_column(
        "outbox", sa.Column("topic", sa.String(80), server_default=sa.text("''"), nullable=False)
    )
    op.create_index("ix_outbox_thread", "outbox", ["thread"])
    op.add_column("runs", sa.Column("requester", sa.String(200)))
    op.add_column("runs", sa.Column("flow_run_id", sa.String(40)))
    op.add_column("runs", sa.Column("driver", sa.String(40)))
    op.add_column("runs", sa.Column("heartbeat_at", sa.String(32)))
    op.create_index("ix_runs_flow_run_id", "runs", ["flow_run_id"])
    op.execute("UPDATE meta SET value = '2' WHERE key = 'state_version'")
