"""``plexd-server serve``."""

from __future__ import annotations

import gc
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse

    from plexd_server.web.tls import Certificate


# Objects that are new, and collections of those before an older generation is looked at. What is
# new is collected in one callback of the event loop: 50,000 objects took it up to 70 ms.
_SELDOM: Final = (5_000, 20, 500)


def run(options: argparse.Namespace) -> None:
    """Serve until stopped. Raises `ServerError`, and `ValueError` for wrong options."""
    # Until the event loop handles signals itself, there is nothing to stop but the process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that closes, or nothing to read anew
    import asyncio  # noqa: PLC0415 -- importing takes a while; signals work from here on

    from plexd.logs import setup_logging  # noqa: PLC0415
    from plexd_server.app import ServeOptions, serve  # noqa: PLC0415
    from plexd_server.cli import options as values  # noqa: PLC0415

    os.umask(0o077)  # only the owner reads points, journal, and what DuckDB spills
    levels = {"plexd_server": "info", "plexd": "info"}
    setup_logging("warning", options.log_format, levels, tracebacks=True)
    network = options.mesh_network
    retention = values.parse_retention(options.retention)
    chosen = ServeOptions(
        listen=values.parse_listen(options.listen),
        data_dir=options.data_dir,
        allowed_hosts=tuple(map(values.parse_host, options.allowed_host)),
        operator_token_file=options.operator_token_file,
        retention=retention,
        retention_rollups=values.parse_retention_rollups(options.retention_rollups, retention),
        store_memory=values.parse_size(options.store_memory),
        mesh_network=None if network is None else values.parse_network(network),
        node_rate=values.parse_rate(options.node_rate),
        foreign_peers=values.parse_foreign_peers(options.foreign_peers),
        certificate=_certificate(options),
        trusted_proxies=tuple(map(values.parse_proxies, options.trusted_proxy)),
        base_path=values.parse_base_path(options.base_path),
        log_format=options.log_format,
    )
    asyncio.run(serve(chosen, announce=_announce))


def _announce(text: str) -> None:
    """Say where the server is, and have what it is made of left out of collections from then on.

    Points of a report are alive for a moment and in no cycles, but each collection looks at them.
    """
    from plexd.console import put_whole  # noqa: PLC0415

    gc.collect()
    gc.freeze()
    gc.set_threshold(*_SELDOM)
    put_whole(text)


def _certificate(options: argparse.Namespace) -> Certificate | None:
    from plexd_server.web.tls import Certificate  # noqa: PLC0415 -- only what a command needs

    if options.tls_cert is None and options.tls_key is None:
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise ValueError("--tls-cert and --tls-key go together")
    return Certificate(options.tls_cert, options.tls_key)
