"""The far end of a ping, played by the test."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from plexd.icmp.errors import PacketError
from plexd.icmp.packet import (
    REPLY_V4,
    REQUEST_V4,
    encode_echo,
    parse_echo,
    parse_ipv4_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Request", "Responder", "until"]

_PATIENCE_SECONDS = 20


@dataclass(frozen=True)
class Request:
    """An echo request as it arrived."""

    sender: str
    identifier: int
    sequence: int
    payload: bytes


class Responder:
    """A raw socket that queues echo requests and answers on demand; a context manager."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._sock.settimeout(0)
        self._requests: asyncio.Queue[Request] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._sock, self._read)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    async def request(self) -> Request:
        """The next echo request."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await self._requests.get()

    def reply(self, request: Request, **changes: object) -> None:
        """Answer ``request`` as if it had been another one in ``changes``."""
        asked = replace(request, **changes)  # type: ignore[arg-type]  # names are checked by replace
        self.send(encode_echo(REPLY_V4, asked.identifier, asked.sequence, asked.payload), request)

    def send(self, packet: bytes, request: Request) -> None:
        """Send any bytes to where ``request`` came from."""
        self._sock.sendto(packet, (request.sender, 0))

    def _read(self) -> None:
        data, (sender, _) = self._sock.recvfrom(256)
        try:
            asked = parse_echo(data, REQUEST_V4, parse_ipv4_header(data))
        except PacketError:
            return
        self._requests.put_nowait(Request(sender, *asked))


async def until(holds: Callable[[], bool]) -> None:
    """Return once ``holds``; the loop goes on meanwhile."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110  # a count has no event
            await asyncio.sleep(0)
