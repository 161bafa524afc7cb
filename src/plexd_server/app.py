"""The composition root: the one place that knows and connects all parts of the server."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from litestar import Litestar

from plexd.background import in_background
from plexd.clock import Clock, SystemClock
from plexd.console import put_whole
from plexd_server.auth import (
    BehindProxies,
    Gate,
    OperatorKey,
    is_proxy,
    new_operator_token,
    read_operator_token,
)
from plexd_server.dashboard.pages import refusal_page
from plexd_server.errors import StartError
from plexd_server.mesh import LiveMesh, ObservedStore, feeding
from plexd_server.opened_files import OpenedFiles
from plexd_server.routes import (
    FastPath,
    Reports,
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
from plexd_server.store import Apart, DuckDBStore, Store
from plexd_server.upkeep.data_dir import provide_registry
from plexd_server.upkeep.missing_files import FoundFiles, report_missing
from plexd_server.upkeep.quiesce import pausing_writes_on_request
from plexd_server.upkeep.reserved_ids import reserving_ids
from plexd_server.upkeep.retention import retaining
from plexd_server.web import (
    Address,
    BasePath,
    Certificate,
    ErrorPages,
    Guard,
    HeadAsGet,
    InFlight,
    UnixPath,
    UnreadAnswers,
    address_of_listener,
    address_to_reach,
    allowance,
    check_uvicorn,
    listening_on,
    log_allowance,
    problem_handlers,
    served_certificate,
    serving,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path
    from ssl import SSLContext

    from litestar.types import ASGIApp

    from plexd_server.registry import Registry

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of ``plexd-server serve``.

    Without ``tables_apart`` the tables are a thread of this process, as tests have them.
    """

    listen: Address | UnixPath
    data_dir: Path
    allowed_hosts: tuple[str, ...] = ()
    operator_token_file: Path | None = None
    store_memory: str = "256MB"
    retention: timedelta = timedelta(days=365)
    retention_rollups: timedelta = timedelta(days=5 * 365)
    grace_seconds: float = 10.0
    mesh_network: str | None = None
    node_rate: float = 50.0
    foreign_peers: int = 1024
    certificate: Certificate | None = None
    trusted_proxies: tuple[IPv4Network | IPv6Network | None, ...] = ()
    base_path: str = ""
    tables_apart: bool = True
    log_format: str = "logfmt"


class _Signals:
    """What signals ask for; the certificate and the token each have an event of their own."""

    def __init__(self, stop: asyncio.Event | None) -> None:
        self.stop = stop or asyncio.Event()
        self.renew_certificate = asyncio.Event()
        self.renew_token = asyncio.Event()
        if stop is None:
            self._listen(asyncio.get_running_loop())

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._renew)

    def _renew(self) -> None:
        """Have the files read again; a terminal that closes sends this signal, too."""
        self.renew_certificate.set()
        self.renew_token.set()


async def serve(
    options: ServeOptions,
    stop: asyncio.Event | None = None,
    announce: Callable[[str], None] = put_whole,
) -> None:
    """Serve until ``stop`` is set, without one until SIGTERM or SIGINT.

    Without ``stop``, SIGHUP has the certificate and the operator's token read again. Listening
    sockets that a service manager handed over are used in place of ``options.listen``.
    ``announce`` gets the two lines that say where. Raises `StartError` if the server cannot start.
    """
    check_uvicorn()
    signals = _Signals(stop)
    path = options.operator_token_file
    token = new_operator_token() if path is None else read_operator_token(path)
    async with served_certificate(
        options.certificate, SystemClock(), signals.renew_certificate
    ) as tls:
        with listening_on(options.listen, os.environ) as listeners:
            await _serve_on(listeners, options, tls, token, signals, announce)
    _LOG.info("stopped")


async def _serve_on(
    listeners: Sequence[socket.socket],
    options: ServeOptions,
    tls: SSLContext | None,
    token: str,
    signals: _Signals,
    announce: Callable[[str], None],
) -> None:
    addresses = [*map(address_of_listener, listeners)]
    operator = OperatorKey.of(token)
    async with _composed(options, addresses, operator, signals.renew_token) as app:
        if signals.stop.is_set():
            return
        # Connections wait in the kernel until they are accepted.
        shown = None if options.operator_token_file else token
        announce(_addresses(listeners[0], shown, options.base_path, is_secure=bool(tls)))
        _log_start(addresses, is_secure=bool(tls))
        async with serving(
            app,
            listeners,
            grace_seconds=options.grace_seconds,
            tls=tls,
            is_proxy=partial(is_proxy, trusted=options.trusted_proxies),
        ):
            await signals.stop.wait()
            _LOG.info("stopping")


async def _renewing(
    operator: OperatorKey, path: Path | None, registry: Registry, asked: asyncio.Event
) -> None:
    """Read the token's file again whenever that is asked for; a wrong one changes nothing."""
    while path is not None:
        await asked.wait()
        asked.clear()
        try:
            operator.replace(await asyncio.to_thread(read_operator_token, path))
            await asyncio.to_thread(registry.end_sessions_of_another, operator.token_hash)
        except StartError as err:
            _LOG.warning("operator token not read anew", extra={"error": str(err)})
        else:
            _LOG.info("operator token read anew", extra={"file": str(path)})


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
) -> FastPath:
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
    reports = Reports(gate, store, clock)
    handlers = [
        *registration_routes(registry, peers, clock),
        *state_routes(gate, registry, peers),
        *report_routes(reports),
        *node_routes(gate, store, registry, live, clock),
        *mesh_routes(gate, live, clock),
        *page_routes(gate),
        *health_routes(store, clock),
    ]
    router = Litestar(
        [*handlers, *openapi_routes(handlers)],
        exception_handlers=problem_handlers(),
        openapi_config=None,  # routes/openapi.py serves the document
        logging_config=None,
    )
    return FastPath(UnreadAnswers(HeadAsGet(router)), router, reports)


@asynccontextmanager
async def _composed(
    options: ServeOptions,
    addresses: Sequence[Address | UnixPath],
    operator: OperatorKey,
    renew: asyncio.Event,
) -> AsyncIterator[ASGIApp]:
    """Open the registry and the store for an application, and close both afterwards.

    ``renew`` has the operator's token read again.
    """
    clock = SystemClock()
    files = OpenedFiles(clock)
    found = await asyncio.to_thread(FoundFiles.of, options.data_dir)
    with closing(
        await asyncio.to_thread(provide_registry, options.data_dir, clock, files)
    ) as registry:
        await asyncio.to_thread(_prepare, registry, options.mesh_network)
        embedded = await asyncio.to_thread(
            DuckDBStore,
            options.data_dir,
            memory=options.store_memory,
            files=files,
            apart=(
                Apart(options.log_format, options.store_memory) if options.tables_apart else None
            ),
        )
        live = LiveMesh(max_foreign=options.foreign_peers, clock=clock)
        async with aclosing(ObservedStore(embedded, live, registry)) as store:
            await asyncio.to_thread(report_missing, found, registry, clock)
            if options.operator_token_file is not None:
                await asyncio.to_thread(registry.end_sessions_of_another, operator.token_hash)
            app = build_app(
                store,
                live,
                registry,
                operator,
                port=next((each.port for each in addresses if isinstance(each, Address)), 0),
                clock=clock,
                node_rate=options.node_rate,
                hosts=_allowed(options, addresses),
            )
            async with (
                feeding(store, live, clock),
                reserving_ids(store, registry, clock),
                retaining(store, options.retention, options.retention_rollups, clock),
                pausing_writes_on_request(embedded.quiesce, options.data_dir, clock),
                in_background(_renewing(operator, options.operator_token_file, registry, renew)),
            ):
                bounded = InFlight(app, clock)
                guarded = Guard(bounded, _allowed(options, addresses))
                based = BasePath(ErrorPages(guarded, refusal_page), options.base_path)
                yield BehindProxies(based, options.trusted_proxies)


def _prepare(registry: Registry, mesh_network: str | None) -> None:
    registry.check_key()
    if mesh_network is not None:
        registry.mesh_network = mesh_network


def _allowed(options: ServeOptions, addresses: Sequence[Address | UnixPath]) -> set[str]:
    """Return the host names of the server, except those of loopback."""
    listened_on = (each for each in (options.listen, *addresses) if isinstance(each, Address))
    hosts = {each.host for each in listened_on if not each.is_wildcard}
    return {*options.allowed_hosts, *(f"[{host}]" if ":" in host else host for host in hosts)}


def _addresses(
    listening: socket.socket, token: str | None, base_path: str, *, is_secure: bool
) -> str:
    """Make the two lines that people and programs wait for, without a token from a file.

    Only a proxy knows the rest of a link to a Unix socket.
    """
    scheme = "https://" if is_secure else "http://"
    address, reached = address_of_listener(listening), address_to_reach(listening)
    link = f"{base_path}/login" + (f"?token={token}" if token else "")
    if isinstance(address, UnixPath):
        return f"listening on {address}\ndashboard {link}\n"
    return f"listening on {scheme}{address}\ndashboard {scheme}{reached}{link}\n"


def _log_start(addresses: Sequence[Address | UnixPath], *, is_secure: bool) -> None:
    _LOG.info("started", extra={"listen": ", ".join(map(str, addresses))})
    log_allowance(allowance())
    is_local = all(isinstance(each, UnixPath) or each.is_loopback for each in addresses)
    if not is_secure and not is_local:
        hint = "tokens and secrets travel readable; use --tls-cert and --tls-key, or listen on "
        _LOG.warning("plain HTTP beyond loopback", extra={"hint": f"{hint}a mesh address only"})
