from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from plexd_server.http import Address, bind, serving

if TYPE_CHECKING:
    import pytest

HALF = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf"


async def test_a_sender_that_never_ends_is_cut_off_after_the_grace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reading = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, send
        reading.set()
        while (await receive()).get("more_body"):
            pass

    listening = bind(Address("127.0.0.1", 0))
    port = listening.getsockname()[1]
    async with asyncio.timeout(20):
        async with serving(app, listening, grace_seconds=0.2):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HALF)
            await reading.wait()
        writer.close()

    assert [record.message for record in caplog.records] == ["requests cut off"]
