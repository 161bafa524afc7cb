"""Old points go every hour, and a store that fails is asked again."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from plexd.metrics.testing import ManualClock
from plexd_server.errors import StoreError
from plexd_server.upkeep.retention import retaining

if TYPE_CHECKING:
    from datetime import datetime

    import pytest

KEEP = timedelta(days=30)


class Expiring:
    """Plays a store: answers, or raises, what is in line."""

    def __init__(self, *answers: int | StoreError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[datetime, timedelta]] = []

    async def expire(self, now: datetime, keep: timedelta) -> int:
        self.asked.append((now, keep))
        answer = self.answers.pop(0)
        if isinstance(answer, StoreError):
            raise answer
        return answer


async def test_it_expires_at_once_and_every_hour_whatever_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock, store = ManualClock(), Expiring(5, StoreError("no more"), 0)
    start, scripted = clock.now(), cast("Any", store)

    async with retaining(scripted, KEEP, clock):
        await clock.advance(2 * 3600 + 1)

    assert store.asked == [(start + timedelta(hours=n), KEEP) for n in range(3)]
    assert [record.message for record in caplog.records] == [
        "points expired",
        "points not expired",
    ]
    await clock.advance(3600)
    assert not store.answers
