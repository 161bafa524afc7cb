"""``GET /v1/fleet``, ``/v1/mesh`` and ``/v1/nodes/{node_id}/peers``: the live mesh as JSON."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from isal import isal_zlib
from litestar import MediaType, Request, Response, get

from plexd.steps import in_steps
from plexd_server.mesh.fleet import FleetAnswer, fleet
from plexd_server.mesh.overview import MeshAnswer, PeersAnswer, encoding, mesh, peers
from plexd_server.routes.openapi import CALLERS, NO_STORE, OPERATOR, READER, described
from plexd_server.web.negotiation import accepts_gzip

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    import msgspec
    from litestar.handlers import HTTPRouteHandler
    from litestar.params import FromPath

    from plexd.clock import Clock
    from plexd_server.auth import Gate
    from plexd_server.mesh.live import LiveMesh, MeshSnapshot
    from plexd_server.mesh.moment import Moment

    _Steps: TypeAlias = Callable[[MeshSnapshot, Moment], Generator[None, None, msgspec.Struct]]

_WORTH_PACKING: Final = 16 * 1024
_GZIP: Final = 31  # zlib's number for a gzip header
_LEVEL: Final = 2
_WORTH_SHARING: Final = 64 * 1024
_SHARED_SECONDS: Final = 1.0


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
        return await answers.share("fleet", request, partial(fleet, live))

    @get(
        "/v1/mesh",
        **described("mesh", "All links", *CALLERS, security=OPERATOR, answers={200: MeshAnswer}),
    )
    async def get_mesh(request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_operator(request)
        return await answers.share("mesh", request, partial(mesh, live))

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


class _Body(NamedTuple):
    """The body of an answer, made at so many steady seconds."""

    made_at: float
    content: bytes
    is_packed: bool


class _Answers:
    """Makes answers from the live mesh, in steps between which others work.

    A large answer about the whole mesh is made once for all who ask within a second, so that thirty
    browsers cost as much as one. A small one is made for each, and never old.
    """

    def __init__(self, live: LiveMesh, clock: Clock) -> None:
        self._live = live
        self._clock = clock
        self._building = asyncio.Lock()
        self._making = defaultdict[tuple[str, bool], asyncio.Lock](asyncio.Lock)
        self._shared: dict[tuple[str, bool], _Body] = {}

    async def share(
        self, name: str, request: Request[Any, Any, Any], steps: _Steps
    ) -> Response[bytes]:
        """Answer as others who asked for the same, or make the answer."""
        kind = name, _may_pack(request)
        async with self._making[kind]:
            body = self._shared.pop(kind, None)
            if body is None or self._clock.monotonic() - body.made_at >= _SHARED_SECONDS:
                body = await self._encode(steps, may_pack=_may_pack(request))
            if len(body.content) > _WORTH_SHARING:
                self._shared[kind] = body
        return _response(body)

    async def make(self, request: Request[Any, Any, Any], steps: _Steps) -> Response[bytes]:
        """Make an answer for one caller."""
        return _response(await self._encode(steps, may_pack=_may_pack(request)))

    async def _encode(self, steps: _Steps, *, may_pack: bool) -> _Body:
        now = self._live.now()
        answer = await in_steps(steps(await self._snapshot(now), now), self._clock)
        pieces = await in_steps(encoding(answer), self._clock)
        is_packed = may_pack and sum(map(len, pieces)) > _WORTH_PACKING
        # Pages that nobody has touched yet and the packing take longer than a callback may.
        content = await asyncio.to_thread(_pack if is_packed else b"".join, pieces)
        return _Body(self._clock.monotonic(), content, is_packed)

    async def _snapshot(self, now: Moment) -> MeshSnapshot:
        """Build the snapshot, once for all callers."""
        async with self._building:
            return await in_steps(self._live.building(now), self._clock)


def _may_pack(request: Request[Any, Any, Any]) -> bool:
    return accepts_gzip(request.headers.getall("accept-encoding", []))


def _pack(pieces: Iterable[bytes]) -> bytes:
    packing = isal_zlib.compressobj(_LEVEL, wbits=_GZIP)
    packed = [packing.compress(piece) for piece in pieces]
    return b"".join([*packed, packing.flush()])


def _response(body: _Body) -> Response[bytes]:
    headers = {**NO_STORE, "Vary": "Accept-Encoding"}
    if body.is_packed:
        headers["Content-Encoding"] = "gzip"
    return Response(body.content, media_type=MediaType.JSON, headers=headers)
