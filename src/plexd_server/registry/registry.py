"""The registry as the rest of the server sees it."""

from __future__ import annotations

import ipaddress
import os
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from plexd.api import Peer, Registration
from plexd_server.database.engine import Database
from plexd_server.database.tables import BOOTSTRAP, NODES, SECRETS, SETTINGS, TOKENS
from plexd_server.errors import SealError, StartError, UnknownNode
from plexd_server.registry.enrolment import Applicant, admit
from plexd_server.registry.ids import new_node_secret_key
from plexd_server.registry.master_key import FILE_NAME as KEY_NAME
from plexd_server.registry.master_key import MasterKey
from plexd_server.registry.mesh_addresses import parse_address
from plexd_server.registry.node_secrets import NodeSecrets, node_key
from plexd_server.registry.nodes import (
    Node,
    add_node,
    find_node,
    ids_given,
    list_nodes,
    peers_of,
    refuse_former_id,
    refuse_revoked,
    refuse_taken_address,
    reserve_ids,
)
from plexd_server.registry.sessions import Sessions
from plexd_server.registry.tokens import (
    INGEST,
    NODE,
    BootstrapTokens,
    Holder,
    add_token,
    delete_tokens,
    expire_tokens,
    find_holder,
    list_tokens,
    refuse_useless,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from pathlib import Path

    from plexd.clock import Clock
    from plexd_server.opened_files import OpenedFiles

FILE_NAME: Final = "registry.db"
_CHECK: Final = "seal_check"
_MESH_NETWORK: Final = "mesh_network"
_OPERATOR: Final = "operator_token"
_POINTS_SINCE: Final = "points_since"


class Registry:
    """The nodes known to this server, their tokens and secrets. Methods block briefly.

    Opens its files on construction and makes them (0600) if they are missing; raises `StartError`.
    Several threads and processes may use it; what one writes counts for the others at once. Every
    method may raise `RegistryUnavailable`, and `FilesReplaced` while one of ``files``, of which the
    registry is one, is not in its place.
    """

    def __init__(self, data_dir: Path, *, clock: Clock, files: OpenedFiles | None = None) -> None:
        self._clock = clock
        self._master = MasterKey(data_dir / KEY_NAME)
        self._database = Database(data_dir / FILE_NAME, files=files)
        self.tokens = BootstrapTokens(self._database, clock)
        self.secrets = NodeSecrets(self._database, self._master, clock)
        self.sessions = Sessions(self._database, clock)
        try:
            self._provide_key()
        except BaseException:
            self.close()
            raise

    def create_node(
        self, node_id: str, *, mesh_ip: str = "", public_key: str = "", is_back: bool = False
    ) -> Registration:
        """Register a node and return its identity, the only time its secrets are seen.

        Raises `NodeConflict` for the id, key or address of another node; also for the id of one
        that is gone, unless ``is_back`` says that it is the same. Raises `ValueError` for a
        malformed mesh address.
        """
        now, mesh_ip = self._clock.now(), parse_address(mesh_ip)
        with self._database.writing() as connection:
            if not is_back:
                refuse_former_id(connection, node_id)
            refuse_taken_address(connection, mesh_ip, node_id)
            row = {"mesh_ip": mesh_ip, "public_key": public_key or None, "created_at": now}
            add_node(connection, {"node_id": node_id, **row})
            return self._identity(connection, node_id, mesh_ip)

    def enrol(self, applicant: Applicant) -> Registration:
        """Make a node of a machine with a bootstrap token.

        Raises `TokenRefused`, `NodeConflict` for a key, name or address of another node, and
        `ValueError` for a malformed mesh address; the token is then not used.
        """
        now = self._clock.now()
        with self._database.reading() as connection:  # a wrong token must not keep writers waiting
            refuse_useless(connection, applicant.token, now)
        with self._database.writing() as connection:
            network = _setting(connection, _MESH_NETWORK).decode()
            node_id, mesh_ip = admit(connection, applicant, network, now)
            delete_tokens(connection, Holder(node_id, NODE))
            return self._identity(connection, node_id, mesh_ip)

    def rotate_node(
        self, node_id: str, *, keep_old: timedelta, new_key: bool = False
    ) -> Registration:
        """Give a node a new token; the old one works for another ``keep_old``.

        The secret key stays, unless ``new_key`` is true or none is kept. Raises `UnknownNode`.
        """
        with self._database.writing() as connection:
            node = find_node(connection, node_id)
            refuse_revoked(node)
            expire_tokens(connection, Holder(node_id, NODE), self._clock.now() + keep_old)
            has_key = node.sealed_key is not None and not new_key
            key = node_key(self._master, node) if has_key else None
            return self._identity(connection, node_id, node.mesh_ip, key)

    def _identity(
        self, connection: sa.Connection, node_id: str, mesh_ip: str, key: str | None = None
    ) -> Registration:
        """Give the node a token, and a key unless it keeps ``key``."""
        if key is None:
            key = new_node_secret_key()
            sealed = self._master.seal(key, "nodes", node_id)
            connection.execute(
                NODES.update().where(NODES.c.node_id == node_id).values(sealed_key=sealed)
            )
        token = add_token(connection, Holder(node_id, NODE), self._clock.now())
        return Registration(node_id, mesh_ip, key, token, peers_of(connection, node_id))

    def revoke_node(self, node_id: str) -> None:
        """Shut a node out and delete its tokens, key and secrets; its points stay."""
        with self._database.writing() as connection:
            find_node(connection, node_id)
            for table in (TOKENS, SECRETS):
                connection.execute(table.delete().where(table.c.node_id == node_id))
            gone = {"revoked_at": self._clock.now(), "sealed_key": None}
            connection.execute(NODES.update().where(NODES.c.node_id == node_id).values(**gone))

    def remove_node(self, node_id: str) -> None:
        """Delete a node that nobody used, if it exists: its id is free again."""
        with self._database.writing() as connection:
            connection.execute(NODES.delete().where(NODES.c.node_id == node_id))

    def create_ingest_token(self, node_id: str, token: str | None = None) -> str:
        """Return a token for the node's ``/ingest`` path only; adds the node if it is unknown."""
        now = self._clock.now()
        with self._database.writing() as connection:
            try:
                refuse_revoked(find_node(connection, node_id))
            except UnknownNode:
                add_node(connection, {"node_id": node_id, "created_at": now})
            return add_token(connection, Holder(node_id, INGEST), now, token)

    def revoke_ingest_tokens(self, node_id: str) -> int:
        """Delete the ``/ingest`` tokens of a node and return how many there were."""
        with self._database.writing() as connection:
            find_node(connection, node_id)
            return delete_tokens(connection, Holder(node_id, INGEST))

    def holder_of_token(self, token_hash: bytes) -> Holder | None:
        """Return the holder of the token with this hash, if the token is valid now."""
        with self._database.reading() as connection:
            return find_holder(connection, token_hash, self._clock.now())

    def node(self, node_id: str) -> Node | None:
        """Return a node, also a revoked one; None if it does not exist."""
        with self._database.reading() as connection:
            return next(iter(list_nodes(connection, revoked=True, node_id=node_id)), None)

    def nodes(self, *, revoked: bool = False) -> list[Node]:
        """Return every node, by id; revoked ones only if ``revoked`` is true."""
        with self._database.reading() as connection:
            return list_nodes(connection, revoked=revoked)

    def peers_of(self, node_id: str) -> list[Peer]:
        """Return the other nodes of the mesh that have a key and an address."""
        with self._database.reading() as connection:
            return peers_of(connection, node_id)

    def tokens_of(self, node_id: str) -> list[tuple[str, datetime, datetime | None]]:
        """Return purpose, beginning and end of each of a node's tokens, the newest first."""
        with self._database.reading() as connection:
            return list_tokens(connection, node_id)

    @property
    def mesh_network(self) -> str:
        """The network from which enrolment gives addresses, or empty."""
        with self._database.reading() as connection:
            return _setting(connection, _MESH_NETWORK).decode()

    @mesh_network.setter
    def mesh_network(self, network: str) -> None:
        value = str(ipaddress.ip_network(network)) if network else ""
        with self._database.writing() as connection:
            _put_setting(connection, _MESH_NETWORK, value.encode())

    @property
    def points_since(self) -> datetime | None:
        """The time at which a server made the file of the points; None if none did."""
        with self._database.reading() as connection:
            value = _setting(connection, _POINTS_SINCE)
        return datetime.fromisoformat(value.decode()) if value else None

    @points_since.setter
    def points_since(self, moment: datetime) -> None:
        with self._database.writing() as connection:
            _put_setting(connection, _POINTS_SINCE, moment.isoformat().encode())

    def prune(self, before: datetime) -> dict[str, int]:
        """Delete what ended before then and return the number of rows by kind.

        The ids of nodes stay reserved: another machine of this name would read their points.
        """
        revoked = NODES.c.revoked_at < before
        ended = {
            "nodes": NODES.delete().where(revoked),
            "node tokens": TOKENS.delete().where(TOKENS.c.expires_at < before),
            "bootstrap tokens": BOOTSTRAP.delete().where(
                (BOOTSTRAP.c.expires_at < before)
                | ((BOOTSTRAP.c.uses_left == 0) & (BOOTSTRAP.c.created_at < before))
            ),
        }
        with self._database.writing() as connection:
            gone = connection.scalars(sa.select(NODES.c.node_id).where(revoked)).all()
            reserve_ids(connection, gone)
            return {kind: connection.execute(query).rowcount for kind, query in ended.items()}

    def reserve(self, node_ids: Iterable[str]) -> None:
        """Keep the ids of nodes that have points and are not known here from other machines."""
        with self._database.reading() as connection:
            unknown = set(node_ids).difference(ids_given(connection))
        if unknown:
            with self._database.writing() as connection:
                reserve_ids(connection, unknown)

    def end_sessions_of_another(self, token_hash: bytes) -> None:
        """End all sessions if the login token in the operator's file is another than before."""
        with self._database.reading() as connection:
            is_same = _setting(connection, _OPERATOR) == token_hash
        if not is_same:
            self.sessions.end_all()
            with self._database.writing() as connection:
                _put_setting(connection, _OPERATOR, token_hash)

    def backup_to(self, directory: Path) -> None:
        """Copy the registry and its key into a directory and read both back.

        The copy has no sessions: one that is ended later must not come back with it.
        """
        self._database.copy_to(directory / FILE_NAME)
        self._master.copy_to(directory / KEY_NAME)
        with closing(Registry(directory, clock=self._clock)) as copy:
            copy.check_key()
            copy.sessions.end_all()

    def check_key(self) -> None:
        """Raise `StartError` unless the master key is the one that sealed this registry."""
        with self._database.reading() as connection:
            sealed = _setting(connection, _CHECK)
        try:
            self._master.open(sealed, "settings", _CHECK)
        except SealError as err:
            raise StartError(
                f"{self._master.path} is not the key that sealed {self._database.path}; put the "
                "right one back from a backup"
            ) from err

    def close(self) -> None:
        """Close the files. May be called again."""
        self._database.close()

    def _provide_key(self) -> None:
        """Make the master key of a new registry. Raises `StartError` if an older one has none."""
        with self._database.reading() as connection:
            is_sealed = bool(_setting(connection, _CHECK))
        if is_sealed and not self._master.exists:
            raise StartError(
                f"{self._master.path} is missing, and without it nothing sealed in "
                f"{self._database.path} can be opened; put it back from a backup, or move "
                f"{self._database.path.name} away as well and enrol every node anew"
            )
        if not is_sealed:
            self._master.make()
            with self._database.writing() as connection:
                if not _setting(connection, _CHECK):
                    sealed = self._master.seal("plexd", "settings", _CHECK)
                    _put_setting(connection, _CHECK, sealed)


def has_registry(data_dir: Path) -> bool:
    """Whether there is a registry in this directory."""
    return os.path.exists(data_dir / FILE_NAME)  # noqa: PTH110 -- never raises


def _setting(connection: sa.Connection, name: str) -> bytes:
    """Return the value of a setting, empty if it was never set."""
    query = sa.select(SETTINGS.c.value).where(SETTINGS.c.name == name)
    return connection.scalar(query) or b""


def _put_setting(connection: sa.Connection, name: str, value: bytes) -> None:
    connection.execute(SETTINGS.delete().where(SETTINGS.c.name == name))
    connection.execute(SETTINGS.insert().values(name=name, value=value))
