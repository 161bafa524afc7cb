"""``GET /v1/fleet``, ``/v1/mesh`` and ``/v1/nodes/{node_id}/peers``: the picture as JSON."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec
from isal import isal_zlib
from litestar import MediaType, Request, Response, get

from plexd_server.mesh.overview import FleetAnswer, MeshAnswer, PeersAnswer, fleet, mesh, peers
from plexd_server.routes.openapi import CALLERS, OPERATOR, READER, answer, refusals

if TYPE_CHECKING:
    from datetime import datetime

    from litestar.handlers import HTTPRouteHandler
    from litestar.params import FromPath

    from plexd.clock import Clock
    from plexd_server.auth import Gate
    from plexd_server.mesh.live import LiveMesh
    from plexd_server.registry import Node, Registry

__all__ = ["mesh_routes"]

_NO_STORE: Final = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
_WORTH_PACKING: Final = 16 * 1024
_GZIP: Final = 31  # zlib's number for a gzip header
_LEVEL: Final = 1


def mesh_routes(
    gate: Gate, board: LiveMesh, registry: Registry, clock: Clock
) -> list[HTTPRouteHandler]:
    """The JSON routes of the live picture. Large answers are compressed for whoever takes that."""
    drawing = asyncio.Lock()

    async def draw(now: datetime) -> None:
        """Have the picture ready, once for all who ask, and let others work in between."""
        async with drawing:
            for _ in board.drawing(now):
                await clock.sleep(0)

    async def registered() -> list[Node]:
        every = await asyncio.to_thread(registry.nodes, revoked=True)
        nodes = [node for node in every if node.revoked_at is None]
        board.keep_only(node.node_id for node in nodes)
        board.names = {node.public_key: node.node_id for node in nodes if node.public_key}
        revoked = [node for node in every if node.revoked_at is not None]
        board.gone = {name for node in revoked for name in (node.node_id, node.public_key)}
        return nodes

    @get(
        "/v1/fleet",
        summary="All nodes at a glance",
        tags=["mesh"],
        security=OPERATOR,
        responses={200: answer(FleetAnswer), **refusals(*CALLERS)},
    )
    async def get_fleet(request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_operator(request)
        nodes, now = await registered(), clock.now()
        await draw(now)
        return await _answer(request, fleet(board, nodes, now))

    @get(
        "/v1/mesh",
        summary="All links",
        tags=["mesh"],
        security=OPERATOR,
        responses={200: answer(MeshAnswer), **refusals(*CALLERS)},
    )
    async def get_mesh(request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_operator(request)
        nodes, now = await registered(), clock.now()
        await draw(now)
        return await _answer(request, mesh(board, nodes, now))

    @get(
        "/v1/nodes/{node_id:str}/peers",
        summary="A node's peers and their states",
        tags=["mesh"],
        security=READER,
        responses={200: answer(PeersAnswer), **refusals(404, *CALLERS)},
    )
    async def get_peers(node_id: FromPath[str], request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_reader(request, node_id)
        now = clock.now()
        await draw(now)
        return await _answer(request, peers(board, node_id, now))

    return [get_fleet, get_mesh, get_peers]


async def _answer(request: Request[Any, Any, Any], answer: msgspec.Struct) -> Response[bytes]:
    body = msgspec.json.encode(answer)
    headers = dict(_NO_STORE)
    if len(body) > _WORTH_PACKING and "gzip" in request.headers.get("accept-encoding", ""):
        body = await asyncio.to_thread(isal_zlib.compress, body, _LEVEL, _GZIP)
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type=MediaType.JSON, headers=headers)
