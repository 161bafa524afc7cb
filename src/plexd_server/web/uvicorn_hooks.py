"""The names of uvicorn that this server overrides, calls or reads; few of them are documented.

A release of uvicorn may rename one. Without this check, an override would silently have no effect,
and the bounds in it would be gone.
"""

from __future__ import annotations

import asyncio
import dis
from importlib import metadata
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server, ServerState

from plexd_server.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

HOOKS: Final[Mapping[type, Collection[str]]] = {
    Server: ("capture_signals", "serve", "server_state", "should_exit"),
    ServerState: ("connections",),
    HttpToolsProtocol: (
        "_unset_keepalive_if_required",
        "connection_lost",
        "connection_made",
        "connections",
        "cycle",
        "data_received",
        "loop",
        "on_body",
        "on_header",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "pipeline",
        "send_400_response",
        "transport",
    ),
    RequestResponseCycle: ("response_complete",),
}


def check_uvicorn(hooks: Mapping[type, Collection[str]] = HOOKS) -> None:
    """Raise `StartError` if the installed uvicorn lacks one of the hooks."""
    for owner, names in hooks.items():
        if missing := sorted(set(names) - _names_of(owner)):
            raise StartError(
                f"uvicorn {metadata.version('uvicorn')} cannot be used: its {owner.__name__} has "
                f"no {', '.join(missing)}; install a supported one with: "
                "pip install --upgrade 'plexd[server]'"
            )


def _names_of(owner: type) -> set[str]:
    """Return the attributes of a class and of its objects, without those of asyncio's classes."""
    own = [each for each in owner.__mro__ if each not in asyncio.Protocol.__mro__]
    return {name for each in own for name in (*vars(each), *_set_by_init(each))}


def _set_by_init(owner: type) -> list[str]:
    init = vars(owner).get("__init__")
    code = dis.get_instructions(init) if init is not None else ()
    return [step.argval for step in code if step.opname == "STORE_ATTR"]
