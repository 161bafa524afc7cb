from __future__ import annotations

import pytest

from plexd.metrics.testing import ManualClock
from plexd.rates import TokenBucket, TokenBuckets


async def test_a_bucket_gives_its_burst_and_then_the_callers_rate() -> None:
    clock = ManualClock()
    bucket = TokenBucket(2, clock)

    assert [bucket.take(10), bucket.take(10), bucket.take(10)] == [0, 0, pytest.approx(0.1)]
    assert bucket.wait(1) == pytest.approx(1.0)
    await clock.advance(0.5)
    assert bucket.take(2) == 0
    assert bucket.take(2) == pytest.approx(0.5)


async def test_a_full_bucket_does_not_overflow() -> None:
    clock = ManualClock()
    bucket = TokenBucket(1, clock)
    await clock.advance(3600)

    assert bucket.take(100) == 0
    assert bucket.take(100) > 0


def test_each_key_has_a_bucket_of_its_own_and_wait_costs_no_token() -> None:
    buckets = TokenBuckets(ManualClock(), rate=0.5, burst=1)

    assert [buckets.wait("a"), buckets.take("a"), buckets.take("a")] == [0, 0, 2]
    assert [buckets.wait("b"), buckets.wait("b"), buckets.take("b")] == [0, 0, 0]


def test_the_key_that_took_longest_ago_is_forgotten() -> None:
    buckets = TokenBuckets(ManualClock(), rate=1, burst=1, size=2)
    for key in ("a", "b", "c"):
        buckets.take(key)

    assert [buckets.wait(key) for key in ("a", "b", "c")] == [0, 1, 1]
