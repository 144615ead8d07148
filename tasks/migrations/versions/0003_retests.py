"""What every test of a mix showed: the ledger of retests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the ledger; runs from before are not in it, their counts were not kept in the tables."""
    op.create_table(
        "retests",
        sa.Column("run_id", sa.String(80), nullable=False),
        sa.Column("product", sa.String(120), nullable=False),
        sa.Column("candidate_digest", sa.String(80), nullable=False),
        sa.Column("ended_at", sa.String(32), nullable=False),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("cases", sa.Integer, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("policy_digest", sa.String(80), nullable=False),
        sa.Column("excused_at", sa.String(32)),
        sa.Column("excused_by", sa.String(200)),
        sa.Column("excused_why", sa.Text),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("ix_retests_candidate_digest", "retests", ["candidate_digest"])
    op.execute("UPDATE meta SET value = '3' WHERE key = 'state_version'")
