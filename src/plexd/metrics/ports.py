"""The ports of the pipeline: one to three methods each, declared where they are used.

Everything the manager uses is behind one of these, so that a test can script it and a user can
replace it. The contract suites in ``tests/contracts`` say what an implementation has to hold;
`plexd.metrics.testing` has a fake of each that holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from plexd.api import (
        MetricBatch,
        MetricPoint,
        Receipt,
        SecretResponse,
        SystemStats,
        TunnelStats,
    )


@runtime_checkable
class Collector(Protocol):
    """One source of points."""

    def collect(self) -> AsyncIterator[MetricPoint]:
        """Yield this cycle's points; an async generator is the natural form.

        Points yielded before an error or a cancellation count. The manager runs one collection
        at a time, cuts it at its deadline and closes the iterator.
        """


@runtime_checkable
class SystemReader(Protocol):
    """Reads the machine."""

    async def read_stats(self) -> SystemStats:
        """One reading. Any exception means: no reading this time."""


@runtime_checkable
class TunnelStatsReader(Protocol):
    """Reads the tunnels."""

    async def read_tunnel_stats(self) -> Sequence[TunnelStats]:
        """One consistent reading of all peers, in a stable order; empty when there are none."""


@runtime_checkable
class Pinger(Protocol):
    """Measures the round trip to a peer."""

    async def ping(self, peer_id: str) -> int:
        """One round trip in nanoseconds, above 0. Raises on failure, within its own timeout."""


@runtime_checkable
class PeerLister(Protocol):
    """Knows who is in the mesh."""

    def peer_ids(self) -> Sequence[str]:
        """The peers of this moment, in a stable order."""


@runtime_checkable
class ReconnectCounter(Protocol):
    """Counts how often a connection had to be made again."""

    def reconnect_count(self) -> int:
        """Connections made after the first one."""


@runtime_checkable
class MetricReporter(Protocol):
    """Delivers batches."""

    async def report_metrics(self, node_id: str, batch: MetricBatch) -> Receipt | None:
        """Return once the batch is accepted; any exception means that it was not.

        The receipt says what became of the points, where the receiver does; None is a plain
        acknowledgement.
        """


@runtime_checkable
class SecretFetcher(Protocol):
    """Fetches sealed secrets."""

    async def fetch_secret(self, node_id: str, key: str) -> SecretResponse:
        """The secret called ``key``, sealed under the node's key."""
