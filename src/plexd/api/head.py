"""The head of an answer: 64 KiB of it and no more, in however many fields.

aiohttp has bounds for a line, a field and the number of fields, but none for the sum. Gateways add
long fields and many of them, so each of those three has to be as large as the sum may be.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    from aiohttp.connector import Connection

MOST_HEAD_BYTES: Final = 64 * 1024
_END: Final = re.compile(rb"\n\r?\n")
_INTERIM: Final = re.compile(rb"[\r\n]*HTTP/\d\.\d +1(?!01)")  # 101 is the last one there is


class BoundedResponse(aiohttp.ClientResponse):
    """A response of aiohttp that raises its `ClientPayloadError` for a head that is too long."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Read the head."""
        transport, protocol = connection.transport, connection.protocol
        if transport is None or protocol is None:  # closed by now
            return await super().start(connection)
        watch = _HeadWatch(transport, protocol)
        transport.set_protocol(watch)
        try:
            return await super().start(connection)
        except aiohttp.ServerDisconnectedError as err:
            if watch.is_too_long:
                raise aiohttp.ClientPayloadError("the head of the answer is too long") from err
            raise
        finally:
            if not transport.is_closing():  # a closed one of TLS has no protocol any more
                transport.set_protocol(protocol)


class _HeadWatch(asyncio.Protocol):
    """Stands between a connection and aiohttp until the head of an answer has come.

    A head that ``is_too_long`` is not passed on to its end, and the connection is closed.
    """

    def __init__(self, transport: asyncio.BaseTransport, protocol: asyncio.Protocol) -> None:
        self.is_too_long = False
        self._transport = transport
        self._protocol = protocol
        self._head: bytearray | None = bytearray()

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head = self._rest(self._head, data)
        if self._head is not None and len(self._head) > MOST_HEAD_BYTES:
            self.is_too_long = True
            self._transport.close()
        else:
            self._protocol.data_received(data)

    def _rest(self, head: bytearray, data: bytes) -> bytearray | None:
        """Return the head so far, without interim answers; None once it is complete."""
        seen = max(0, len(head) - len(b"\n\r"))
        head += data
        while found := _END.search(head, seen):
            if not _INTERIM.match(head):
                return None
            del head[: found.end()]
            seen = 0
        return head

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
