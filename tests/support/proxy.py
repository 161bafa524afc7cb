"""A TCP proxy between an agent and a server with the faults of a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["CLEAN", "FaultProxy", "Weather"]

_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to one connection; byte positions count from 0 in each direction.

    Attributes:
        latency: the delay of every chunk in seconds, in each direction.
        cut_request_at: the connection is reset once that many bytes have come from the client.
        cut_answer_at: the same for bytes from the server; what came before is passed on.
        bytes_per_second: the highest rate towards the client.
        blackhole: the client's bytes are read and never answered; nothing reaches the server.
        corrupt_answer_at: the lowest bit of this byte from the server is flipped.
        duplicate: when the client is done, everything it sent is sent again on a new connection.
    """

    latency: float = 0.0
    cut_request_at: int | None = None
    cut_answer_at: int | None = None
    bytes_per_second: int = 0
    blackhole: bool = False
    corrupt_answer_at: int | None = None
    duplicate: bool = False


CLEAN = Weather()

Forecast = Callable[[int], Weather]


class _Cut(Exception):  # noqa: N818  # a command, not an error of this program
    """End the connection with a RST."""


class FaultProxy:
    """Passes connections on to ``port`` of this machine; an async context manager.

    ``forecast`` returns the weather of the n-th connection, n = 0, 1, …; ``forwarded`` counts the
    bytes that were passed to the server, ``returned`` those that came back to the client.
    """

    def __init__(self, port: int, forecast: Forecast = lambda _: CLEAN) -> None:
        self.forecast = forecast
        self.connections = 0
        self.forwarded = 0
        self.returned = 0
        self._upstream = port
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        weather = self.forecast(self.connections)
        self.connections += 1
        task = asyncio.create_task(self._pass_on(weather, reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _pass_on(
        self, weather: Weather, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            if weather.blackhole:
                while await reader.read(_CHUNK):
                    pass
                return
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            try:
                sent = await self._exchange(weather, reader, writer, up_reader, up_writer)
            finally:
                up_writer.close()
            if weather.duplicate:
                await self._send_again(sent)
        except _Cut:
            writer.transport.abort()
        except OSError:
            pass  # one side closed
        finally:
            writer.close()

    async def _exchange(
        self,
        weather: Weather,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> bytes:
        """Pass on both directions until one ends; return what the client sent until then."""
        request = asyncio.create_task(self._request(weather, reader, up_writer))
        answer = asyncio.create_task(self._answer(weather, up_reader, writer))
        try:
            await asyncio.wait([request, answer], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
                return b""
            return request.result()
        finally:
            for task in (request, answer):
                task.cancel()
            await asyncio.gather(request, answer, return_exceptions=True)

    async def _request(
        self, weather: Weather, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        sent = bytearray()
        while data := await reader.read(_CHUNK):
            await asyncio.sleep(weather.latency)
            cut = weather.cut_request_at
            data = data if cut is None else data[: max(0, cut - len(sent))]
            sent += data
            self.forwarded += len(data)
            writer.write(data)
            await writer.drain()
            if cut is not None and len(sent) >= cut:
                raise _Cut
        return bytes(sent)

    async def _answer(
        self, weather: Weather, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        passed = 0
        while data := await reader.read(weather.bytes_per_second or _CHUNK):
            await asyncio.sleep(weather.latency + (1.0 if weather.bytes_per_second else 0.0))
            data = _flipped(data, weather.corrupt_answer_at, passed)
            cut = weather.cut_answer_at
            data = data if cut is None else data[: max(0, cut - passed)]
            passed += len(data)
            self.returned += len(data)
            writer.write(data)
            await writer.drain()
            if cut is not None and passed >= cut:
                raise _Cut

    async def _send_again(self, sent: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            writer.write(sent)
            writer.write_eof()
            while await reader.read(_CHUNK):
                pass
        finally:
            writer.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        talks = tuple(self._talks)
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def _flipped(data: bytes, at: int | None, passed: int) -> bytes:
    if at is None or not passed <= at < passed + len(data):
        return data
    spoilt = bytearray(data)
    spoilt[at - passed] ^= 1
    return bytes(spoilt)
