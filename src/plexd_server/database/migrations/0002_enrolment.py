"""Enrolled nodes, several tokens of each, their secrets, bootstrap tokens, and settings."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables; a node of 0001 keeps its token and has no secret key."""
    rows = _take_nodes()
    nodes, tokens = _create_nodes(), _create_tokens()
    _create_secrets()
    _create_bootstrap_tokens()
    _create_settings()
    for row in rows:
        node = {"node_id": row["node_id"], "created_at": row["created_at"]}
        about = {"mesh_ip": row["mesh_ip"], "hostname": "", "metadata": "{}"}
        op.bulk_insert(nodes, [{**node, **about}])
        op.bulk_insert(tokens, [{**node, "token_hash": row["token_hash"], "purpose": "node"}])


def _take_nodes() -> Sequence[sa.RowMapping]:
    """Read the rows of 0001 and drop their table, whose name is needed."""
    query = sa.text("SELECT node_id, mesh_ip, token_hash, created_at FROM nodes")
    typed = query.columns(created_at=sa.DateTime(timezone=True))
    rows = op.get_bind().execute(typed).mappings().all()
    op.drop_table("nodes")
    return rows


def _create_nodes() -> sa.Table:
    return op.create_table(
        "nodes",
        sa.Column("node_id", sa.String(63), primary_key=True),
        sa.Column("hostname", sa.String(253), nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("public_key", sa.String(44), unique=True),
        sa.Column("mesh_ip", sa.String(45), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary),
        _time("created_at", nullable=False),
        _time("enrolled_at"),
        _time("revoked_at"),
    )


def _create_tokens() -> sa.Table:
    tokens = op.create_table(
        "node_tokens",
        sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("node_id", sa.String(63), _node(), nullable=False),
        sa.Column("purpose", sa.String(8), nullable=False),
        _time("created_at", nullable=False),
        _time("expires_at"),
    )
    op.create_index("node_tokens_by_node", "node_tokens", ["node_id"])
    return tokens


def _create_secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column("node_id", sa.String(63), _node(), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        _time("set_at", nullable=False),
    )


def _create_bootstrap_tokens() -> None:
    op.create_table(
        "bootstrap_tokens",
        sa.Column("token_id", sa.String(16), primary_key=True),
        sa.Column("token_hash", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("node_id", sa.String(63), nullable=False),
        sa.Column("uses_left", sa.Integer, nullable=False),
        _time("created_at", nullable=False),
        _time("expires_at", nullable=False),
    )


def _create_settings() -> None:
    op.create_table(
        "settings",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )


def _node() -> sa.ForeignKey:
    return sa.ForeignKey("nodes.node_id", ondelete="CASCADE")


def _time(name: str, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)
