"""The composition root: the one place that knows all parts of the server and connects them."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import stat
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from litestar import Litestar

from plexd.clock import Clock, SystemClock
from plexd.console import put_whole
from plexd_server.auth.gate import Gate, OperatorKey, new_operator_token
from plexd_server.dashboard import ErrorPages, dashboard_routes
from plexd_server.errors import StartError
from plexd_server.mesh import LiveMesh, ObservedStore, mesh_routes, watching
from plexd_server.routes.nodes import query_routes
from plexd_server.routes.openapi import openapi_routes
from plexd_server.routes.register import enrol_routes
from plexd_server.routes.reports import ingest_routes
from plexd_server.store import DuckDBStore, Store
from plexd_server.upkeep.data_dir import provide_registry
from plexd_server.upkeep.quiesce import granting
from plexd_server.upkeep.retention import retaining
from plexd_server.web.guard import Guard
from plexd_server.web.limits import InFlight
from plexd_server.web.problems import problem_handlers
from plexd_server.web.server import Address, bind, serving
from plexd_server.web.tls import served_certificate

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from ssl import SSLContext

    from litestar.types import ASGIApp

    from plexd_server.registry import Registry
    from plexd_server.web.tls import Certificate

__all__ = ["ServeOptions", "build_app", "serve"]

_LOG = logging.getLogger(__name__)
_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 -- compared with, never bound to from here
_MIN_OPERATOR_TOKEN = 16
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What ``plexd-server serve`` was told."""

    listen: Address
    data_dir: Path
    allowed_hosts: tuple[str, ...] = ()
    operator_token_file: Path | None = None
    store_memory: str = "256MB"
    retention: timedelta = timedelta(days=365)
    grace_seconds: float = 10.0
    mesh_network: str | None = None
    node_rate: float = 50.0
    certificate: Certificate | None = None


async def serve(
    options: ServeOptions,
    stop: asyncio.Event | None = None,
    announce: Callable[[str], None] = put_whole,
) -> None:
    """Serve until ``stop`` is set, without one until SIGTERM or SIGINT.

    ``announce`` gets the two lines that say where. Raises `StartError` if that cannot begin.
    """
    stop = stop or _stop_event()
    token = _operator_token(options.operator_token_file)
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
        # Connections wait in the kernel until uvicorn takes them.
        shown = None if options.operator_token_file else token
        announce(_whereabouts(address, shown, is_secure=bool(tls)))
        _log_start(address, is_secure=bool(tls))
        async with serving(app, listening, grace_seconds=options.grace_seconds, tls=tls):
            await stop.wait()
            _LOG.info("stopping")


def build_app(
    store: Store,
    board: LiveMesh,
    registry: Registry,
    operator: OperatorKey,
    *,
    port: int,
    clock: Clock,
    node_rate: float = 0.0,
    is_secure: bool = False,
) -> Litestar:
    """The routes, on parts that somebody else opened and will close."""
    gate = Gate(
        registry,
        operator,
        cookie_name=f"plexd-operator-{port}",
        clock=clock,
        node_rate=node_rate,
        is_secure=is_secure,
    )
    return Litestar(
        [
            *enrol_routes(gate, registry, clock),
            *ingest_routes(gate, store, clock),
            *query_routes(gate, store, registry, clock),
            *mesh_routes(gate, board, registry, clock),
            *dashboard_routes(gate),
            *openapi_routes(),
        ],
        exception_handlers=problem_handlers(),
        openapi_config=None,  # openapi.py tells what a handler's signature does not
        logging_config=None,
    )


@asynccontextmanager
async def _composed(options: ServeOptions, address: Address, token: str) -> AsyncIterator[ASGIApp]:
    """The application over an open registry and store, both closed afterwards."""
    clock = SystemClock()
    registry = await asyncio.to_thread(_open_registry, options, clock)
    try:
        board = LiveMesh()
        embedded = await asyncio.to_thread(
            DuckDBStore, options.data_dir, memory=options.store_memory
        )
        store = ObservedStore(embedded, board)
        key = OperatorKey.of(token)
        try:
            app = build_app(
                store,
                board,
                registry,
                key,
                port=address.port,
                clock=clock,
                node_rate=options.node_rate,
                is_secure=options.certificate is not None,
            )
            async with (
                watching(store, board, registry, clock),
                retaining(store, options.retention, clock),
                granting(embedded.hold_still, options.data_dir, clock),
            ):
                yield ErrorPages(Guard(InFlight(app, clock), _allowed(options)))
        finally:
            await store.aclose()
    finally:
        registry.close()


def _open_registry(options: ServeOptions, clock: Clock) -> Registry:
    registry = provide_registry(options.data_dir, clock)
    try:
        registry.check_key()
        if options.mesh_network is not None:
            registry.mesh_network = options.mesh_network
    except BaseException:
        registry.close()
        raise
    return registry


def _allowed(options: ServeOptions) -> set[str]:
    """The names the server answers to, beyond those of loopback."""
    hosts = set(options.allowed_hosts)
    if options.listen.host not in _WILDCARDS:
        host = options.listen.host
        hosts.add(f"[{host}]" if ":" in host else host)
    return hosts


def _stop_event() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _whereabouts(address: Address, token: str | None, *, is_secure: bool) -> str:
    """The two lines that people and programs wait for. A token from a file is not repeated."""
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


def _operator_token(path: Path | None) -> str:
    if path is None:
        return new_operator_token()
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or "it holds more than ASCII"
        raise StartError(f"cannot read the operator token from {path}: {reason}") from err
    if mode & _OTHERS:
        raise StartError(f"others can read the operator token in {path}; run: chmod 600 {path}")
    if len(token) < _MIN_OPERATOR_TOKEN or not token.replace("-", "").replace("_", "").isalnum():
        raise StartError(
            f"the operator token in {path} must be at least {_MIN_OPERATOR_TOKEN} letters, "
            "digits, '-' or '_'; make one with: openssl rand -hex 32"
        )
    return token
