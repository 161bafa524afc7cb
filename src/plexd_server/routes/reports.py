"""``POST /v1/nodes/{node_id}/metrics``: a report arrives, is checked, and is durable or refused.

``POST /ingest/{node_id}`` is the same for a node whose local endpoint is this server, with a token
of its own.

A refused report is not stored. The order of checks is: the caller (401, 403), the batch headers
(400), the content type (415), the bytes (400, 408, 413), the contract (422 with point and field),
the number of points (413), the names of the batch (400), the clocks (503), the store (503). If a
node has too many reports under way, the answer is 429 and the bytes are not read. If the node will
give up a named batch because of a refusal, the refusal is noted in its ledger. Points that are
ahead of the clock are rejected one by one. A report without a name is stored as often as it
arrives, as no duplicate can be recognized.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime  # noqa: TC003 -- msgspec reads the annotations
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Self, TypeVar

import msgspec
from litestar import Request, post
from litestar.openapi.spec import Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType

from plexd.api import (
    BatchName,
    DecodeError,
    MalformedError,
    MetricBatch,
    Predecessor,
    Receipt,
    decoding_batch,
)
from plexd.log_once import LogOnce
from plexd.steps import in_steps
from plexd_server.errors import StoreError
from plexd_server.routes.horizon import Horizon
from plexd_server.routes.openapi import CALLERS, INGEST, NODE, UPLOADS, described, operation
from plexd_server.routes.point_schemas import ReportedPoint
from plexd_server.store import Report, Store
from plexd_server.web.body import read_body
from plexd_server.web.limits import Admission
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler
    from litestar.params import FromPath

    from plexd.clock import Clock
    from plexd_server.auth import Gate

    T = TypeVar("T", BatchName, Predecessor)

_LOG = logging.getLogger(__name__)
MAX_POINTS: Final = 10_000
_SHOWN = 200
_BATCH: Final = "Plexd-Batch"
_AFTER: Final = "Plexd-After"
_DROPPED: Final = "Plexd-Dropped"
_MAX_DROPPED: Final = 2**53 - 1
_HEADERS: Final = (
    Parameter(
        _BATCH,
        "header",
        description="the names of the points: an epoch, and places in it",
        schema=Schema(
            type=OpenAPIType.STRING,
            pattern="^[0-9a-f]{32};first=[1-9][0-9]*;points=[1-9][0-9]*$",
        ),
    ),
    Parameter(
        _AFTER,
        "header",
        description="what was delivered before the epoch of the batch",
        schema=Schema(
            type=OpenAPIType.STRING,
            pattern="^(none|[0-9a-f]{32}:(0|[1-9][0-9]*));skipped=(0|[1-9][0-9]*)$",
        ),
    ),
    Parameter(
        _DROPPED,
        "header",
        description="how many points the epoch of the batch has lost on the node so far",
        schema=Schema(type=OpenAPIType.STRING, pattern="^[0-9]{1,16}$"),
    ),
)
_TOO_LARGE: Final = 413
_FINAL: Final = frozenset({400, 415, 422})
_POINTS = Annotated[list[ReportedPoint], msgspec.Meta(max_length=MAX_POINTS)]
_post_points: Final = partial(
    post,
    status_code=200,
    request_max_body_size=None,
    operation_class=operation(*_HEADERS, body=_POINTS),
)


class ReportAnswer(msgspec.Struct, frozen=True):
    """What became of the points; ``upto`` and ``newest`` are there with a clash only."""

    accepted: int
    duplicate: bool
    clash: bool
    rejected: int
    reason: str
    upto: int | msgspec.UnsetType = msgspec.UNSET
    newest: datetime | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, receipt: Receipt) -> Self:
        """Return the answer that `Receipt` is read from."""
        answer = cls(
            receipt.accepted, receipt.duplicate, receipt.clash, receipt.rejected, receipt.reason
        )
        if not receipt.clash:
            return answer
        newest = msgspec.UNSET if receipt.newest is None else receipt.newest
        return msgspec.structs.replace(answer, upto=receipt.upto, newest=newest)


class _NewerNodes:
    """Logs that nodes say more than this server knows: one line in five minutes for all of them."""

    def __init__(self, clock: Clock) -> None:
        self._warnings = LogOnce(_LOG, "server", clock=clock)

    def note(self, node_id: str, unknown_keys: int) -> None:
        """Log that ``unknown_keys`` of a report were skipped, if there were any."""
        if unknown_keys:
            hint = "the node is newer than this server: upgrade it to store what they say"
            self._warnings.warn(
                "unknown keys skipped", "", node_id=node_id, keys=unknown_keys, hint=hint
            )


class Reports:
    """Receives reports: checks who sends one, reads it, and has it stored."""

    def __init__(self, gate: Gate, store: Store, clock: Clock) -> None:
        self._gate = gate
        self._store = store
        self._clock = clock
        self._admission = Admission(clock)
        self._horizon = Horizon(clock)
        self._newer = _NewerNodes(clock)

    async def receive(self, node_id: str, request: Request[Any, Any, Any]) -> ReportAnswer:
        """Receive a report of the node. Raises `Problem`, or `StoreError`."""
        await self._gate.require_node(request, node_id)
        return await self._receive(node_id, request)

    async def receive_locally(self, node_id: str, request: Request[Any, Any, Any]) -> ReportAnswer:
        """Receive a report that came to the node's local endpoint. Raises the same."""
        await self._gate.require_ingest(request, node_id)
        return await self._receive(node_id, request)

    async def _receive(self, node_id: str, request: Request[Any, Any, Any]) -> ReportAnswer:
        headers = parse_batch_headers(request)
        address = request.client.host if request.client is not None else ""
        with self._admission.admit(node_id) as reservation:
            try:
                body = await read_body(request, reservation, clock=self._clock)
                batch = await parse_report(body, self._clock)
                headers.check(batch)
            except Problem as refusal:
                rejection = headers.rejection(node_id, refusal, self._clock.now(), address)
                await _note(self._store, rejection)
                raise
            received_at = self._clock.now()
            ahead = self._horizon.ahead(node_id, batch, received_at)
            self._newer.note(node_id, batch.unknown_keys)
            report = Report(
                node_id,
                batch,
                received_at,
                *headers,
                ahead=ahead,
                address=address,
                body=body,
                unknown_keys=batch.unknown_keys,
            )
            return ReportAnswer.of((await self._store.write(report)).receipt)


def report_routes(reports: Reports) -> list[HTTPRouteHandler]:
    """Make the routes that receive points; most reports never reach them (fast_path.py)."""

    @_post_points(
        "/v1/nodes/{node_id:str}/metrics",
        **described("reports", "Deliver points", *UPLOADS, *CALLERS, security=NODE),
    )
    async def receive_metrics(
        node_id: FromPath[str], request: Request[Any, Any, Any]
    ) -> ReportAnswer:
        return await reports.receive(node_id, request)

    @_post_points(
        "/ingest/{node_id:str}",
        **described(
            "reports", "Deliver points to a local endpoint", *UPLOADS, *CALLERS, security=INGEST
        ),
    )
    async def receive_locally(
        node_id: FromPath[str], request: Request[Any, Any, Any]
    ) -> ReportAnswer:
        return await reports.receive_locally(node_id, request)

    return [receive_metrics, receive_locally]


async def _note(store: Store, rejection: Report | None) -> None:
    """Note in the ledger the points that will not come again, if the store can write now."""
    if rejection is not None:
        with suppress(StoreError):
            await store.write(rejection)


async def parse_report(body: bytes, clock: Clock) -> MetricBatch:
    """Read the points of a report, in steps. Raises `Problem` for anything else."""
    # Each point has two braces. Counting them is cheaper than decoding 100,000 points, and names
    # full of braces come again in smaller reports, as after any 413.
    if body.count(b"{") > 2 * MAX_POINTS:
        raise Problem(413, f"a report holds at most {MAX_POINTS} points, this one looks like more")
    try:
        batch = await in_steps(decoding_batch(body), clock)
    except DecodeError as err:
        status = 400 if isinstance(err, MalformedError) else 422
        detail = _shortened(str(err))
        raise Problem(status, detail, index=err.index, field=_shortened(err.field)) from None
    if len(batch) > MAX_POINTS:
        raise Problem(413, f"a report holds at most {MAX_POINTS} points, this one {len(batch)}")
    return batch


def _shortened(text: str) -> str:
    """Shorten a text that may contain names of any length."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class BatchHeaders(NamedTuple):
    """The three headers of a report."""

    name: BatchName | None = None
    after: Predecessor | None = None
    dropped: int = 0

    def check(self, batch: MetricBatch) -> None:
        """Raise `Problem` 400 if the points do not fit the batch in the headers."""
        if self.name is not None and self.name.points != len(batch):
            raise _refusal(_BATCH, f"the body holds {len(batch)} points, not {self.name.points}")

    def rejection(
        self, node_id: str, refusal: Problem, received_at: datetime, address: str
    ) -> Report | None:
        """Return what the node gives up after this refusal; None if it tries again.

        A report that is too large comes again in pieces, unless it is a single point.
        """
        if self.name is None:
            return None
        is_single = refusal.status == _TOO_LARGE and self.name.points == 1
        if not is_single and refusal.status not in _FINAL:
            return None
        return Report(node_id, (), received_at, *self, is_rejected=True, address=address)


def parse_batch_headers(request: Request[Any, Any, Any]) -> BatchHeaders:
    """Read the three headers. Raises `Problem` 400 if one of them is malformed."""
    batch, after = _only(request, _BATCH), _only(request, _AFTER)
    dropped = _only(request, _DROPPED)
    return BatchHeaders(
        None if batch is None else _parse(BatchName, _BATCH, batch),
        None if after is None else _parse(Predecessor, _AFTER, after),
        0 if dropped is None else _count(dropped),
    )


def _only(request: Request[Any, Any, Any], header: str) -> str | None:
    values = request.headers.getall(header, [])
    if len(values) > 1:
        raise _refusal(header, "there is more than one")
    return values[0] if values else None


def _parse(kind: type[T], header: str, text: str) -> T:
    try:
        return kind.parse(text)
    except DecodeError as err:
        raise _refusal(header, err.reason) from None


def _count(text: str) -> int:
    # The length first: very many digits would be slow to read.
    if not (len(text) <= len(str(_MAX_DROPPED)) and text.isascii() and text.isdigit()):
        raise _refusal(_DROPPED, "not a number of points")
    return min(int(text), _MAX_DROPPED)


def _refusal(header: str, reason: str) -> Problem:
    return Problem(400, f"{header}: {reason}", field=header)
