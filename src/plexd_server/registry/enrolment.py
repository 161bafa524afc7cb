"""A machine becomes a node: it uses a bootstrap token and gets a name and an address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from plexd_server.database.tables import NODES
from plexd_server.errors import NodeConflict
from plexd_server.registry.ids import free_node_id
from plexd_server.registry.mesh_addresses import free_address, parse_address, refuse_unfit
from plexd_server.registry.nodes import add_node, ids_given, refuse_taken_address
from plexd_server.registry.tokens import use_token

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Applicant(msgspec.Struct, frozen=True):
    """A machine that asks to be a node; ``mesh_ip`` is the address it has already, or empty."""

    token: str
    public_key: str
    hostname: str
    metadata: Mapping[str, str]
    mesh_ip: str = ""


def admit(
    connection: sa.Connection, applicant: Applicant, network: str, now: datetime
) -> tuple[str, str]:
    """Use the applicant's token, write its row, and return its node id and mesh address.

    A token made for one node enrols that node again if it exists; any other token makes a new
    node. Raises `TokenRefused` and `NodeConflict`; the caller then rolls the transaction back.
    """
    wanted = use_token(connection, applicant.token, now)
    node_id = wanted or _new_id(connection, applicant)
    _refuse_known_key(connection, applicant.public_key, node_id)
    known = connection.execute(sa.select(NODES).where(NODES.c.node_id == node_id)).one_or_none()
    kept = known.mesh_ip if known is not None else ""
    mesh_ip = _address(connection, applicant, node_id, kept, network)
    row: dict[str, Any] = {
        "hostname": applicant.hostname,
        "metadata": msgspec.json.encode(dict(applicant.metadata)).decode(),
        "public_key": applicant.public_key,
        "mesh_ip": mesh_ip,
        "enrolled_at": now,
        "revoked_at": None,
    }
    if known is None:
        add_node(connection, {"node_id": node_id, "created_at": now, **row})
    else:
        connection.execute(NODES.update().where(NODES.c.node_id == node_id).values(**row))
    return node_id, mesh_ip


def _new_id(connection: sa.Connection, applicant: Applicant) -> str:
    return free_node_id(applicant.hostname, ids_given(connection))


def _refuse_known_key(connection: sa.Connection, public_key: str, node_id: str) -> None:
    # Public keys are public: knowing one must not be enough to become its node.
    owner = connection.scalar(sa.select(NODES.c.node_id).where(NODES.c.public_key == public_key))
    if owner not in {None, node_id}:
        raise NodeConflict(
            f"this public key is that of node {owner}; to enrol it again, use a token made with: "
            f"plexd-server token create --node {owner}"
        )


def _address(
    connection: sa.Connection, applicant: Applicant, node_id: str, kept: str, network: str
) -> str:
    """Return the machine's address, else the one the node had, else a free one."""
    address = parse_address(applicant.mesh_ip)
    if address:
        refuse_unfit(address, network)
    address = address or kept
    if not address and network:
        return free_address(network, set(connection.scalars(sa.select(NODES.c.mesh_ip))))
    refuse_taken_address(connection, address, node_id)
    return address
