"""Sends the simulated nodes' batches as agents do: named, compressed, and until accepted."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from statistics import quantiles
from typing import TYPE_CHECKING, Final

from isal import isal_zlib
from msgspec import Struct

from plexd.api import HTTPTransport, MetricBatch, TransportError, Trust
from plexd.closing import AsyncClosing
from plexd_server.errors import SimulationError

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd_server.simulate.identities import SimulatedIdentity

_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_TIMEOUT: Final = timedelta(seconds=30)
_CONNECTIONS_OF_TRANSPORT: Final = 8
_CAP: Final = 64 * 1024
_LEVEL: Final = 1
_GZIP: Final = 31  # zlib's number for a gzip header
_RETRY_SECONDS: Final = 1.0
_KEPT_TIMES: Final = 10_000


class Sent(Struct):
    """What was accepted so far; ``retries`` counts answers that were missing, or asked to retry."""

    points: int = 0
    batches: int = 0
    retries: int = 0
    p50_seconds: float = 0.0
    p99_seconds: float = 0.0


class Uplink(AsyncClosing):
    """An async context manager. Nodes send concurrently, but each node one batch at a time."""

    def __init__(self, server: str, connections: int, clock: Clock) -> None:
        self._server = server.rstrip("/")
        self._clock = clock
        count = -(-connections // _CONNECTIONS_OF_TRANSPORT)
        self._transports = [
            HTTPTransport(
                user_agent="plexd-simulate",
                trust=Trust(),
                connect_timeout=_TIMEOUT,
                request_timeout=_TIMEOUT,
            )
            for _ in range(count)
        ]
        self._times: deque[float] = deque(maxlen=_KEPT_TIMES)
        self._sent = Sent()

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        for transport in self._transports:
            await transport.aclose()

    async def send(self, number: int, identity: SimulatedIdentity, batch: MetricBatch) -> None:
        """Send a batch until it is accepted. Raises `SimulationError` if it never will be."""
        body = isal_zlib.compress(batch.to_json(), _LEVEL, wbits=_GZIP)
        headers = {
            "Authorization": f"Bearer {identity.auth_token}",
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
            "Plexd-Batch": str(batch.name),
            "Plexd-After": str(batch.after),
            "Plexd-Dropped": str(batch.dropped),
        }
        url = f"{self._server}/v1/nodes/{identity.node_id}/metrics"
        transport = self._transports[number % len(self._transports)]
        while not await self._try(transport, url, headers, body):
            self._sent.retries += 1
            await self._clock.sleep(_RETRY_SECONDS)
        self._sent.points += len(batch)
        self._sent.batches += 1

    def sent(self) -> Sent:
        """Return what was accepted so far, and how long the latest batches took."""
        if len(self._times) > 1:
            cuts = quantiles(self._times, n=100)
            self._sent.p50_seconds, self._sent.p99_seconds = cuts[49], cuts[98]
        return self._sent

    async def _try(
        self, transport: HTTPTransport, url: str, headers: dict[str, str], body: bytes
    ) -> bool:
        began = self._clock.monotonic()
        try:
            answer = await transport.request("POST", url, headers=headers, body=body, cap=_CAP)
        except TransportError:
            return False
        if 200 <= answer.status < 300:
            self._times.append(self._clock.monotonic() - began)
            return True
        if answer.status in _RETRIED:
            return False
        reason = answer.body[:300].decode(errors="replace")
        raise SimulationError(f"the server refused a simulated report: {answer.status} {reason}")
