"""Bootstrap tokens: what a machine shows once to become a node."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from plexd_server.database.tables import BOOTSTRAP, utc
from plexd_server.errors import RegistryError, TokenRefused
from plexd_server.registry.ids import hash_token, new_token
from plexd_server.registry.nodes import check_node_id

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from plexd.clock import Clock
    from plexd_server.database.engine import Database

__all__ = ["PREFIX", "BootstrapToken", "BootstrapTokens", "refuse_useless", "use_token"]

PREFIX: Final = "plexd-join-"  # a person, and a scanner for leaked secrets, sees what it is
_MAX_USES: Final = 100_000
_REFUSAL: Final = "the token is not known, used up or expired"


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """What is known of a token; ``node_id`` is the one node it is for, or empty."""

    token_id: str
    node_id: str
    uses_left: int
    created_at: datetime
    expires_at: datetime

    def state(self, now: datetime) -> str:
        """``valid``, ``used up`` or ``expired``."""
        if not self.uses_left:
            return "used up"
        return "valid" if now < self.expires_at else "expired"


class BootstrapTokens:
    """Makes, lists and withdraws bootstrap tokens. Every method blocks briefly."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(
        self, *, uses: int, expires_in: timedelta, node_id: str = ""
    ) -> tuple[str, BootstrapToken]:
        """A new token, the only time it is seen. Raises `RegistryError` for an impossible one."""
        if not 0 < uses <= _MAX_USES:
            raise RegistryError(f"a token can be used 1 to {_MAX_USES} times")
        if node_id:
            check_node_id(node_id)
            if uses != 1:
                raise RegistryError("a token for one node can be used once")
        text, now = PREFIX + new_token(), self._clock.now()
        made = BootstrapToken(secrets.token_hex(4), node_id, uses, now, now + expires_in)
        row = {name: getattr(made, name) for name in BootstrapToken.__dataclass_fields__}
        with self._database.writing() as connection:
            connection.execute(BOOTSTRAP.insert().values(token_hash=hash_token(text), **row))
        return text, made

    def list(self) -> list[BootstrapToken]:
        """All tokens, the newest first, those that are no longer valid among them."""
        query = sa.select(BOOTSTRAP).order_by(BOOTSTRAP.c.created_at.desc())
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            BootstrapToken(r.token_id, r.node_id, r.uses_left, utc(r.created_at), utc(r.expires_at))
            for r in rows
        ]

    def revoke(self, token_id: str) -> None:
        """Withdraw a token. Raises `RegistryError` if there is none of this id."""
        with self._database.writing() as connection:
            done = connection.execute(BOOTSTRAP.delete().where(BOOTSTRAP.c.token_id == token_id))
        if not done.rowcount:
            raise RegistryError(f"there is no token {token_id!r}; see: plexd-server token list")


def refuse_useless(connection: sa.Connection, token: str, now: datetime) -> None:
    """Raise `TokenRefused` for a token that would not let anybody in; nothing is used up."""
    query = sa.select(BOOTSTRAP.c.token_id).where(_usable(token, now))
    if connection.scalar(query) is None:
        raise TokenRefused(_REFUSAL)


def use_token(connection: sa.Connection, token: str, now: datetime) -> str:
    """Use a token once; the node it is for, or empty. Raises `TokenRefused`.

    The count goes down in the statement that checks it: of two machines with the same one-time
    token only one passes. If the transaction is given up, the token was not used.
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
