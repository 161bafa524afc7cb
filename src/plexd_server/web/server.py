"""Uvicorn inside this process's own event loop, behind an acceptor of ours."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from uvicorn import Config, Server

from plexd_server.web.accepting import accepting, allowance
from plexd_server.web.handshake import TLSEndpoint
from plexd_server.web.protocol import FLUSH_SECONDS, HEAD_SECONDS, BoundedProtocol

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Sequence
    from ssl import SSLContext

    from litestar.types import ASGIApp

_LOG = logging.getLogger(__name__)
# Longer than the usual report interval, or every report would need a new connection.
_IDLE_SECONDS = 90
_LAST_SECONDS = 1.0


def _is_no_proxy(host: str) -> bool:
    return not host


@asynccontextmanager
async def serving(
    app: ASGIApp,
    listeners: Sequence[socket.socket],
    *,
    grace_seconds: float,
    tls: SSLContext | None = None,
    head_seconds: float = HEAD_SECONDS,
    flush_seconds: float = FLUSH_SECONDS,
    is_proxy: Callable[[str], bool] = _is_no_proxy,
) -> AsyncIterator[None]:
    """Serve ``app`` while the body runs; on leaving, let requests in flight finish within bounds.

    New connections are refused from the moment of leaving, and requests that have not finished
    after ``grace_seconds`` are cut off. A connection is closed if its TLS handshake, or the head of
    a request, takes longer than ``head_seconds``. A closed connection is cut off if its client has
    not read the rest of the answer after ``flush_seconds``. Connections from addresses of which
    ``is_proxy`` is true have no share of their own, as many clients are behind them.
    """
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    server = _SignalFreeServer(_config(app))
    protocol = partial(
        BoundedProtocol,
        server.config,
        server.server_state,
        {},
        head_seconds=head_seconds,
        flush_seconds=flush_seconds,
    )
    start: Callable[[], asyncio.BaseProtocol] = protocol
    if tls is not None:
        start = TLSEndpoint(
            tls, protocol, handshake_seconds=head_seconds, shutdown_seconds=flush_seconds
        )
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(server.serve([]))
        try:
            async with accepting(listeners, start, allowance().connections, is_proxy) as acceptor:
                yield
        finally:
            server.should_exit = True
            await asyncio.wait({task}, timeout=grace_seconds)
            if not task.done():
                _LOG.warning("requests cut off", extra={"after_seconds": grace_seconds})
            acceptor.abort()  # the application learns of it from ``receive``
            await asyncio.wait({task}, timeout=_LAST_SECONDS)
            task.cancel()


def _config(app: ASGIApp) -> Config:
    return Config(
        app,
        http=BoundedProtocol,
        ws="none",
        loop="none",
        lifespan="off",
        interface="asgi3",
        timeout_keep_alive=_IDLE_SECONDS,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="error",
    )


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out that an answer was given up (`limits.InFlight`): a client could fill the log."""
    return record.msg != "ASGI callable returned without completing response."


class _SignalFreeServer(Server):
    """Uvicorn's server, which leaves the signals to the composition root."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator there
        return nullcontext()
