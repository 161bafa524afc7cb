"""Which gzip the client uses: size and CPU of the candidates on its own bodies."""

from __future__ import annotations

import zlib
from functools import partial
from typing import TYPE_CHECKING

from isal import isal_zlib

from benchmarks import workload
from benchmarks.measure import interleaved, table
from plexd.api import MetricBatch, MetricPoint

if TYPE_CHECKING:
    from collections.abc import Callable

BATCHES = 100
BATCH = 100


def _bodies() -> list[bytes]:
    stats = workload.tunnels(workload.peer_ids(BATCHES * BATCH))
    points = [
        MetricPoint(timestamp=workload.NOW, group="tunnel", peer_id=s.peer_id, data=s)
        for s in stats
    ]
    return [MetricBatch(points[i : i + BATCH]).to_json() for i in range(0, len(points), BATCH)]


def main() -> None:
    """Print each candidate's size and cost."""
    bodies = _bodies()
    size = sum(map(len, bodies))
    compress: dict[str, Callable[[bytes], bytes]] = {
        "zlib 1": partial(zlib.compress, level=1, wbits=31),
        "zlib 6": partial(zlib.compress, level=6, wbits=31),
        **{
            f"isal {level}": partial(isal_zlib.compress, level=level, wbits=31)
            for level in range(4)
        },
    }
    sizes = {n: sum(len(one(b)) for b in bodies) / size for n, one in compress.items()}
    medians = interleaved(
        {name: partial(_all, one, bodies) for name, one in compress.items()}, rounds=9
    )
    rows = [
        [name, f"{seconds / size * 1e9:.2f}", f"{sizes[name]:.1%}"]
        for name, seconds in medians.items()
    ]
    table(f"gzip of {len(bodies)} bodies of {BATCH} points", ["", "ns a byte", "size"], rows)


def _all(compress: Callable[[bytes], bytes], bodies: list[bytes]) -> None:
    for body in bodies:
        compress(body)
