"""How many connections one address may have."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from plexd_server.web.accepting import accepting
from plexd_server.web.listeners import Address, bind

if TYPE_CHECKING:
    from collections.abc import Callable


def connected_from(address: str, port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10, source_address=(address, 0))


async def is_open(connection: socket.socket) -> bool:
    """Whether the server greets on it, in place of closing it."""
    return await asyncio.to_thread(connection.recv, 1) == b"!"


class Greeting(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"!")


async def opened(address: str, port: int, count: int, stack: ExitStack) -> int:
    made = [stack.enter_context(connected_from(address, port)) for _ in range(count)]
    return sum([await is_open(each) for each in made])


@pytest.mark.parametrize(
    ("is_proxy", "expected"), [(lambda _: False, 8), (lambda host: host == "127.0.0.2", 12)]
)
async def test_one_address_has_half_of_the_connections_unless_it_is_a_proxy(
    is_proxy: Callable[[str], bool], expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    listening = bind(Address("127.0.0.1", 0))
    port = listening.getsockname()[1]
    async with asyncio.timeout(20), accepting([listening], Greeting, 16, is_proxy):
        with ExitStack() as one:
            assert await opened("127.0.0.2", port, 12, one) == expected
            with ExitStack() as two:
                assert await opened("127.0.0.3", port, 2, two) == 2
        with ExitStack() as again:
            while await opened("127.0.0.2", port, 8, again) < 8:
                again.close()

    refused = [record for record in caplog.records if record.message == "too many connections"]
    assert [record.__dict__["address"] for record in refused] == ["127.0.0.2"] * (expected < 12)
