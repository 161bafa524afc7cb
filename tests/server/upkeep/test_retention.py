"""Old points are expired every hour, also after the store failed."""

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

KEEP, KEEP_ROLLUPS = timedelta(days=30), timedelta(days=300)


class ScriptedStore:
    """A store that returns or raises the next of ``answers``."""

    def __init__(self, *answers: int | StoreError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[datetime, timedelta, timedelta]] = []

    async def expire(self, now: datetime, keep: timedelta, keep_rollups: timedelta) -> int:
        self.asked.append((now, keep, keep_rollups))
        answer = self.answers.pop(0)
        if isinstance(answer, StoreError):
            raise answer
        return answer


async def test_points_are_expired_at_the_start_and_every_hour_also_after_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock, store = ManualClock(), ScriptedStore(5, StoreError("no more"), 0)
    start, scripted = clock.now(), cast("Any", store)

    async with retaining(scripted, KEEP, KEEP_ROLLUPS, clock):
        await clock.advance(2 * 3600 + 1)

    assert store.asked == [(start + timedelta(hours=n), KEEP, KEEP_ROLLUPS) for n in range(3)]
    assert [record.message for record in caplog.records] == [
        "points expired",
        "points not expired",
    ]
    await clock.advance(3600)
    assert len(store.asked) == 3  # it ends with the body
