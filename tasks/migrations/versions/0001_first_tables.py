"""The tables of imagegate 0.1: production, runs, money, journal and outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of state version 1."""
    op.create_table(
        "meta",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "mixes",
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("added_at", sa.String(32), nullable=False),
    )
    op.create_table(
        "production",
        sa.Column("product", sa.String(120), primary_key=True),
        sa.Column("mix_digest", sa.String(80), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("applied_epoch", sa.Integer, nullable=False),
        sa.Column("changed_at", sa.String(32), nullable=False),
    )
    op.create_table(
        "transitions",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("product", sa.String(120), nullable=False, index=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("from_digest", sa.String(80)),
        sa.Column("to_digest", sa.String(80), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("run_id", sa.String(80)),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_table(
        "freezes",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("product", sa.String(120), nullable=False, index=True),
        sa.Column("mix_digest", sa.String(80), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("run_id", sa.String(80)),
        sa.Column("from_at", sa.String(32), nullable=False),
        sa.Column("until_at", sa.String(32), nullable=False),
        sa.Column("released_at", sa.String(32)),
        sa.Column("released_by", sa.String(200)),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(80), primary_key=True),
        sa.Column("product", sa.String(120), nullable=False, index=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("verdict", sa.String(20)),
        sa.Column("candidate_digest", sa.String(80), nullable=False),
        sa.Column("baseline_digest", sa.String(80), nullable=False),
        sa.Column("started_at", sa.String(32), nullable=False),
        sa.Column("ended_at", sa.String(32)),
        sa.Column("host", sa.String(200), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("result", sa.Text),
    )
    op.create_table(
        "ledger",
        sa.Column("idempotency_key", sa.String(200), primary_key=True),
        sa.Column("run_id", sa.String(80), nullable=False, index=True),
        sa.Column("day", sa.String(10), nullable=False, index=True),
        sa.Column("arm", sa.String(20), nullable=False),
        sa.Column("case_id", sa.String(200), nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("reserved_microusd", sa.BigInteger, nullable=False),
        sa.Column("booked_microusd", sa.BigInteger),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_table(
        "spend_totals",
        sa.Column("scope", sa.String(120), primary_key=True),
        sa.Column("microusd", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "journal",
        sa.Column("run_id", sa.String(80), primary_key=True),
        sa.Column("arm", sa.String(20), primary_key=True),
        sa.Column("case_id", sa.String(200), primary_key=True),
        sa.Column("generation", sa.Text, nullable=False),
        sa.Column("findings", sa.Text),
    )
    op.create_table(
        "generation_cache",
        sa.Column("mix_digest", sa.String(80), primary_key=True),
        sa.Column("case_digest", sa.String(80), primary_key=True),
        sa.Column("seed", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("generation", sa.Text, nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("dedup_key", sa.String(200), nullable=False, unique=True),
        sa.Column("run_id", sa.String(80)),
        sa.Column("channel", sa.String(40), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("claimed_at", sa.String(32)),
        sa.Column("delivered_at", sa.String(32)),
        sa.Column("receipt", sa.Text),
    )
    op.execute("INSERT INTO meta (key, value) VALUES ('state_version', '1')")
