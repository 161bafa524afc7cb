"""Reports are answered by the fast path as by the routes, in every byte."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from plexd.api import Receipt
from plexd.clock import SystemClock
from plexd_server.app import build_app
from plexd_server.auth import OperatorKey
from plexd_server.errors import StoreError
from plexd_server.mesh import LiveMesh
from plexd_server.registry import Registry
from plexd_server.store import Written
from support.points import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from litestar.types import ASGIApp

    from plexd_server.routes import FastPath
    from plexd_server.store import Report

BODY = EXAMPLE.to_json()
NODE_PATH, LOCAL_PATH = "/v1/nodes/n1/metrics", "/ingest/n1"
NAMED = {"plexd-batch": "0" * 32 + f";first=1;points={len(EXAMPLE)}"}
CASES = {
    "stored": (200, NODE_PATH, BODY, {}, None),
    "stored locally": (200, LOCAL_PATH, BODY, {}, None),
    "named": (200, NODE_PATH, BODY, NAMED, None),
    "no token": (401, NODE_PATH, BODY, {"authorization": ""}, None),
    "the wrong token": (401, LOCAL_PATH, BODY, {"authorization": "Bearer wrong"}, None),
    "no JSON": (400, NODE_PATH, b"[", {}, None),
    "a wrong point": (422, NODE_PATH, b'[{"group":1}]', {}, None),
    "a wrong header": (400, NODE_PATH, BODY, {"plexd-dropped": "many"}, None),
    "another media type": (415, NODE_PATH, BODY, {"content-type": "text/plain"}, None),
    "the disk is full": (503, NODE_PATH, BODY, {}, StoreError("the disk is full")),
    "a bug": (500, NODE_PATH, BODY, {}, ZeroDivisionError()),
}


class Receiver:
    """Stores nothing, and answers as if it had, or raises."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def write(self, report: Report) -> Written:
        if self.error is not None:
            raise self.error
        return Written(Receipt(accepted=len(report.points)))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with closing(Registry(tmp_path, clock=SystemClock())) as registry:
        yield registry


@pytest.mark.parametrize("case", CASES)
async def test_the_fast_path_answers_as_the_router_does(registry: Registry, case: str) -> None:
    status, path, body, changed, error = CASES[case]
    store: Any = Receiver()
    store.error = error
    app = made(store, registry)
    tokens = {
        NODE_PATH: registry.create_node("n1").auth_token,
        LOCAL_PATH: registry.create_ingest_token("n1"),
    }
    headers = {
        "host": "localhost",
        "authorization": f"Bearer {tokens[path]}",
        "content-type": "application/json",
        **changed,
    }

    fast = await asked(app, path, headers, body)

    assert fast[0] == status
    assert fast == await asked(app.router, path, headers, body)


@pytest.mark.parametrize("path", ["/v1/nodes/n1/metrics/", "/v1/nodes/n%31/metrics", "/ingest/ü"])
async def test_an_unusual_spelling_of_the_path_is_for_the_router(
    registry: Registry, path: str
) -> None:
    app = made(Receiver(), registry)
    headers = {"host": "localhost"}

    assert await asked(app, path, headers, BODY) == await asked(app.router, path, headers, BODY)


def made(store: Any, registry: Registry) -> FastPath:
    key = OperatorKey.of("x" * 32)
    return build_app(store, LiveMesh(), registry, key, port=1, clock=SystemClock())


async def asked(
    app: ASGIApp, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer to a POST."""
    sent = list[Any]()

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
        "state": {},
    }
    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], sorted(sent[0]["headers"]), content
