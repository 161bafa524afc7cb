"""The tables, as all migrations together make them. Nothing here is particular to SQLite."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

METADATA = sa.MetaData()


def _time(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


# ``sealed_key`` is the node's secret key under the master key; a node without a
# stored one (created by version 1, or known for its /ingest tokens only) has none.
NODES = sa.Table(
    "nodes",
    METADATA,
    sa.Column("node_id", sa.String(63), primary_key=True),
    sa.Column("hostname", sa.String(253), nullable=False, default=""),
    sa.Column("metadata", sa.Text, nullable=False, default="{}"),
    sa.Column("public_key", sa.String(44), nullable=True, unique=True),
    sa.Column("mesh_ip", sa.String(45), nullable=False, default=""),
    sa.Column("sealed_key", sa.LargeBinary, nullable=True),
    _time("created_at"),
    _time("enrolled_at", nullable=True),
    _time("revoked_at", nullable=True),
)

# Several tokens of a node are valid at once while a new one replaces an old one.
TOKENS = sa.Table(
    "node_tokens",
    METADATA,
    sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
    sa.Column("node_id", sa.ForeignKey("nodes.node_id", ondelete="CASCADE"), nullable=False),
    sa.Column("purpose", sa.String(8), nullable=False),
    _time("created_at"),
    _time("expires_at", nullable=True),
    sa.Index("node_tokens_by_node", "node_id"),
)

SECRETS = sa.Table(
    "secrets",
    METADATA,
    sa.Column("node_id", sa.ForeignKey("nodes.node_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    _time("set_at"),
)

# ``node_id`` binds a token to one node: it (re-)enrols that node and no other.
BOOTSTRAP = sa.Table(
    "bootstrap_tokens",
    METADATA,
    sa.Column("token_id", sa.String(16), primary_key=True),
    sa.Column("token_hash", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("node_id", sa.String(63), nullable=False, default=""),
    sa.Column("uses_left", sa.Integer, nullable=False),
    _time("created_at"),
    _time("expires_at"),
)

# Ids of nodes that are gone: never given to another machine, which could read their points.
FORMER = sa.Table(
    "former_nodes",
    METADATA,
    sa.Column("node_id", sa.String(63), primary_key=True),
)

# Browsers that are logged in, by the hash of their cookie.
SESSIONS = sa.Table(
    "sessions",
    METADATA,
    sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
    sa.Column("account", sa.String(63), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    _time("created_at"),
    _time("seen_at"),
    _time("ends_at"),
)

SETTINGS = sa.Table(
    "settings",
    METADATA,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)


def utc(moment: datetime) -> datetime:
    """Return a stored time with its zone, which SQLite does not keep."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
