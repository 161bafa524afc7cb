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
    answers = _Answers(live, clock)

    @get(
        "/v1/fleet",
        **described(
            "mesh", "All nodes at a glance", *CALLERS, security=OPERATOR, answers={200: FleetAnswer}
        ),
    )
    async def get_fleet(request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_operator(request)
        return await answers.make(request, partial(fleet, live))

    @get(
        "/v1/mesh",
        **described("mesh", "All links", *CALLERS, security=OPERATOR, answers={200: MeshAnswer}),
    )
    async def get_mesh(request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_operator(request)
        return await answers.make(request, partial(mesh, live))

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
        return await answers.make(request, partial(peers, live, node_id))

    return [get_fleet, get_mesh, get_peers]


class _Answers:
    """Makes answers from the live mesh, in steps between which others work."""

    def __init__(self, live: LiveMesh, clock: Clock) -> None:
        self._live = live
        self._clock = clock
        self._building = asyncio.Lock()

    async def _snapshot(self, now: Moment) -> MeshSnapshot:
        """Build the snapshot, once for all callers."""
        async with self._building:
            for _ in self._live.building(now):
                await self._clock.sleep(0)
            return self._live.snapshot(now)

    async def make(
        self,
        request: Request[Any, Any, Any],
        steps: Callable[[MeshSnapshot, Moment], Generator[None, None, msgspec.Struct]],
    ) -> Response[bytes]:
        now = self._live.now()
        making = steps(await self._snapshot(now), now)
        return await _respond(request, await in_steps(making, self._clock))


async def _respond(request: Request[Any, Any, Any], answer: msgspec.Struct) -> Response[bytes]:
    body = msgspec.json.encode(answer)
    headers = {**NO_STORE, "Vary": "Accept-Encoding"}
    if len(body) > _WORTH_PACKING and accepts_gzip(request.headers.getall("accept-encoding", [])):
        body = await asyncio.to_thread(isal_zlib.compress, body, _LEVEL, _GZIP)
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type=MediaType.JSON, headers=headers)
