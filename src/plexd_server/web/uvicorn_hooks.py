"""The names of uvicorn and asyncio that this server overrides, calls or reads; few are documented.

A release may rename one. Without this check, an override would silently have no effect,
and the bounds in it would be gone.
"""

from __future__ import annotations

import asyncio
import dis
import platform
from asyncio.sslproto import SSLProtocol
from importlib import metadata
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server

from plexd_server.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

HOOKS: Final[Mapping[type, Collection[str]]] = {
    Server: ("capture_signals", "serve", "server_state", "should_exit"),
    HttpToolsProtocol: (
        "_unset_keepalive_if_required",
        "connection_lost",
        "connection_made",
        "cycle",
        "data_received",
        "eof_received",
        "loop",
        "on_body",
        "on_header",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "pipeline",
        "scheme",
        "send_400_response",
        "transport",
    ),
    RequestResponseCycle: ("keep_alive", "more_body", "response_complete"),
    SSLProtocol: (
        "_get_write_buffer_size",
        "_ssl_buffer_view",
        "_transport",
        "buffer_updated",
        "connection_made",
        "get_buffer",
        "max_size",
    ),
}
_UPGRADE: Final = "install a supported one with: pip install --upgrade 'plexd[server]'"


def check_uvicorn(hooks: Mapping[type, Collection[str]] = HOOKS) -> None:
    """Raise `StartError` if the installed uvicorn, or this Python, lacks one of the hooks."""
    for owner, names in hooks.items():
        if missing := sorted(set(names) - _names_of(owner)):
            whose = f"uvicorn {metadata.version('uvicorn')}"
            if owner.__module__.startswith("asyncio."):
                whose = f"Python {platform.python_version()}"
            raise StartError(
                f"{whose} cannot be used: its {owner.__name__} has no {', '.join(missing)}; "
                f"{_UPGRADE}"
            )


def _names_of(owner: type) -> set[str]:
    """Return the attributes of a class and of its objects, without those of asyncio's classes."""
    own = [each for each in owner.__mro__ if each not in asyncio.Protocol.__mro__]
    return {name for each in own for name in (*vars(each), *_set_by_init(each))}


def _set_by_init(owner: type) -> list[str]:
    init = vars(owner).get("__init__")
    code = dis.get_instructions(init) if init is not None else ()
    return [step.argval for step in code if step.opname == "STORE_ATTR"]
