"""Nodes as rows, and their addresses.

Every function works on a connection whose transaction is its caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from plexd.api import Peer
from plexd_server.database.tables import FORMER, NODES, utc
from plexd_server.errors import NodeConflict, RegistryError, UnknownNode
from plexd_server.registry.ids import check_node_id, is_public_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime


class Node(msgspec.Struct, frozen=True, gc=False):
    """A registered node; ``has_key``: whether secrets can be sealed for it."""

    node_id: str
    mesh_ip: str
    created_at: datetime
    hostname: str = ""
    public_key: str = ""
    metadata: Mapping[str, str] | None = None
    enrolled_at: datetime | None = None
    revoked_at: datetime | None = None
    has_key: bool = False


def add_node(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Insert a node. Raises `RegistryError` for an id or a key that is none or another's."""
    node_id = str(row["node_id"])
    check_node_id(node_id)
    key = row.get("public_key")
    if key is not None and not is_public_key(str(key)):
        raise RegistryError("the public key is not one as `wg` prints it: base64 of 32 bytes")
    try:
        connection.execute(NODES.insert().values(**row))
    except sa.exc.IntegrityError as err:
        if "public_key" in str(err.orig):
            raise NodeConflict("this public key is that of another node") from None
        raise NodeConflict(f"node {node_id!r} exists already; choose another id") from None


def find_node(connection: sa.Connection, node_id: str) -> sa.Row[tuple[object, ...]]:
    """Return the row of a node. Raises `UnknownNode`."""
    query = sa.select(NODES).where(NODES.c.node_id == node_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownNode(f"there is no node {node_id!r}")
    return row


def refuse_revoked(node: sa.Row[tuple[object, ...]]) -> None:
    """Raise `RegistryError` for a node that is revoked."""
    if node.revoked_at is not None:
        raise RegistryError(
            f"node {node.node_id!r} is revoked; let it in again with a token made with: "
            f"plexd-server token create --node {node.node_id}"
        )


def list_nodes(
    connection: sa.Connection, *, revoked: bool, node_id: str | None = None
) -> list[Node]:
    """Return nodes by id, with or without revoked ones; all, or the one of this id."""
    query = sa.select(NODES).order_by(NODES.c.node_id)
    if node_id is not None:
        query = query.where(NODES.c.node_id == node_id)
    if not revoked:
        query = query.where(NODES.c.revoked_at.is_(None))
    return [_node(row) for row in connection.execute(query)]


def _node(row: sa.Row[tuple[object, ...]]) -> Node:
    return Node(
        node_id=row.node_id,
        mesh_ip=row.mesh_ip,
        created_at=utc(row.created_at),
        hostname=row.hostname,
        public_key=row.public_key or "",
        metadata=msgspec.json.decode(row.metadata),
        enrolled_at=row.enrolled_at and utc(row.enrolled_at),
        revoked_at=row.revoked_at and utc(row.revoked_at),
        has_key=row.sealed_key is not None,
    )


def peers_of(connection: sa.Connection, node_id: str) -> list[Peer]:
    """Return the other nodes that have a key and an address and are not revoked, by id."""
    c = NODES.c
    query = (
        sa.select(c.node_id, c.public_key, c.mesh_ip)
        .where(c.node_id != node_id, c.revoked_at.is_(None))
        .where(c.public_key.is_not(None), c.mesh_ip != "")
        .order_by(c.node_id)
    )
    return [Peer(*row) for row in connection.execute(query)]


def ids_given(connection: sa.Connection) -> set[str]:
    """Return every id that is a node's or was one's."""
    return {*connection.scalars(sa.union(sa.select(NODES.c.node_id), sa.select(FORMER.c.node_id)))}


def reserve_ids(connection: sa.Connection, node_ids: Iterable[str]) -> None:
    """Keep these ids from being given to another machine, from now on and for ever."""
    known = set(connection.scalars(sa.select(FORMER.c.node_id)))
    if rows := [{"node_id": node_id} for node_id in set(node_ids) - known]:
        connection.execute(FORMER.insert(), rows)


def refuse_former_id(connection: sa.Connection, node_id: str) -> None:
    """Raise `NodeConflict` for the id of a node that is gone."""
    query = sa.select(FORMER.c.node_id).where(FORMER.c.node_id == node_id)
    is_known = sa.select(NODES.c.node_id).where(NODES.c.node_id == node_id)
    if connection.scalar(is_known) is None and connection.scalar(query) is not None:
        raise NodeConflict(
            f"{node_id} was another node, whose points are kept under this id; let the same "
            f"machine in again with a token made with: plexd-server token create --node {node_id}"
        )


def refuse_taken_address(connection: sa.Connection, address: str, node_id: str) -> None:
    """Raise `NodeConflict` if another node has the address."""
    c = NODES.c
    query = sa.select(c.node_id).where(
        c.mesh_ip == address, c.node_id != node_id, c.revoked_at.is_(None)
    )
    owner = connection.scalar(query.limit(1))
    if address and owner is not None:
        raise NodeConflict(f"the mesh address {address} is that of node {owner}")
