"""A client whose name server fails, is silent, changes its mind or says too much (D05).

To be run by `names_apart`, in mounts and a network of its own: there ``/etc/resolv.conf`` names a
server of this process, and the system's resolver is the real one.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from faults.apart import do, run_apart
from plexd.api import Config, ControlPlane, TransportError
from plexd.metrics.retry import decide
from support.points import EXAMPLE
from support.servers import Connection, http_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

__all__ = ["Outcomes", "names_apart"]

_PORT = 8080
_URL = f"http://plane.example:{_PORT}"
_RESOLVER = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
_A = 1
_CUT, _MOST_BYTES = 0x8380, 512
_FAILURE, _NO_SUCH_NAME = 2, 3
_SOON = timedelta(milliseconds=300)


class Outcomes(msgspec.Struct):
    """What a report came to.

    Attributes:
        failures: of each way a name server fails, what the agent does then.
        reached: the server that each of a row of reports got to.
        questions: asked during that row.
        of_a_hundred: the server reached when the last of a hundred addresses is its.
    """

    failures: dict[str, str]
    reached: list[str]
    questions: int
    of_a_hundred: list[str]


class NameServer(asyncio.DatagramProtocol):
    """Answers each question for an address with ``addresses``, or ``code``, or not at all."""

    def __init__(self) -> None:
        self.addresses: Sequence[str] = ()
        self.code = 0
        self.is_silent = False
        self.questions = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.is_silent:
            answer = self._answer(data)
            if len(answer) > _MOST_BYTES:
                answer = answer[:2] + struct.pack(">H", _CUT) + answer[4:_MOST_BYTES]
            self._transport.sendto(answer, addr)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The same over TCP, to which an answer that was cut leads."""
        with suppress(asyncio.IncompleteReadError):
            while True:
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                answer = self._answer(await reader.readexactly(length))
                writer.write(struct.pack(">H", len(answer)) + answer)
        writer.close()

    def _answer(self, data: bytes) -> bytes:
        end = data.index(b"\0", 12) + 5
        (kind,) = struct.unpack_from(">H", data, end - 4)
        self.questions += kind == _A
        addresses = self.addresses if kind == _A and not self.code else ()
        head = data[:2] + struct.pack(">HHHHH", 0x8180 | self.code, 1, len(addresses), 0, 0)
        question = data[12:end]
        record = struct.pack(">HHHIH", 0xC00C, _A, 1, 0, 4)  # of the name in question, for 0 s
        return head + question + b"".join(record + _packed(address) for address in addresses)


def _packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


@asynccontextmanager
async def _server(address: str, reached: list[str]) -> AsyncIterator[asyncio.Server]:
    """A control plane that takes one report a connection and notes its own address."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await Connection(0, reader, writer).request()
            reached.append(address)
            writer.write(http_answer("200 OK", b"", "Connection: close"))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, address, _PORT)
    async with server:
        yield server


async def _failing(plane: ControlPlane) -> str:
    try:
        await plane.report_metrics("node-1", EXAMPLE)
    except TransportError as err:
        return f"{decide(err, 0).action.name}: {str(err).rpartition(': ')[2]}"
    return "accepted"


async def _failures(
    names: NameServer, plane: ControlPlane, hurried: ControlPlane
) -> dict[str, str]:
    found: dict[str, str] = {}
    for what, code in (("failure", _FAILURE), ("no such name", _NO_SUCH_NAME), ("no address", 0)):
        names.code = code
        found[what] = await _failing(plane)
    names.is_silent = True
    found["silence"] = await _failing(hurried)
    names.is_silent = False
    return found


async def _outcomes() -> Outcomes:
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", 53))
    reached: list[str] = []
    try:
        async with (
            await asyncio.start_server(names.talk, "127.0.0.1", 53),
            _server("127.0.0.1", reached),
            _server("127.0.0.2", reached),
            ControlPlane(Config(_URL, connect_timeout=_SOON)) as hurried,
            ControlPlane(Config(_URL)) as plane,
        ):
            failures = await _failures(names, plane, hurried)
            before = names.questions
            for last in (1, 2, 1):
                names.addresses = [f"127.0.0.{last}"]
                await plane.report_metrics("node-1", EXAMPLE)
            row, questions = tuple(reached), names.questions - before
            names.addresses = [f"127.1.0.{i}" for i in range(1, 100)] + ["127.0.0.1"]
            await plane.report_metrics("node-1", EXAMPLE)
            return Outcomes(failures, list(row), questions, reached[len(row) :])
    finally:
        transport.close()


class _Orders(msgspec.Struct):
    """None."""


def _main() -> None:
    do("ip", "link", "set", "lo", "up")
    with tempfile.NamedTemporaryFile("w") as made:
        made.write(_RESOLVER)
        made.flush()
        do("mount", "--bind", made.name, str(Path("/etc/resolv.conf").resolve()))
        sys.stdout.write(msgspec.json.encode(asyncio.run(_outcomes())).decode())


def names_apart() -> Outcomes:
    """All of it, in mounts and a network that end with it."""
    printed = run_apart("faults.names", _Orders(), seconds=60, network=True)
    return msgspec.json.decode(printed, type=Outcomes)


if __name__ == "__main__":
    _main()
