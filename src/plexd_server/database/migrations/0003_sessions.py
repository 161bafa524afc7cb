"""Sessions of browsers, and the ids of nodes that are gone.

Mesh addresses with a zone (``fd00::2%x``) are removed: they were another spelling of an address
that may be another node's, and every agent would refuse them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make both tables."""
    op.create_table("former_nodes", sa.Column("node_id", sa.String(63), primary_key=True))
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("account", sa.String(63), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
    )
    nodes = sa.table("nodes", sa.column("mesh_ip"))
    has_zone = nodes.c.mesh_ip.contains("%", autoescape=True)
    op.execute(nodes.update().where(has_zone).values(mesh_ip=""))
