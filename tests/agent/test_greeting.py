"""What is logged at the start about a control plane that nothing connects to."""

from __future__ import annotations

import asyncio
import logging
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from plexd.agent.greeting import greet
from plexd.api import Config
from support.servers import Connection, RawServer

if TYPE_CHECKING:
    import pytest

LOGGER = logging.getLogger("plexd.test.greeting")
NAME = "plane.example"


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(vars(record)["error"]) for record in caplog.records if record.name == LOGGER.name]


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Give the name these addresses, in this order."""

    async def getaddrinfo(_: object, host: str, port: int, **__: object) -> list[Any]:
        assert host == NAME
        return [
            (socket.AF_INET6 if ":" in found else socket.AF_INET, socket.SOCK_STREAM, 6, "",
             (found, port, 0, 0) if ":" in found else (found, port))
            for found in addresses
        ]  # fmt: skip

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


def _close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def hold(connection: Connection) -> None:
    await connection.reader.read()


async def test_any_address_of_the_name_is_enough(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resolve(monkeypatch, "::1", "127.0.0.2", "127.0.0.1")
    async with RawServer(hold) as server:
        await greet(Config(f"http://{NAME}:{server.port}"), LOGGER, lambda: False)
        assert server.connections == 1
    assert logged(caplog) == []


async def test_an_address_that_never_answers_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.3", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(2)]
        for filler in waiting:  # a backlog that is full drops what comes after
            filler.settimeout(0)
            filler.connect_ex(("127.0.0.3", port))
        resolve(monkeypatch, "127.0.0.3", "127.0.0.1")
        answering = await asyncio.start_server(_close, "127.0.0.1", port)
        async with answering, asyncio.timeout(5):
            await greet(Config(f"http://{NAME}:{port}"), LOGGER, lambda: False)
        for filler in waiting:
            filler.close()
    assert logged(caplog) == []


async def test_where_no_address_answers_it_is_said_unless_a_report_was_accepted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resolve(monkeypatch, "127.0.0.2", "127.0.0.1")
    async with RawServer(hold) as gone:
        config = Config(f"http://{NAME}:{gone.port}", connect_timeout=timedelta(seconds=5))
    await greet(config, LOGGER, lambda: True)
    assert logged(caplog) == []
    await greet(config, LOGGER, lambda: False)
    assert logged(caplog) == ["Connection refused"]
