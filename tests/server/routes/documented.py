"""The document of the routes, as the application serves it."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from typing import Any

from plexd.clock import SystemClock
from plexd_server.app import build_app
from plexd_server.auth import OperatorKey
from plexd_server.mesh import LiveMesh

__all__ = ["ROUTES", "document"]

METHODS = ("get", "post")


@cache
def document() -> dict[str, Any]:
    nothing: Any = None  # is called for the document
    key = OperatorKey.of("x" * 32)
    app = build_app(nothing, LiveMesh(), nothing, key, port=1, clock=SystemClock())
    sent = list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {
        "type": "http",
        "method": "GET",
        "path": "/v1/openapi.json",
        "raw_path": b"/v1/openapi.json",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": None,
        "server": None,
        "state": {},
    }
    asyncio.run(app(scope, nothing, send))
    made: dict[str, Any] = json.loads(b"".join(each.get("body", b"") for each in sent[1:]))
    return made


ROUTES = sorted(
    f"{method.upper()} {path}"
    for path, operations in document()["paths"].items()
    for method in METHODS
    if method in operations
)
