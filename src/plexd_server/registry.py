"""Who may report: nodes and the hashes of their tokens, in SQLite beside the points.

Tokens are 256 random bits, so a plain SHA-256 of one is as good as a slow hash of a password.
The command line writes while the server reads (WAL), and what it writes counts at once. A node's
secret key is handed out once and not kept: nothing here needs it yet, and a key at rest that
nobody uses is only a key that can leak.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from plexd.api import Registration
from plexd_server.errors import RegistryError, StartError

if TYPE_CHECKING:
    from pathlib import Path
    from sqlite3 import Connection as SQLiteConnection

    from plexd.clock import Clock

__all__ = ["Node", "Registry", "hash_token", "is_node_id"]

FILE_NAME = "registry.db"
_VERSION = 1
_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_KEY_ALPHABET = string.ascii_letters + string.digits
_KEY_LENGTH = 32

_METADATA = sa.MetaData()
_NODES = sa.Table(
    "nodes",
    _METADATA,
    sa.Column("node_id", sa.String(63), primary_key=True),
    sa.Column("mesh_ip", sa.String(45), nullable=False),
    sa.Column("token_hash", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
)


@dataclass(frozen=True, slots=True)
class Node:
    """A registered node."""

    node_id: str
    mesh_ip: str
    created_at: datetime


def hash_token(token: str) -> bytes:
    """The SHA-256 of a token: the only form in which one is kept."""
    return hashlib.sha256(token.encode()).digest()


def is_node_id(text: str) -> bool:
    """Whether ``text`` may name a node: ASCII letters, digits, ``._-``, at most 63 of them."""
    return _NODE_ID.fullmatch(text) is not None


class Registry:
    """The nodes known to this control plane. Every method blocks briefly; call it off the loop.

    Opens its file on construction and makes it (0600) if need be; raises `StartError` if it
    cannot. Safe for use by several threads and several processes.
    """

    def __init__(self, data_dir: Path, *, clock: Clock) -> None:
        self._clock = clock
        self._path = data_dir / FILE_NAME
        self._engine = sa.create_engine(f"sqlite:///{self._path}")
        sa.event.listen(self._engine, "connect", _configure)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def create_node(self, node_id: str, *, mesh_ip: str = "") -> Registration:
        """Register a node and return its identity, the only time its secrets are seen."""
        if not is_node_id(node_id):
            raise RegistryError(
                f"{node_id!r} cannot name a node: use at most 63 letters, digits, '.', '_' and "
                "'-', the first a letter or digit"
            )
        token = secrets.token_urlsafe(32)
        self._insert(node_id, mesh_ip, hash_token(token))
        key = "".join(secrets.choice(_KEY_ALPHABET) for _ in range(_KEY_LENGTH))
        return Registration(
            node_id=node_id, mesh_ip=mesh_ip, node_secret_key=key, auth_token=token, peers=[]
        )

    def remove_node(self, node_id: str) -> None:
        """Forget a node, if there is one. Its points stay."""
        with self._engine.begin() as connection:
            connection.execute(_NODES.delete().where(_NODES.c.node_id == node_id))

    def node_of_token(self, token_hash: bytes) -> str | None:
        """The node whose token has this hash."""
        query = sa.select(_NODES.c.node_id).where(_NODES.c.token_hash == token_hash)
        with self._engine.connect() as connection:
            return connection.scalar(query)

    def has_node(self, node_id: str) -> bool:
        """Whether the node is registered."""
        query = sa.select(_NODES.c.node_id).where(_NODES.c.node_id == node_id)
        with self._engine.connect() as connection:
            return connection.scalar(query) is not None

    def nodes(self) -> list[Node]:
        """Every registered node, by id."""
        query = sa.select(_NODES).order_by(_NODES.c.node_id)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [Node(r.node_id, r.mesh_ip, r.created_at.replace(tzinfo=UTC)) for r in rows]

    def close(self) -> None:
        """Let go of the file. May be called again."""
        self._engine.dispose()

    def _insert(self, node_id: str, mesh_ip: str, token_hash: bytes) -> None:
        row = _NODES.insert().values(
            node_id=node_id,
            mesh_ip=mesh_ip,
            token_hash=token_hash,
            created_at=self._clock.now(),
        )
        try:
            with self._engine.begin() as connection:
                connection.execute(row)
        except sa.exc.IntegrityError:
            raise RegistryError(f"node {node_id!r} exists already; choose another id") from None

    def _open(self) -> None:
        try:
            self._path.touch(mode=0o600)
            with self._engine.begin() as connection:
                self._migrate(connection)
        except (OSError, sa.exc.OperationalError) as err:
            reason = getattr(err, "strerror", None) or getattr(err, "orig", None) or err
            raise StartError(
                f"cannot open {self._path}: {reason}; check the directory's owner and free space, "
                "or choose another with --data-dir"
            ) from err
        except sa.exc.DatabaseError as err:
            raise StartError(
                f"{self._path} is damaged ({err.orig}); put a backup in its place"
            ) from err

    def _migrate(self, connection: sa.Connection) -> None:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version > _VERSION:
            raise StartError(
                f"{self._path} was written by a newer plexd-server (schema {version}); upgrade"
            )
        _METADATA.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {_VERSION}")


def _configure(connection: SQLiteConnection, _: Any) -> None:
    """Readers never wait for the writer, writers wait for each other, a commit is on the disk."""
    try:
        for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}").close()
    except BaseException:
        connection.close()  # the pool does not know it yet
        raise
