"""``GET /v1/fleet``, ``/v1/mesh`` and ``/v1/nodes/{node_id}/peers``: the live mesh as JSON."""

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

_NO_STORE: Final = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
_WORTH_PACKING: Final = 16 * 1024
_GZIP: Final = 31  # zlib's number for a gzip header
_LEVEL: Final = 1


def mesh_routes(gate: Gate, live: LiveMesh, clock: Clock) -> list[HTTPRouteHandler]:
    """Return the JSON routes of the live mesh. Large answers are compressed on request."""
    building = asyncio.Lock()

    async def build(now: datetime) -> None:
        """Build the snapshot, once for all callers, in steps between which others work."""
        async with building:
            for _ in live.building(now):
                await clock.sleep(0)

    @get(
        "/v1/fleet",
        summary="All nodes at a glance",
        tags=["mesh"],
        security=OPERATOR,
        responses={200: answer(FleetAnswer), **refusals(*CALLERS)},
    )
    async def get_fleet(request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_operator(request)
        now = clock.now()
        await build(now)
        return await _answer(request, fleet(live, now))

    @get(
        "/v1/mesh",
        summary="All links",
        tags=["mesh"],
        security=OPERATOR,
        responses={200: answer(MeshAnswer), **refusals(*CALLERS)},
    )
    async def get_mesh(request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_operator(request)
        now = clock.now()
        await build(now)
        return await _answer(request, mesh(live, now))

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
        await build(now)
        return await _answer(request, peers(live, node_id, now))

    return [get_fleet, get_mesh, get_peers]


async def _answer(request: Request[Any, Any, Any], answer: msgspec.Struct) -> Response[bytes]:
    body = msgspec.json.encode(answer)
    headers = dict(_NO_STORE)
    if len(body) > _WORTH_PACKING and "gzip" in request.headers.get("accept-encoding", ""):
        body = await asyncio.to_thread(isal_zlib.compress, body, _LEVEL, _GZIP)
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type=MediaType.JSON, headers=headers)
