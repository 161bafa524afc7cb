"""Tokens as rows: those of nodes, and bootstrap tokens, which make a machine a node.

Every function works on a connection whose transaction is its caller's.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa

from plexd_server.database.tables import BOOTSTRAP, TOKENS, utc
from plexd_server.errors import RegistryError, TokenRefused
from plexd_server.registry.ids import check_node_id, hash_token, new_token

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from plexd.clock import Clock
    from plexd_server.database.engine import Database

NODE, INGEST = "node", "ingest"

_PREFIX: Final = "plexd-join-"  # a person, and a scanner for leaked secrets, sees what it is
_MAX_USES: Final = 100_000
_REFUSAL: Final = "the token is not known, used up or expired"


class Holder(NamedTuple):
    """The node of a token and what the token opens: `NODE` (all of its paths) or `INGEST`."""

    node_id: str
    purpose: str


def add_token(
    connection: sa.Connection, holder: Holder, now: datetime, token: str | None = None
) -> str:
    """Give a node a further token, a new one unless it is given, and return it."""
    token = token or new_token()
    row = {"token_hash": hash_token(token), "node_id": holder.node_id, "purpose": holder.purpose}
    try:
        connection.execute(TOKENS.insert().values(created_at=now, **row))
    except sa.exc.IntegrityError:
        raise RegistryError("this token is in use already; make another") from None
    return token


def expire_tokens(connection: sa.Connection, holder: Holder, moment: datetime) -> None:
    """Let the tokens a node has for this purpose work until ``moment`` at the longest."""
    lasting = sa.or_(TOKENS.c.expires_at.is_(None), TOKENS.c.expires_at > moment)
    connection.execute(TOKENS.update().where(_held(holder) & lasting).values(expires_at=moment))


def delete_tokens(connection: sa.Connection, holder: Holder) -> int:
    """Delete the tokens a node has for this purpose and return how many there were."""
    return connection.execute(TOKENS.delete().where(_held(holder))).rowcount


def find_holder(connection: sa.Connection, token_hash: bytes, now: datetime) -> Holder | None:
    """Return the holder of a token that is still valid."""
    valid = sa.or_(TOKENS.c.expires_at.is_(None), TOKENS.c.expires_at > now)
    query = sa.select(TOKENS.c.node_id, TOKENS.c.purpose).where(
        (TOKENS.c.token_hash == token_hash) & valid
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Holder(*row)


def list_tokens(
    connection: sa.Connection, node_id: str
) -> list[tuple[str, datetime, datetime | None]]:
    """Return purpose, beginning and end of each of a node's tokens, the newest first."""
    c = TOKENS.c
    query = sa.select(c.purpose, c.created_at, c.expires_at).where(c.node_id == node_id)
    rows = connection.execute(query.order_by(c.created_at.desc())).all()
    return [(r.purpose, utc(r.created_at), r.expires_at and utc(r.expires_at)) for r in rows]


def _held(holder: Holder) -> sa.ColumnElement[bool]:
    return (TOKENS.c.node_id == holder.node_id) & (TOKENS.c.purpose == holder.purpose)


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """What is known of a token; ``node_id`` is the one node it is for, or empty."""

    token_id: str
    node_id: str
    uses_left: int
    created_at: datetime
    expires_at: datetime

    def state(self, now: datetime) -> str:
        """Return ``valid``, ``used up`` or ``expired``."""
        if not self.uses_left:
            return "used up"
        return "valid" if now < self.expires_at else "expired"


class BootstrapTokens:
    """Creates, lists and revokes bootstrap tokens. Every method blocks briefly."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(
        self, *, uses: int, expires_in: timedelta, node_id: str = ""
    ) -> tuple[str, BootstrapToken]:
        """Return a new token, the only time it is seen. Raises `RegistryError` for wrong values."""
        if not 0 < uses <= _MAX_USES:
            raise RegistryError(f"a token can be used 1 to {_MAX_USES} times")
        if node_id:
            check_node_id(node_id)
            if uses != 1:
                raise RegistryError("a token for one node can be used once")
        text, now = _PREFIX + new_token(), self._clock.now()
        made = BootstrapToken(secrets.token_hex(4), node_id, uses, now, now + expires_in)
        with self._database.writing() as connection:
            row = {"token_hash": hash_token(text), **asdict(made)}
            connection.execute(BOOTSTRAP.insert().values(**row))
        return text, made

    def list(self) -> list[BootstrapToken]:
        """Return all tokens, the newest first, also those that are no longer valid."""
        query = sa.select(BOOTSTRAP).order_by(BOOTSTRAP.c.created_at.desc())
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            BootstrapToken(r.token_id, r.node_id, r.uses_left, utc(r.created_at), utc(r.expires_at))
            for r in rows
        ]

    def revoke(self, token_id: str) -> None:
        """Delete a token. Raises `RegistryError` if none has this id."""
        with self._database.writing() as connection:
            done = connection.execute(BOOTSTRAP.delete().where(BOOTSTRAP.c.token_id == token_id))
        if not done.rowcount:
            raise RegistryError(f"there is no token {token_id!r}; see: plexd-server token list")


def refuse_useless(connection: sa.Connection, token: str, now: datetime) -> None:
    """Raise `TokenRefused` for a bootstrap token that enrols nobody; nothing is used up."""
    query = sa.select(BOOTSTRAP.c.token_id).where(_usable(token, now))
    if connection.scalar(query) is None:
        raise TokenRefused(_REFUSAL)


def use_token(connection: sa.Connection, token: str, now: datetime) -> str:
    """Use a bootstrap token once and return the node it is for, or empty. Raises `TokenRefused`.

    The count goes down in the statement that checks it: of two machines with the same one-time
    token only one passes. If the transaction is rolled back, the token was not used.
    """
    c = BOOTSTRAP.c
    less = BOOTSTRAP.update().values(uses_left=c.uses_left - 1)
    if not connection.execute(less.where(_usable(token, now))).rowcount:
        raise TokenRefused(_REFUSAL)
    query = sa.select(c.node_id).where(c.token_hash == hash_token(token))
    return str(connection.scalar(query))


def _usable(token: str, now: datetime) -> sa.ColumnElement[bool]:
    c = BOOTSTRAP.c
    return (c.token_hash == hash_token(token)) & (c.uses_left > 0) & (c.expires_at > now)
