"""Secrets of nodes: sealed under the master key at rest, under the node's own key on the way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from plexd.api import SecretResponse
from plexd.nodeapi import seal_secret
from plexd_server.database.tables import SECRETS, utc
from plexd_server.errors import NoNodeKey, RegistryError, UnknownSecret
from plexd_server.registry.nodes import find_node, refuse_revoked

if TYPE_CHECKING:
    from datetime import datetime

    from plexd.clock import Clock
    from plexd_server.database.engine import Database
    from plexd_server.registry.master_key import MasterKey

MAX_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """What is shown of a secret: everything but its value."""

    node_id: str
    name: str
    version: int
    set_at: datetime


class NodeSecrets:
    """Sets, lists, deletes and hands out secrets. Every method blocks briefly.

    Every method raises `UnknownNode` for a node that does not exist.
    """

    def __init__(self, database: Database, master: MasterKey, clock: Clock) -> None:
        self._database = database
        self._master = master
        self._clock = clock

    def refuse(self, node_id: str, name: str) -> None:
        """Raise what `set` raises for this node and name, before there is a value."""
        _check_name(name)
        with self._database.reading() as connection:
            refuse_revoked(find_node(connection, node_id))

    def set(self, node_id: str, name: str, value: str) -> int:
        """Keep a secret in place of the node's one of this name, and return its version."""
        _check_name(name)
        _check_value(value)
        with self._database.writing() as connection:
            refuse_revoked(find_node(connection, node_id))
            whose = _whose(node_id, name)
            version = (connection.scalar(sa.select(SECRETS.c.version).where(whose)) or 0) + 1
            connection.execute(SECRETS.delete().where(whose))
            sealed = self._master.seal(value, "secrets", node_id, name, version)
            row = {"node_id": node_id, "name": name, "version": version, "sealed": sealed}
            connection.execute(SECRETS.insert().values(set_at=self._clock.now(), **row))
        return version

    def list(self, node_id: str = "") -> list[StoredSecret]:
        """Return the secrets of a node, or of all nodes."""
        c = SECRETS.c
        query = sa.select(c.node_id, c.name, c.version, c.set_at).order_by(c.node_id, c.name)
        with self._database.reading() as connection:
            if node_id:
                find_node(connection, node_id)
                query = query.where(c.node_id == node_id)
            rows = connection.execute(query).all()
        return [StoredSecret(r.node_id, r.name, r.version, utc(r.set_at)) for r in rows]

    def delete(self, node_id: str, name: str) -> None:
        """Delete a secret. Raises `UnknownSecret`."""
        with self._database.writing() as connection:
            find_node(connection, node_id)
            done = connection.execute(SECRETS.delete().where(_whose(node_id, name)))
        if not done.rowcount:
            raise UnknownSecret(f"node {node_id!r} has no secret {name!r}")

    def envelope(self, node_id: str, name: str) -> SecretResponse:
        """Return a secret as only its node can open it, with a new nonce each time.

        Raises `UnknownSecret`, `NoNodeKey` and, for damaged rows, `SealError`.
        """
        with self._database.reading() as connection:
            node = find_node(connection, node_id)
            row = connection.execute(sa.select(SECRETS).where(_whose(node_id, name))).one_or_none()
        if row is None:
            raise UnknownSecret("this node has no such secret")
        if node.sealed_key is None:
            raise NoNodeKey("no key is kept for this node; the operator can make one: node rotate")
        key = node_key(self._master, node)
        value = self._master.open(row.sealed, "secrets", node_id, name, row.version)
        ciphertext, nonce = seal_secret(key.encode(), value)
        return SecretResponse(key=name, ciphertext=ciphertext, nonce=nonce, version=row.version)


def node_key(master: MasterKey, node: sa.Row[tuple[object, ...]]) -> str:
    """Return the secret key of a node that has one."""
    return master.open(node.sealed_key, "nodes", node.node_id)


def _whose(node_id: str, name: str) -> sa.ColumnElement[bool]:
    return (SECRETS.c.node_id == node_id) & (SECRETS.c.name == name)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise RegistryError(
            f"{name!r} cannot name a secret: use at most 128 letters, digits, '.', '_' and '-', "
            "the first a letter or digit"
        )


def _check_value(value: str) -> None:
    if not 0 < len(value.encode("utf-8", "surrogatepass")) <= MAX_BYTES:
        raise RegistryError(f"a secret holds 1 to {MAX_BYTES} bytes of text")
