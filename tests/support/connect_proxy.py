"""An HTTP proxy on loopback: CONNECT and absolute URLs, with or without a password."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from plexd.closing import AsyncClosing
from support.servers import Connection, RawServer

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ConnectProxy"]


class ConnectProxy(AsyncClosing):
    """Passes on what it is asked to, to this machine's loopback only.

    ``heads`` are the heads of the requests to the proxy itself. A request without ``credentials``
    (``user:password``, if any are set) is answered 407; ``refusal`` is answered to every CONNECT.
    """

    def __init__(self, credentials: str = "", refusal: str = "") -> None:
        self.heads: list[str] = []
        self._wanted = b64encode(credentials.encode()).decode() if credentials else ""
        self._refusal = refusal
        self._server = RawServer(self._talk)

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        return self._server.url

    async def _talk(self, connection: Connection) -> None:
        head = await connection.reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        method, target, _ = self.heads[-1].split(" ", 2)
        if self._wanted and f"Proxy-Authorization: Basic {self._wanted}\r\n" not in self.heads[-1]:
            await connection.send(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        elif method == "CONNECT" and self._refusal:
            await connection.send(f"HTTP/1.1 {self._refusal}\r\n\r\n".encode())
        elif method == "CONNECT":
            await self._pass_on(connection, target, b"", b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            parts = urlsplit(target)
            asked = head.replace(target.encode(), parts.path.encode(), 1)
            await self._pass_on(connection, parts.netloc, asked, b"")

    async def _pass_on(
        self, connection: Connection, target: str, to_server: bytes, to_client: bytes
    ) -> None:
        port = int(target.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(to_server)
            await connection.send(to_client)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(connection.reader, writer))
                group.create_task(_copy(reader, connection.writer))
        finally:
            writer.close()

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def aclose(self) -> None:
        await self._server.aclose()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # one side is gone
    writer.close()
