"""What every `Spool` promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from plexd.api import BatchName, MetricBatch
from plexd.spool import DiskSpool, MemorySpool, Refusal
from support.latency import latency_points as points

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from plexd.spool import Spool

# Budget small enough to be reached: every implementation is opened with room for this many.
ROOM = 50
# Small enough for a quarter of it to be room for five rows of ten points, and not for a sixth.
_DISK_BYTES = 78_000


@pytest.fixture(params=["memory", "disk"])
async def spool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Spool]:
    if request.param == "memory":
        async with MemorySpool(max_bytes=ROOM * 400) as opened:
            yield opened
    else:
        async with DiskSpool(tmp_path / "spool", max_bytes=_DISK_BYTES) as on_disk:
            yield on_disk


async def fill(spool: Spool, first: int = 0) -> None:
    """As many points as there is room for, in the pieces they will be sealed in."""
    for start in range(first, first + ROOM, 10):
        await spool.append(points(10, start))


async def drain(spool: Spool) -> list[MetricBatch]:
    batches = []
    while (batch := await spool.head()) is not None:
        batches.append(batch)
        assert batch.name is not None
        await spool.acknowledge(batch.name)
    return batches


async def test_an_empty_spool_has_no_head(spool: Spool) -> None:
    await spool.seal(10)
    assert await spool.head() is None


async def test_points_are_not_at_the_head_before_they_are_sealed(spool: Spool) -> None:
    await spool.append(points(3))
    assert await spool.head() is None
    assert spool.statistics().buffered == 3


async def test_points_come_out_whole_and_in_order(spool: Spool) -> None:
    await spool.append(points(7))
    await spool.append(points(6, first=7))
    await spool.seal(5)
    batches = await drain(spool)
    assert [len(batch) for batch in batches] == [5, 5, 3]
    assert [point for batch in batches for point in batch] == points(13)


async def test_batches_are_numbered_without_a_gap_under_one_epoch(spool: Spool) -> None:
    for first in (0, 10):
        await spool.append(points(10, first))
        await spool.seal(4)
    names = [batch.name for batch in await drain(spool)]
    assert all(isinstance(name, BatchName) for name in names)
    assert len({name.epoch for name in names if name}) == 1
    assert [(n.seq, n.offset, n.of) for n in names if n] == [
        (1, 0, 4),
        (2, 0, 4),
        (3, 0, 2),
        (4, 0, 4),
        (5, 0, 4),
        (6, 0, 2),
    ]


async def test_the_head_stays_the_same_until_it_is_acknowledged(spool: Spool) -> None:
    await spool.append(points(3))
    await spool.seal(10)
    first = await spool.head()
    assert first is not None
    body = first.to_json()
    await spool.append(points(3, first=3))
    await spool.seal(10)
    again = await spool.head()
    assert again is not None
    assert again == first
    assert again.to_json() == body


async def test_acknowledging_another_batch_changes_nothing(spool: Spool) -> None:
    await spool.append(points(2))
    await spool.seal(1)
    head = await spool.head()
    assert head is not None
    assert head.name is not None
    stranger = BatchName(epoch="0" * 32, seq=head.name.seq, offset=0, of=1)
    await spool.acknowledge(stranger)
    assert await spool.head() == head
    await spool.acknowledge(head.name)
    await spool.acknowledge(head.name)
    assert spool.statistics().acknowledged == 1


async def test_a_full_spool_drops_the_oldest_and_keeps_the_newest(spool: Spool) -> None:
    await fill(spool)
    await spool.seal(10)
    await spool.append(points(5, first=ROOM))
    await spool.seal(10)
    batches = await drain(spool)
    kept = [point for batch in batches for point in batch]
    assert kept == points(ROOM + 5)[-len(kept) :]
    assert len(kept) >= ROOM - 10


async def test_what_was_dropped_is_reported_with_the_next_batch_and_only_once(spool: Spool) -> None:
    await fill(spool)
    await spool.seal(10)
    await spool.append(points(5, first=ROOM))
    await spool.seal(10)
    batches = await drain(spool)
    evicted = spool.statistics().evicted
    assert evicted > 0
    assert batches[0].dropped == evicted
    assert [batch.dropped for batch in batches[1:]] == [0] * (len(batches) - 1)


async def test_an_evicted_batch_uses_up_its_number(spool: Spool) -> None:
    await fill(spool)
    await spool.seal(10)
    await spool.append(points(10, first=ROOM))
    await spool.seal(10)
    names = [batch.name for batch in await drain(spool)]
    assert [name.seq for name in names if name] == [2, 3, 4, 5, 6]


async def test_more_than_fits_at_once_keeps_what_fits(spool: Spool) -> None:
    await spool.append(points(3 * ROOM))
    await spool.seal(10)
    kept = [point for batch in await drain(spool) for point in batch]
    assert kept == points(3 * ROOM)[-len(kept) :]
    assert kept


async def test_every_point_is_accounted_for(spool: Spool) -> None:
    await fill(spool)
    await spool.seal(10)
    await spool.append(points(20, first=ROOM))
    head = await spool.head()
    assert head is not None
    assert head.name is not None
    await spool.acknowledge(head.name)
    s = spool.statistics()
    assert (s.appended, s.acknowledged) == (ROOM + 20, 10)
    assert (s.refused, s.expired, s.damaged) == (0, 0, 0)
    await spool.seal(10)
    waiting = sum(len(batch) for batch in await drain(spool))
    assert s.waiting == waiting == ROOM + 10 - s.evicted
    assert spool.statistics().acknowledged == 10 + waiting


async def test_what_was_refused_is_counted_and_reported_with_the_next_batch(spool: Spool) -> None:
    await spool.append(points(20))
    await spool.seal(10)
    head = await spool.head()
    assert head is not None
    assert head.name is not None
    refusal = Refusal(head.piece(2, 6), "HTTP 422: no")
    await spool.acknowledge(head.name, refused=[refusal])
    s = spool.statistics()
    assert (s.acknowledged, s.refused, s.sealed, s.dead_letters) == (6, 4, 10, 1)
    assert list(await spool.dead_letters()) == [refusal]
    following = await spool.head()
    assert following is not None
    assert following.dropped == 4


async def test_a_batch_that_arrived_although_it_was_evicted_meanwhile_is_no_loss(
    spool: Spool,
) -> None:
    await spool.append(points(10))
    await spool.seal(10)
    under_way = await spool.head()
    assert under_way is not None
    assert under_way.name is not None
    await fill(spool, 10)
    assert spool.statistics().evicted == 10
    await spool.acknowledge(under_way.name)
    s = spool.statistics()
    assert (s.acknowledged, s.evicted, s.buffered) == (10, 0, ROOM)
    await spool.seal(10)
    assert [batch.dropped for batch in await drain(spool)] == [0] * (ROOM // 10)


async def test_a_batch_that_was_evicted_and_did_not_arrive_is_a_loss(spool: Spool) -> None:
    await spool.append(points(10))
    await spool.seal(10)
    lost = await spool.head()
    assert lost is not None
    assert lost.name is not None
    await fill(spool, 10)
    await spool.seal(10)
    following = await spool.head()
    assert following is not None
    assert following.dropped == 10
    await spool.acknowledge(lost.name)
    assert spool.statistics().evicted == 10


async def test_closing_twice_is_the_same_as_once(spool: Spool) -> None:
    await spool.aclose()
    await spool.aclose()
