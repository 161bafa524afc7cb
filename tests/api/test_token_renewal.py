"""A token that is replaced while the client runs: it is read again, once, and used at once."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from plexd.api import APIError, Config, ControlPlane
from support.points import EXAMPLE, named
from support.servers import Reply, ScriptedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.usefixtures("nothing_leaks", "few_authorities")

OLD, NEW = "old-canary", "new-canary"
LOGGER = logging.getLogger("plexd.test.renewal")


class TokenFile:
    """The file an operator edits: it has a token, or the reason why it cannot be read."""

    def __init__(self, content: str | Exception = OLD) -> None:
        self.content = content
        self.reads = 0
        self.free = threading.Event()
        self.free.set()
        self.opened = threading.Event()

    def read(self) -> str:
        self.reads += 1
        self.opened.set()
        self.free.wait(10)
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


class Gatekeeper(ScriptedServer):
    """A server that takes one token and refuses every other."""

    def __init__(self, accepted: str, status: int = 401) -> None:
        super().__init__(self.judge)
        self.accepted = accepted
        self.status = status

    async def judge(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Authorization") == f"Bearer {self.accepted}":
            return web.Response()
        return web.Response(status=self.status, text="unknown token")

    def shown(self) -> list[str]:
        return [request.headers["Authorization"].split()[1] for request in self.requests]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER.name]


def shows_a_token(caplog: pytest.LogCaptureFixture) -> bool:
    return any("canary" in str(vars(record)) for record in caplog.records)


@asynccontextmanager
async def client(
    server: ScriptedServer, read: Callable[[], str] | None
) -> AsyncIterator[ControlPlane]:
    config = Config(server.url, auth_token=OLD)
    async with ControlPlane(config, logger=LOGGER, read_token=read) as plane:
        yield plane


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_is_read_again_and_the_call_repeated_once(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)
    file = TokenFile(NEW)
    async with Gatekeeper(NEW, status) as server, client(server, file.read) as plane:
        await plane.report_metrics("node-1", named(EXAMPLE))
        await plane.report_metrics("node-1", named(EXAMPLE))
    assert server.shown() == [OLD, NEW, NEW]
    first, second, _ = server.requests
    assert (first.body, first.headers["Plexd-Batch"]) == (
        second.body,
        second.headers["Plexd-Batch"],
    )
    assert file.reads == 1
    assert said(caplog) == ["credential read anew"]
    assert not shows_a_token(caplog)


async def test_the_same_token_again_is_not_tried_again() -> None:
    file = TokenFile(OLD)
    async with Gatekeeper(NEW) as server, client(server, file.read) as plane:
        for _ in range(2):
            with pytest.raises(APIError, match="HTTP 401: unknown token"):
                await plane.report_metrics("node-1", EXAMPLE)
    assert server.shown() == [OLD, OLD]
    assert file.reads == 2


async def test_a_newer_token_that_is_refused_as_well_is_the_end_of_the_call() -> None:
    file = TokenFile("another")
    async with Gatekeeper(NEW) as server, client(server, file.read) as plane:
        with pytest.raises(APIError, match="HTTP 401"):
            await plane.report_metrics("node-1", EXAMPLE)
        assert server.shown() == [OLD, "another"]
        file.content = NEW
        await plane.report_metrics("node-1", EXAMPLE)
    assert server.shown() == [OLD, "another", "another", NEW]


async def test_without_a_place_to_read_from_the_refusal_goes_up() -> None:
    async with Gatekeeper(NEW) as server, client(server, None) as plane:
        with pytest.raises(APIError, match="HTTP 401"):
            await plane.report_metrics("node-1", EXAMPLE)
    assert server.shown() == [OLD]


@pytest.mark.parametrize("status", [400, 404, 429, 500, 302])
async def test_other_refusals_read_nothing(status: int) -> None:
    file = TokenFile(NEW)
    async with ScriptedServer(Reply(status)) as server, client(server, file.read) as plane:
        with pytest.raises(APIError):
            await plane.report_metrics("node-1", EXAMPLE)
    assert file.reads == 0


async def test_fifty_concurrent_calls_with_a_revoked_token_cause_one_read() -> None:
    file = TokenFile(NEW)
    file.free.clear()
    async with Gatekeeper(NEW) as server, client(server, file.read) as plane:
        calls = [asyncio.create_task(plane.report_metrics("node-1", EXAMPLE)) for _ in range(50)]
        async with asyncio.timeout(10):
            while len(server.requests) < 50:
                await server.next_request()
                server.asked.clear()
        file.free.set()
        await asyncio.gather(*calls)
        assert file.reads == 1
        assert server.shown().count(NEW) == 50


UNUSABLE: dict[str, str | Exception] = {
    "no file": FileNotFoundError("no identity"),
    "nothing in it": "",
    "a line end": NEW + "\r\nX: 1",
    "an error without a word": RuntimeError(),
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_a_token_that_cannot_be_read_is_logged_once_and_the_old_one_stays(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)
    file = TokenFile(UNUSABLE[name])
    async with Gatekeeper(NEW) as server, client(server, file.read) as plane:
        for _ in range(3):
            with pytest.raises(APIError, match="HTTP 401"):
                await plane.report_metrics("node-1", EXAMPLE)
        assert said(caplog) == ["credential not read anew"]
        assert not shows_a_token(caplog)
        server.accepted = OLD
        await plane.report_metrics("node-1", EXAMPLE)
        server.accepted, file.content = NEW, NEW
        await plane.report_metrics("node-1", EXAMPLE)
    assert server.shown() == [OLD] * 5 + [NEW]


async def test_a_registration_shows_its_own_token_and_reads_none() -> None:
    file = TokenFile(NEW)
    async with ScriptedServer(Reply(403)) as server, client(server, file.read) as plane:
        with pytest.raises(APIError):
            await plane.register("boot", "pk", "host", {})
    assert (len(server.requests), file.reads) == (1, 0)


async def test_a_read_that_hangs_holds_up_neither_a_cancellation_nor_the_end() -> None:
    file = TokenFile(NEW)
    file.free.clear()
    async with Gatekeeper(NEW) as server:
        async with client(server, file.read) as plane:
            call = asyncio.create_task(plane.report_metrics("node-1", EXAMPLE))
            await server.next_request()
            await asyncio.to_thread(file.opened.wait, 10)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled()
        file.free.set()


async def test_no_refusal_shows_the_newer_token() -> None:
    async def repeat(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=401, text=f"bad {request.headers['Authorization']}")

    file = TokenFile(NEW)
    async with ScriptedServer(repeat) as server, client(server, file.read) as plane:
        with pytest.raises(APIError) as caught:
            await plane.report_metrics("node-1", EXAMPLE)
    assert "canary" not in str(caught.value)
