"""The composition root: the one place that knows and connects all parts of the server."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from litestar import Litestar

from plexd.clock import Clock, SystemClock
from plexd.console import put_whole
from plexd_server.auth import (
    BehindProxies,
    Gate,
    OperatorKey,
    new_operator_token,
    read_operator_token,
)
from plexd_server.dashboard.pages import refusal_page
from plexd_server.mesh import LiveMesh, ObservedStore, feeding
from plexd_server.routes import (
    health_routes,
    mesh_routes,
    node_routes,
    openapi_routes,
    page_routes,
    registration_routes,
    report_routes,
    state_routes,
)
from plexd_server.routes.state import PeerCache
from plexd_server.store import DuckDBStore, Store
from plexd_server.upkeep.data_dir import provide_registry
from plexd_server.upkeep.quiesce import pausing_writes_on_request
from plexd_server.upkeep.reserved_ids import reserving_ids
from plexd_server.upkeep.retention import retaining
from plexd_server.web import (
    Address,
    Certificate,
    ErrorPages,
    Guard,
    InFlight,
    bind,
    check_uvicorn,
    problem_handlers,
    served_certificate,
    serving,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterable
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path
    from ssl import SSLContext

    from litestar.types import ASGIApp

    from plexd_server.registry import Registry

_LOG = logging.getLogger(__name__)
_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 -- compared with, never bound to from here


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of ``plexd-server serve``."""

    listen: Address
    data_dir: Path
    allowed_hosts: tuple[str, ...] = ()
    operator_token_file: Path | None = None
    store_memory: str = "256MB"
    retention: timedelta = timedelta(days=365)
    grace_seconds: float = 10.0
    mesh_network: str | None = None
    node_rate: float = 50.0
    foreign_peers: int = 1024
    certificate: Certificate | None = None
    trusted_proxies: tuple[IPv4Network | IPv6Network | None, ...] = ()


async def serve(
    options: ServeOptions,
    stop: asyncio.Event | None = None,
    announce: Callable[[str], None] = put_whole,
) -> None:
    """Serve until ``stop`` is set, without one until SIGTERM or SIGINT.

    ``announce`` gets the two lines that say where. Raises `StartError` if the server cannot start.
    """
    check_uvicorn()
    stop = stop or _stop_event()
    path = options.operator_token_file
    token = new_operator_token() if path is None else read_operator_token(path)
    async with served_certificate(options.certificate, SystemClock()) as tls:
        with bind(options.listen) as listening:
            await _serve_on(listening, options, tls, token, stop, announce)
    _LOG.info("stopped")


async def _serve_on(
    listening: socket.socket,
    options: ServeOptions,
    tls: SSLContext | None,
    token: str,
    stop: asyncio.Event,
    announce: Callable[[str], None],
) -> None:
    address = Address(*listening.getsockname()[:2])
    async with _composed(options, address, token) as app:
        if stop.is_set():
            return
        # Connections wait in the kernel until uvicorn accepts them.
        shown = None if options.operator_token_file else token
        announce(_addresses(address, shown, is_secure=bool(tls)))
        _log_start(address, is_secure=bool(tls))
        async with serving(app, listening, grace_seconds=options.grace_seconds, tls=tls):
            await stop.wait()
            _LOG.info("stopping")


def build_app(
    store: Store,
    live: LiveMesh,
    registry: Registry,
    operator: OperatorKey,
    *,
    port: int,
    clock: Clock,
    node_rate: float = 0.0,
    hosts: Iterable[str] = (),
) -> Litestar:
    """Make the application of parts that the caller opened and will close."""
    gate = Gate(
        registry,
        operator,
        cookie_name=f"plexd-operator-{port}",
        clock=clock,
        node_rate=node_rate,
        hosts=hosts,
    )
    peers = PeerCache(registry, clock)
    handlers = [
        *registration_routes(registry, peers, clock),
        *state_routes(gate, registry, peers),
        *report_routes(gate, store, clock),
        *node_routes(gate, store, registry, live, clock),
        *mesh_routes(gate, live, clock),
        *page_routes(gate),
        *health_routes(store, clock),
    ]
    return Litestar(
        [*handlers, *openapi_routes(handlers)],
        exception_handlers=problem_handlers(),
        openapi_config=None,  # routes/openapi.py serves the document
        logging_config=None,
    )


@asynccontextmanager
async def _composed(options: ServeOptions, address: Address, token: str) -> AsyncIterator[ASGIApp]:
    """Open the registry and the store for an application, and close both afterwards."""
    clock = SystemClock()
    with closing(await asyncio.to_thread(provide_registry, options.data_dir, clock)) as registry:
        await asyncio.to_thread(_prepare, registry, options.mesh_network)
        embedded = await asyncio.to_thread(
            DuckDBStore, options.data_dir, memory=options.store_memory
        )
        live = LiveMesh(max_foreign=options.foreign_peers, clock=clock)
        operator = OperatorKey.of(token)
        async with aclosing(ObservedStore(embedded, live, registry)) as store:
            if options.operator_token_file is not None:
                await asyncio.to_thread(registry.end_sessions_of_another, operator.token_hash)
            app = build_app(
                store,
                live,
                registry,
                operator,
                port=address.port,
                clock=clock,
                node_rate=options.node_rate,
                hosts=_allowed(options),
            )
            async with (
                feeding(store, live, clock),
                reserving_ids(store, registry, clock),
                retaining(store, options.retention, clock),
                pausing_writes_on_request(embedded.quiesce, options.data_dir, clock),
            ):
                guarded = Guard(InFlight(app, clock), _allowed(options))
                yield BehindProxies(ErrorPages(guarded, refusal_page), options.trusted_proxies)


def _prepare(registry: Registry, mesh_network: str | None) -> None:
    registry.check_key()
    if mesh_network is not None:
        registry.mesh_network = mesh_network


def _allowed(options: ServeOptions) -> set[str]:
    """Return the host names of the server, except those of loopback."""
    hosts = set(options.allowed_hosts)
    if options.listen.host not in _WILDCARDS:
        host = options.listen.host
        hosts.add(f"[{host}]" if ":" in host else host)
    return hosts


def _stop_event() -> asyncio.Event:
    """Make an event that the first SIGTERM or SIGINT sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _addresses(address: Address, token: str | None, *, is_secure: bool) -> str:
    """Make the two lines that people and programs wait for, without a token from a file."""
    reached = Address("127.0.0.1", address.port) if address.host in _WILDCARDS else address
    scheme = "https" if is_secure else "http"
    link = f"{scheme}://{reached}/login" + (f"?token={token}" if token else "")
    return f"listening on {scheme}://{address}\ndashboard {link}\n"


def _log_start(address: Address, *, is_secure: bool) -> None:
    _LOG.info("started", extra={"listen": str(address)})
    if not is_secure and not _is_loopback(address):
        hint = "tokens and secrets travel readable; use --tls-cert and --tls-key, or listen on "
        _LOG.warning("plain HTTP beyond loopback", extra={"hint": f"{hint}a mesh address only"})


def _is_loopback(address: Address) -> bool:
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"
