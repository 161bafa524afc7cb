"""A node, its address and the hash of its only token."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the only table."""
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.String(63), primary_key=True),
        sa.Column("mesh_ip", sa.String(45), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
