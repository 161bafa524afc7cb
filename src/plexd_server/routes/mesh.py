"""``GET /v1/fleet``, ``/v1/mesh`` and ``/v1/nodes/{node_id}/peers``: the live mesh as JSON."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from isal import isal_zlib
from litestar import MediaType, Request, Response, get

from plexd_server.mesh.overview import FleetAnswer, MeshAnswer, PeersAnswer, fleet, mesh, peers
from plexd_server.routes.openapi import CALLERS, NO_STORE, OPERATOR, READER, described
from plexd_server.routes.steps import in_steps
from plexd_server.web.negotiation import accepts_gzip

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from litestar.handlers import HTTPRouteHandler
    from litestar.params import FromPath

    from plexd.clock import Clock
    from plexd_server.auth import Gate
    from plexd_server.mesh.live import LiveMesh, MeshSnapshot
    from plexd_server.mesh.moment import Moment

_WORTH_PACKING: Final = 16 * 1024
_GZIP: Final = 31  # zlib's number for a gzip header
_LEVEL: Final = 1


def mesh_routes(gate: Gate, live: LiveMesh, clock: Clock) -> list[HTTPRouteHandler]:
    """Return the JSON routes of the live mesh. Large answers are compressed on request."""
    building = asyncio.Lock()

    async def build(now: Moment) -> MeshSnapshot:
        """Build the snapshot, once for all callers."""
        async with building:
            for _ in live.building(now):
                await clock.sleep(0)
            return live.snapshot(now)

    async def answer(
        request: Request[Any, Any, Any],
        make: Callable[[MeshSnapshot, Moment], Generator[None, None, msgspec.Struct]],
    ) -> Response[bytes]:
        """Make an answer in steps between which others work."""
        now = live.now()
        return await _respond(request, await in_steps(make(await build(now), now), clock))

    @get(
        "/v1/fleet",
        **described(
            "mesh", "All nodes at a glance", *CALLERS, security=OPERATOR, answers={200: FleetAnswer}
        ),
    )
    async def get_fleet(request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_operator(request)
        return await answer(request, partial(fleet, live))

    @get(
        "/v1/mesh",
        **described("mesh", "All links", *CALLERS, security=OPERATOR, answers={200: MeshAnswer}),
    )
    async def get_mesh(request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_operator(request)
        return await answer(request, partial(mesh, live))

    @get(
        "/v1/nodes/{node_id:str}/peers",
        **described(
            "mesh",
            "A node's peers and their states",
            404,
            *CALLERS,
            security=READER,
            answers={200: PeersAnswer},
        ),
    )
    async def get_peers(node_id: FromPath[str], request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_reader(request, node_id)
        return await answer(request, partial(peers, live, node_id))

    return [get_fleet, get_mesh, get_peers]


async def _respond(request: Request[Any, Any, Any], answer: msgspec.Struct) -> Response[bytes]:
    body = msgspec.json.encode(answer)
    headers = {**NO_STORE, "Vary": "Accept-Encoding"}
    if len(body) > _WORTH_PACKING and accepts_gzip(request.headers.getall("accept-encoding", [])):
        body = await asyncio.to_thread(isal_zlib.compress, body, _LEVEL, _GZIP)
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type=MediaType.JSON, headers=headers)
