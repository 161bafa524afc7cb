"""``POST /v1/nodes/{node_id}/metrics``: a report comes in, is checked, and is durable or refused.

Refusals store nothing. The order is: who (401, 403), what form (415), the bytes (400, 408, 413),
the contract (422 with the point and field), the size of the batch (413), the store (503).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from litestar import Request, post

from plexd.api import DecodeError, MalformedError, MetricBatch, decode_batch
from plexd_server.body import read_body
from plexd_server.problems import Problem
from plexd_server.store import Delivery, Receipt

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler
    from litestar.params import FromPath

    from plexd.clock import Clock
    from plexd_server.auth import Gate
    from plexd_server.store import Store

__all__ = ["MAX_POINTS", "ingest_routes"]

MAX_POINTS: Final = 10_000


def ingest_routes(gate: Gate, store: Store, clock: Clock) -> list[HTTPRouteHandler]:
    """The routes that take points in."""

    @post("/v1/nodes/{node_id:str}/metrics", status_code=200, request_max_body_size=None)
    async def receive_metrics(node_id: FromPath[str], request: Request[Any, Any, Any]) -> Receipt:
        await gate.require_node(request, node_id)
        batch = parse_report(await read_body(request, clock=clock))
        return await store.write(Delivery(node_id, batch, clock.now()))

    return [receive_metrics]


def parse_report(body: bytes) -> MetricBatch:
    """The points of a report. Raises `Problem` for all that is not one."""
    try:
        batch = decode_batch(body)
    except DecodeError as err:
        status = 400 if isinstance(err, MalformedError) else 422
        raise Problem(status, str(err), index=err.index, field=err.field) from None
    if len(batch) > MAX_POINTS:
        raise Problem(413, f"a report holds at most {MAX_POINTS} points, this one {len(batch)}")
    return batch
