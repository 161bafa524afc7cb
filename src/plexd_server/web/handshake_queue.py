"""Whose TLS handshake is next, and which one ends when too many are under way.

The first message of a client costs the server a signature, a millisecond or more, and some 40 KiB
until the client has answered. Taken as they come, the messages of one address would keep all others
waiting for seconds.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    Ended = asyncio.Future[None]

_UNDER_WAY: Final = 1024


class WaitingClient(Protocol):
    """A client whose first message is there."""

    sender: str

    def begin(self, ended: Ended) -> None:
        """Begin the handshake; ``ended`` is done when it is over, whatever its outcome."""
        ...

    def abort(self) -> None:
        """Cut the connection off."""
        ...


class HandshakeQueue:
    """Begins one handshake in a turn of the event loop, for each sender in turn.

    At most ``most`` are under way. For one more, the oldest of the sender that has the most is cut
    off: a client that means it answers within a round trip, so the oldest is one that has stopped.
    """

    def __init__(self, most: int = _UNDER_WAY) -> None:
        self._most = most
        self._waiting: dict[str, dict[WaitingClient, None]] = {}
        self._under_way: dict[str, dict[Ended, WaitingClient]] = {}
        self._number = 0
        self._is_scheduled = False

    def add(self, client: WaitingClient) -> None:
        """Put a client at the end of its sender's line."""
        self._waiting.setdefault(client.sender, {})[client] = None
        self._schedule()

    def remove(self, client: WaitingClient) -> None:
        """Take a client that is gone out of its line, if it is still in it."""
        line = self._waiting.get(client.sender, {})
        if client in line:
            del line[client]
            if not line:
                del self._waiting[client.sender]

    def _schedule(self) -> None:
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._begin_next)

    def _begin_next(self) -> None:
        self._is_scheduled = False
        if not self._waiting:
            return
        sender = next(iter(self._waiting))
        line = self._waiting.pop(sender)
        client = next(iter(line))
        del line[client]
        if line:
            self._waiting[sender] = line  # behind all other senders
        self._schedule()
        client.begin(self._count(client))

    def _count(self, client: WaitingClient) -> Ended:
        if self._number >= self._most:
            self._cut_off_one()
        ended: Ended = asyncio.get_running_loop().create_future()
        self._under_way.setdefault(client.sender, {})[ended] = client
        self._number += 1
        ended.add_done_callback(partial(self._end, client.sender))
        return ended

    def _cut_off_one(self) -> None:
        ended, client = next(iter(max(self._under_way.values(), key=len).items()))
        self._forget(client.sender, ended)
        client.abort()

    def _end(self, sender: str, ended: Ended) -> None:
        if (failure := ended.exception()) is not None:
            failure.__traceback__ = None  # it holds the connection in a circle
        if ended in self._under_way.get(sender, {}):
            self._forget(sender, ended)

    def _forget(self, sender: str, ended: Ended) -> None:
        of_sender = self._under_way[sender]
        del of_sender[ended]
        self._number -= 1
        if not of_sender:
            del self._under_way[sender]
