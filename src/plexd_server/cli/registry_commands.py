"""Every command that works on the registry, beside a running server or without one."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from plexd.clock import SystemClock
from plexd.console import note
from plexd_server.cli import node_secrets as secrets
from plexd_server.cli import nodes, tokens, upkeep
from plexd_server.registry import has_registry
from plexd_server.upkeep.data_dir import open_registry, provide_registry

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from plexd_server.registry import Registry

__all__ = ["run"]


def run(options: argparse.Namespace) -> None:
    """Do it. Raises `ServerError`, and `ValueError` for options that are wrong."""
    command = _COMMANDS[options.command](options)
    is_new = options.command in _BEFORE_THE_FIRST_START and not has_registry(options.data_dir)
    get_registry = provide_registry if is_new else open_registry
    with closing(get_registry(options.data_dir, SystemClock())) as registry:
        command(registry)
    if is_new:
        note(f"{options.data_dir} is a new data directory; start the server with it")


# What lets somebody in can be prepared; the others would make a directory of a mistyped name.
_BEFORE_THE_FIRST_START = frozenset({"token create", "node create", "ingest-token create"})


# Options are read first, so that a wrong one leaves no trace; then the registry is opened.
_COMMANDS: dict[str, Callable[[argparse.Namespace], Callable[[Registry], None]]] = {
    "token create": tokens.create,
    "token list": tokens.show_all,
    "token revoke": tokens.revoke,
    "node create": nodes.create,
    "node list": nodes.show_all,
    "node show": nodes.show,
    "node revoke": nodes.revoke,
    "node rotate": nodes.rotate,
    "secret set": secrets.keep,
    "secret list": secrets.show_all,
    "secret delete": secrets.delete,
    "ingest-token create": secrets.create_ingest_token,
    "ingest-token revoke": secrets.revoke_ingest_tokens,
    "prune": upkeep.prune,
    "backup": upkeep.backup,
}
