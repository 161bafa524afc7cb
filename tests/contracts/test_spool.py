"""What every `Spool` promises."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from plexd.api import BatchName, MetricBatch, MetricPoint, Predecessor, is_continuation
from plexd.metrics.testing import ManualClock
from plexd.spool import DiskSpool, MemorySpool, Refusal
from support.latency import latency_points as points

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from plexd.spool import Spool

# Budget small enough to be reached: every implementation is opened with room for this many.
ROOM = 50
# Small enough for a quarter of it to be room for five rows of ten points, and not for a sixth.
_DISK_BYTES = 78_000
_MEMORY_BYTES = 8_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "disk"])
async def spool(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[Spool]:
    if request.param == "memory":
        async with MemorySpool(max_bytes=_MEMORY_BYTES, clock=clock) as opened:
            yield opened
    else:
        async with DiskSpool(tmp_path / "spool", max_bytes=_DISK_BYTES, clock=clock) as on_disk:
            yield on_disk


async def fill(spool: Spool, first: int = 0) -> None:
    """Append as many points as there is room for."""
    for start in range(first, first + ROOM, 10):
        await spool.append(points(10, start))


async def head(spool: Spool, limit: int = 100) -> MetricBatch:
    batch = await spool.head(limit)
    assert batch is not None
    return batch


async def acknowledge(spool: Spool, batch: MetricBatch) -> None:
    assert batch.name is not None
    await spool.acknowledge(batch.name)


async def drain(spool: Spool, limit: int = 10) -> list[MetricBatch]:
    batches = []
    while (batch := await spool.head(limit)) is not None:
        batches.append(batch)
        await acknowledge(spool, batch)
    return batches


def places(batches: Sequence[MetricBatch]) -> list[tuple[int, int]]:
    names = [batch.name for batch in batches]
    return [(name.first, name.last) for name in names if name is not None]


async def test_an_empty_spool_has_no_head(spool: Spool) -> None:
    await spool.append([])
    assert await spool.head(10) is None


async def test_points_come_out_whole_and_in_order(spool: Spool) -> None:
    await spool.append(points(7))
    await spool.append(points(6, first=7))
    batches = await drain(spool, 5)
    assert [len(batch) for batch in batches] == [5, 5, 3]
    assert [point for batch in batches for point in batch] == points(13)


async def test_places_count_from_one_without_a_gap_under_one_epoch(spool: Spool) -> None:
    await spool.append(points(10))
    first = await drain(spool, 4)
    await spool.append(points(10, 10))
    second = await drain(spool, 7)
    assert places(first) == [(1, 4), (5, 8), (9, 10)]
    assert places(second) == [(11, 17), (18, 20)]
    names = [batch.name for batch in first + second]
    assert len({name.epoch for name in names if name}) == 1
    assert {batch.after for batch in first + second} == {Predecessor()}


async def test_a_point_keeps_its_place_whatever_else_is_at_the_head(spool: Spool) -> None:
    await spool.append(points(6))
    small, again = await head(spool, 2), await head(spool, 4)
    assert list(again[:2]) == list(small)
    await spool.append(points(3, first=6))
    large = await head(spool)
    assert places([small, again, large]) == [(1, 2), (1, 4), (1, 9)]
    await acknowledge(spool, small)
    rest = await head(spool)
    assert places([rest]) == [(3, 9)]
    assert [*small, *rest] == list(large)


async def test_acknowledging_more_than_the_last_head_takes_what_was_named(spool: Spool) -> None:
    """The answer to an earlier, larger batch may come late."""
    await spool.append(points(6))
    large = await head(spool)
    await head(spool, 2)
    await acknowledge(spool, large)
    assert await spool.head(10) is None
    assert spool.statistics().acknowledged == 6


async def test_acknowledging_another_name_changes_nothing(spool: Spool) -> None:
    await spool.append(points(2))
    first = await head(spool, 1)
    await spool.acknowledge(BatchName("0" * 32, 1, 1))
    assert await head(spool, 1) == first
    await acknowledge(spool, first)
    await acknowledge(spool, first)
    assert spool.statistics().acknowledged == 1


async def test_other_groups_never_share_a_batch_with_the_specified_ones(spool: Spool) -> None:
    other = [
        MetricPoint(timestamp=point.timestamp, group="custom", data=msgspec.Raw(b"{}"))
        for point in points(3)
    ]
    await spool.append([*points(2), *other[:2], *points(1, 2), other[2]])
    batches = await drain(spool)
    assert places(batches) == [(1, 2), (3, 4), (5, 5), (6, 6)]
    assert [batch[0].group for batch in batches] == ["latency", "custom", "latency", "custom"]


async def test_a_full_spool_drops_the_oldest_and_keeps_the_newest(spool: Spool) -> None:
    await fill(spool)
    await spool.append(points(5, first=ROOM))
    kept = [point for batch in await drain(spool) for point in batch]
    assert kept == points(ROOM + 5)[-len(kept) :]
    assert len(kept) >= ROOM - 10


async def test_what_was_dropped_is_reported_with_every_batch_of_the_epoch(spool: Spool) -> None:
    await fill(spool)
    await spool.append(points(10, first=ROOM))
    batches = await drain(spool)
    evicted = spool.statistics().evicted
    assert evicted > 0
    assert {batch.dropped for batch in batches} == {evicted}
    assert places(batches)[0][0] == evicted + 1


async def test_more_than_fits_at_once_keeps_what_fits(spool: Spool) -> None:
    await spool.append(points(3 * ROOM))
    kept = [point for batch in await drain(spool) for point in batch]
    assert kept == points(3 * ROOM)[-len(kept) :]
    assert kept


async def test_every_point_is_accounted_for(spool: Spool) -> None:
    await fill(spool)
    await spool.append(points(20, first=ROOM))
    await acknowledge(spool, await head(spool, 10))
    s = spool.statistics()
    assert (s.appended, s.acknowledged) == (ROOM + 20, 10)
    assert (s.refused, s.expired, s.damaged, s.clashed) == (0, 0, 0, 0)
    waiting = sum(len(batch) for batch in await drain(spool))
    assert s.waiting == waiting == ROOM + 10 - s.evicted
    assert spool.statistics().acknowledged == 10 + waiting


async def test_what_is_set_aside_is_counted_kept_and_reported(spool: Spool) -> None:
    await spool.append(points(20))
    refusal = Refusal(await head(spool, 4), "HTTP 422: no")
    await spool.set_aside(refusal)
    s = spool.statistics()
    assert (s.acknowledged, s.refused, s.waiting, s.dead_letters) == (0, 4, 16, 1)
    letters = await spool.dead_letters()
    assert [(list(x.batch), x.batch.name, x.reason) for x in letters] == [
        (list(refusal.batch), refusal.batch.name, refusal.reason)
    ]
    following = await head(spool)
    assert following.dropped == 4
    assert places([following]) == [(5, 20)]


async def test_points_that_arrived_although_they_were_evicted_meanwhile_are_no_loss(
    spool: Spool,
) -> None:
    await spool.append(points(10))
    under_way = await head(spool, 10)
    await fill(spool, 10)
    assert spool.statistics().evicted == 10
    await acknowledge(spool, under_way)
    s = spool.statistics()
    assert (s.acknowledged, s.evicted, s.waiting) == (10, 0, ROOM)
    assert {batch.dropped for batch in await drain(spool)} == {0}


async def test_points_that_were_evicted_and_did_not_arrive_are_a_loss(spool: Spool) -> None:
    await spool.append(points(10))
    lost = await head(spool, 10)
    await fill(spool, 10)
    following = await head(spool, 10)
    assert following.dropped == 10
    await acknowledge(spool, lost)
    assert spool.statistics().evicted == 10


@pytest.mark.parametrize("seconds", [-3600, 61, 86_400])
async def test_a_step_of_the_wall_clock_begins_an_epoch(
    spool: Spool, clock: ManualClock, seconds: int
) -> None:
    """It may be another machine's memory than a moment ago."""
    await spool.append(points(3))
    clock.step(timedelta(seconds=seconds))
    await spool.append(points(2, 3))
    first, second = await drain(spool)
    assert first.name is not None
    assert second.name is not None
    assert places([first, second]) == [(1, 3), (1, 2)]
    assert second.after == Predecessor(first.name.epoch, 3)


async def test_a_small_step_of_the_wall_clock_does_not(spool: Spool, clock: ManualClock) -> None:
    for number in range(5):
        await spool.append(points(1, number))
        clock.step(timedelta(seconds=50))
        await clock.advance(1000)
    assert places(await drain(spool)) == [(1, 5)]


async def test_an_epoch_of_which_nothing_was_delivered_is_skipped(
    spool: Spool, clock: ManualClock
) -> None:
    await spool.append(points(3))
    delivered = await head(spool)
    await acknowledge(spool, delivered)
    clock.step(timedelta(days=1))
    await spool.append(points(10, 3))
    clock.step(timedelta(days=1))
    await fill(spool, 13)
    assert spool.statistics().evicted == 10
    assert delivered.name is not None
    assert (await head(spool)).after == Predecessor(delivered.name.epoch, 3, 10)


async def test_an_epoch_that_was_refused_is_known_to_the_receiver(
    spool: Spool, clock: ManualClock
) -> None:
    await spool.append(points(4))
    refused = await head(spool)
    await spool.set_aside(Refusal(refused, "no"))
    clock.step(timedelta(days=1))
    await spool.append(points(2, 4))
    assert refused.name is not None
    assert (await head(spool)).after == Predecessor(refused.name.epoch, 4)


# Clashes: stamps of `points` count up by the second, from that of the first one on.


async def clash(spool: Spool, upto: int, newest: int) -> MetricBatch:
    """Learn that another machine's points came up to ``upto``, the newest as old as ours there."""
    batch = await head(spool)
    assert batch.name is not None
    stamp = batch[0].timestamp + timedelta(seconds=newest - batch.name.first)
    await spool.rename(batch.name, upto, stamp)
    return batch


async def stamped(spool: Spool, count: int) -> None:
    """Append points with stamps a second apart, in two collections."""
    start = points(1)[0].timestamp
    made = [
        MetricPoint(
            timestamp=start + timedelta(seconds=number),
            group=point.group,
            peer_id=point.peer_id,
            data=point.data,
        )
        for number, point in enumerate(points(count))
    ]
    await spool.append(made[: count // 2])
    await spool.append(made[count // 2 :])


async def test_after_a_clash_points_beyond_it_keep_their_places_in_another_epoch(
    spool: Spool,
) -> None:
    await stamped(spool, 20)
    sent = await head(spool, 4)
    await acknowledge(spool, sent)
    before = await clash(spool, 8, 8)
    after = await head(spool)
    assert before.name is not None
    assert after.name is not None
    assert is_continuation(after.name.epoch, before.name.epoch)
    assert places([after]) == [(9, 20)]
    assert list(after) == list(before)[4:]
    assert after.after == Predecessor(before.name.epoch, 4, 4)
    s = spool.statistics()
    assert (s.clashed, s.waiting, s.acknowledged) == (4, 12, 4)


async def test_after_a_clash_points_newer_than_the_others_are_kept(spool: Spool) -> None:
    await stamped(spool, 20)
    before = await clash(spool, 30, 15)
    after = await head(spool)
    assert places([after]) == [(16, 20)]
    assert before.name is not None
    assert after.after == Predecessor(before.name.epoch, 0, 15)
    assert spool.statistics().clashed == 15


async def test_after_a_clash_new_points_get_an_epoch_that_nobody_used(spool: Spool) -> None:
    await stamped(spool, 20)
    before = await clash(spool, 30, 40)
    assert await spool.head(10) is None
    await spool.append(points(2))
    after = await head(spool)
    assert before.name is not None
    assert after.name is not None
    assert places([after]) == [(1, 2)]
    assert not is_continuation(after.name.epoch, before.name.epoch)
    assert after.after is not None
    assert after.after.skipped == spool.statistics().clashed == 20


async def test_a_clash_under_a_name_that_is_not_at_the_head_changes_nothing(spool: Spool) -> None:
    await stamped(spool, 5)
    before = await head(spool)
    await spool.rename(BatchName("0" * 32, 1, 5), 3, before[0].timestamp)
    assert await head(spool) == before


async def test_closing_twice_is_the_same_as_once(spool: Spool) -> None:
    await spool.aclose()
    await spool.aclose()
