"""``GET /v1/nodes`` and, for each node, ``latest``, ``ledger`` and ``series``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence  # noqa: TC003 -- the same
from datetime import datetime  # noqa: TC003 -- msgspec reads the annotations
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import MediaType, Request, Response, get
from msgspec.structs import astuple, replace

from plexd.steps import in_steps
from plexd_server.mesh.overview import encoding
from plexd_server.mesh.status import Status  # noqa: TC001 -- msgspec reads the annotations
from plexd_server.routes.openapi import CALLERS, NO_STORE, OPERATOR, READER, described, operation
from plexd_server.routes.point_schemas import AnyPoint  # noqa: TC001 -- the same
from plexd_server.routes.series_query import SERIES_PARAMETERS, parse_series_query
from plexd_server.store import Branch, Gap, Loss  # noqa: TC001 -- msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Generator

    from litestar.handlers import HTTPRouteHandler
    from litestar.params import FromPath

    from plexd.clock import Clock
    from plexd_server.auth import Gate
    from plexd_server.mesh import LiveMesh
    from plexd_server.mesh.status import Presence
    from plexd_server.registry import Node, Registry
    from plexd_server.store import NodeSummary, Series, SeriesQuery, Store


_AT_ONCE: Final = 100


class LatestAnswer(msgspec.Struct, frozen=True):
    """The newest point of each group and peer; ``now`` is the server's clock.

    ``revoked_at`` is when the node was revoked, if it was. ``received_at`` is when its last report
    arrived, and ``reading_seconds`` how old its newest reading is: both stay right if the server's
    clock is set. The node is silent ``silent_after_seconds`` after its last report.
    """

    node_id: str
    now: datetime
    points: list[AnyPoint]
    revoked_at: datetime | None
    status: Status
    received_at: datetime | None
    reading_seconds: float | None
    silent_after_seconds: float


class LedgerAnswer(msgspec.Struct, frozen=True):
    """What is missing of a node's points, and why."""

    node_id: str
    now: datetime
    complete_until: datetime | None
    received: int
    duplicates: int
    evicted: int
    rejected: int
    gap: int
    ahead: int
    losses: Sequence[Loss]
    branches: Sequence[Branch]
    machines: Sequence[str]
    unknown_keys: int


class NodeEntry(msgspec.Struct, frozen=True):
    """A registered node; ``received_at`` and ``system`` are null until it reports."""

    node_id: str
    mesh_ip: str
    status: Status
    received_at: datetime | None = None
    system: AnyPoint | None = None


class NodesAnswer(msgspec.Struct, frozen=True):
    """All registered nodes, by id."""

    now: datetime
    nodes: list[NodeEntry]


class FieldSeries(msgspec.Struct, frozen=True):
    """``kind`` is ``gauge``, or ``rate`` for a counter, whose values are per second."""

    kind: str
    avg: list[float | None]
    min: list[float | None]
    max: list[float | None]


class SeriesAnswer(msgspec.Struct, frozen=True):
    """Fields over time; ``times`` are the starts of the buckets that hold a reading.

    Newer readings may be on their way until the node is silent, ``silent_after_seconds`` after its
    last report.
    ``gaps`` are the times between two readings that are longer than a bucket, and than two and a
    half of the usual ones thereabouts.
    """

    node_id: str
    group: str
    peer_id: str
    since: datetime
    until: datetime
    step_seconds: float
    silent_after_seconds: float
    times: list[datetime]
    fields: dict[str, FieldSeries]
    gaps: list[Gap]


def node_routes(
    gate: Gate, store: Store, registry: Registry, live: LiveMesh, clock: Clock
) -> list[HTTPRouteHandler]:
    """Make the routes that read nodes and their points."""

    @get(
        "/v1/nodes",
        **described("nodes", "All nodes", *CALLERS, security=OPERATOR, answers={200: NodesAnswer}),
    )
    async def list_nodes(request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_operator(request)
        await in_steps(live.settling(), clock)
        nodes = await asyncio.to_thread(registry.nodes)
        listing = _listing(live, nodes, await store.fleet(), clock.now())
        pieces = await in_steps(encoding(await in_steps(listing, clock)), clock)
        body = await asyncio.to_thread(b"".join, pieces)
        return Response(body, media_type=MediaType.JSON, headers=NO_STORE)

    @get(
        "/v1/nodes/{node_id:str}/latest",
        **described("nodes", "The newest points of a node", 404, *CALLERS, security=READER),
        response_headers=NO_STORE,
    )
    async def latest(node_id: FromPath[str], request: Request[Any, Any, Any]) -> LatestAnswer:
        await gate.require_reader(request, node_id)
        node = await asyncio.to_thread(registry.node, node_id)
        revoked_at = None if node is None else node.revoked_at
        points = await store.latest(node_id)
        await in_steps(live.settling(), clock)
        newest = max(points, key=lambda point: point.timestamp, default=None)
        seen = _presence(live, node_id, None if newest is None else newest.received_at)
        return LatestAnswer(
            node_id,
            clock.now(),
            points,
            revoked_at,
            seen.status,
            seen.received_at,
            seen.reading_seconds,
            seen.silent_after,
        )

    @get(
        "/v1/nodes/{node_id:str}/ledger",
        **described("nodes", "What is missing of a node's points", 404, *CALLERS, security=READER),
        response_headers=NO_STORE,
    )
    async def ledger(node_id: FromPath[str], request: Request[Any, Any, Any]) -> LedgerAnswer:
        await gate.require_reader(request, node_id)
        return LedgerAnswer(node_id, clock.now(), *astuple(await store.ledger(node_id)))

    @get(
        "/v1/nodes/{node_id:str}/series",
        **described("nodes", "Fields of a node over time", 400, 404, *CALLERS, security=READER),
        response_headers=NO_STORE,
        operation_class=operation(*SERIES_PARAMETERS),
    )
    async def series(node_id: FromPath[str], request: Request[Any, Any, Any]) -> SeriesAnswer:
        await gate.require_reader(request, node_id)
        query = parse_series_query(node_id, request.query_params.dict(), now=clock.now())
        found = await store.series(query)
        seen = live.look_up(node_id).presence(live.now())
        return _series_answer(query, found, seen.silent_after)

    return [list_nodes, latest, ledger, series]


def _listing(
    live: LiveMesh, nodes: Sequence[Node], stored: Sequence[NodeSummary], now: datetime
) -> Generator[None, None, NodesAnswer]:
    """Make the answer about all nodes in steps."""
    summaries = {summary.node_id: summary for summary in stored}
    entries: list[NodeEntry] = []
    for node in nodes:
        entries.append(_entry(live, node, summaries.get(node.node_id)))
        if len(entries) % _AT_ONCE == 0:
            yield
    return NodesAnswer(now, entries)


def _entry(live: LiveMesh, node: Node, summary: NodeSummary | None) -> NodeEntry:
    seen = _presence(live, node.node_id, None if summary is None else summary.received_at)
    system = None if summary is None else summary.system
    return NodeEntry(node.node_id, node.mesh_ip, seen.status, seen.received_at, system)


def _presence(live: LiveMesh, node_id: str, stored_at: datetime | None) -> Presence:
    """Return whether a node reports; until it was read from the store, it owes no report."""
    seen = live.look_up(node_id).presence(live.now())
    is_read = live.is_recalled and node_id in live.nodes
    if seen.received_at is None and stored_at is not None and not is_read:
        return replace(seen, status="up", received_at=stored_at)
    return seen


def _series_answer(query: SeriesQuery, found: Series, silent_after: float) -> SeriesAnswer:
    return SeriesAnswer(
        node_id=query.node_id,
        group=query.group,
        peer_id=query.peer_id,
        since=query.since,
        until=query.until,
        step_seconds=query.step.total_seconds(),
        silent_after_seconds=silent_after,
        times=found.times,
        fields={
            name: FieldSeries(
                "rate" if name in query.rates else "gauge",
                found.avg[name],
                found.min[name],
                found.max[name],
            )
            for name in query.fields
        },
        gaps=found.gaps,
    )
