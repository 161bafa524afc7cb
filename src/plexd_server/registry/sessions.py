"""Browsers that are logged in, as rows; a session is found by the hash of its cookie."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa

from plexd_server.database.tables import SESSIONS, utc
from plexd_server.errors import RegistryUnavailable
from plexd_server.registry.ids import hash_token, new_token

if TYPE_CHECKING:
    from datetime import datetime

    from plexd.clock import Clock
    from plexd_server.database.engine import Database

SESSION_LASTS: Final = timedelta(days=30)
_IDLE: Final = timedelta(days=7)
_SEEN_EVERY: Final = timedelta(hours=1)  # how exactly it is known when a session was last used
_MOST: Final = 1000


class Session(NamedTuple):
    """Whose session it is, and what the account may do."""

    account: str
    role: str


class Sessions:
    """Begins, finds and ends sessions. Every method blocks briefly.

    A session ends after 30 days, after a week without use, when its browser logs out, and when it
    is the one unused for longest of more than a thousand. It survives a restart.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def begin(self, session: Session) -> str:
        """Begin a session and return its cookie, the only time it is seen."""
        text, now = new_token(), self._clock.now()
        times = {"created_at": now, "seen_at": now, "ends_at": now + SESSION_LASTS}
        row = {"token_hash": hash_token(text), **session._asdict(), **times}
        with self._database.writing() as connection:
            connection.execute(SESSIONS.delete().where(~_is_current(now)))
            connection.execute(SESSIONS.delete().where(SESSIONS.c.token_hash.in_(_surplus())))
            connection.execute(SESSIONS.insert().values(**row))
        return text

    def find(self, token_hash: bytes) -> Session | None:
        """Return the session with this hash, unless it has ended."""
        now = self._clock.now()
        query = sa.select(SESSIONS).where(SESSIONS.c.token_hash == token_hash, _is_current(now))
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        if now - utc(row.seen_at) > _SEEN_EVERY:
            self._note_seen(token_hash, now)
        return Session(row.account, row.role)

    def end(self, token_hash: bytes) -> None:
        """End the session with this hash, if there is one."""
        with self._database.writing() as connection:
            connection.execute(SESSIONS.delete().where(SESSIONS.c.token_hash == token_hash))

    def end_all(self) -> None:
        """End every session."""
        with self._database.writing() as connection:
            connection.execute(SESSIONS.delete())

    def _note_seen(self, token_hash: bytes, now: datetime) -> None:
        seen = SESSIONS.update().where(SESSIONS.c.token_hash == token_hash).values(seen_at=now)
        try:
            with self._database.writing() as connection:
                connection.execute(seen)
        except RegistryUnavailable:
            return  # the next request tries again


def _is_current(now: datetime) -> sa.ColumnElement[bool]:
    return (SESSIONS.c.ends_at > now) & (SESSIONS.c.seen_at > now - _IDLE)


def _surplus() -> sa.ScalarSelect[bytes]:
    """The sessions beyond the newest, with room for one more."""
    newest = sa.select(SESSIONS.c.token_hash).order_by(SESSIONS.c.seen_at.desc())
    return newest.offset(_MOST - 1).scalar_subquery()
