"""A disk spool against what a control plane sees of it, for any events in any order."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from plexd.metrics.testing import ManualClock
from plexd.spool import DiskSpool, Refusal
from spool.balance import balanced
from support.corrupting import FILES, KINDS, damaged
from support.latency import latency_points
from support.receivers import StrictReceiver

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from plexd.api import MetricBatch
    from plexd.spool import SpoolStatistics

_T = TypeVar("_T")
_DAY = 86_400
_MAX_AGE = timedelta(days=7)
# Room for about eight rows.
_MAX_BYTES = 78_000


class SpoolMachine(RuleBasedStateMachine):
    """Points 0, 1, 2 ... are appended; the receiver checks what is delivered against the rules."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)
        self._loop = asyncio.new_event_loop()
        self._made = tempfile.TemporaryDirectory()
        self._generation = 0
        self._clock = ManualClock()
        self._receiver = StrictReceiver()
        self._appended = self._refused = 0
        # Points the receiver accepted without an answer, which may be counted as lost here as well.
        self._unanswered = self._unanswered_dropped = 0
        self._is_damaged = False
        self._spool = self._opened()

    def _opened(self) -> DiskSpool:
        directory = Path(self._made.name) / f"{self._generation}"
        spool = DiskSpool(directory, max_bytes=_MAX_BYTES, max_age=_MAX_AGE, clock=self._clock)
        self._run(spool.__aenter__())
        return spool

    def _run(self, waiting: Coroutine[object, object, _T]) -> _T:
        return self._loop.run_until_complete(waiting)

    @rule(count=st.integers(1, 12))
    def append(self, count: int) -> None:
        self._run(self._spool.append(latency_points(count, self._appended)))
        self._appended += count

    @rule(limit=st.integers(1, 8))
    def seal(self, limit: int) -> None:
        self._run(self._spool.seal(limit))
        assert self._spool.statistics().buffered == 0

    @rule(most=st.integers(1, 4))
    def deliver(self, most: int) -> None:
        self._run(self._receiver.drain(self._spool, most))

    @rule()
    def deliver_without_an_answer(self) -> None:
        head = self._head()
        if head is not None:
            self._receiver.take(head)
            self._unanswered += len(head)
            self._unanswered_dropped += head.dropped

    @rule()
    def read_the_head_twice(self) -> None:
        first, second = self._head(), self._head()
        if first is not None:
            assert second is not None
            assert (first.name, first.to_json(), first.dropped) == (
                second.name,
                second.to_json(),
                second.dropped,
            )

    @rule(part=st.floats(0, 1))
    def refuse(self, part: float) -> None:
        """Refuse the last points of the head, or all of it; the receiver accepts the others."""
        head = self._head()
        if head is None or self._receiver.has(head):
            return
        assert head.name is not None
        first = int(part * len(head))
        self._receiver.take_part(head, first)
        refusal = Refusal(head.piece(first, len(head)), "no")
        self._run(self._spool.acknowledge(head.name, refused=[refusal]))
        self._refused += len(head) - first

    def _head(self) -> MetricBatch | None:
        return self._run(self._spool.head())

    @rule(seconds=st.sampled_from([1, 60, _DAY, 3 * _DAY, 8 * _DAY]))
    def let_time_pass(self, seconds: int) -> None:
        self._run(self._clock.advance(seconds))

    @rule(days=st.integers(-3000, 3000))
    def step_the_wall_clock(self, days: int) -> None:
        before = self._spool.statistics().expired
        self._clock.step(timedelta(days=days))
        self._run(self._spool.append(latency_points(1, self._appended)))
        self._appended += 1
        oldest = self._spool.statistics().oldest_seconds
        assert self._spool.statistics().expired == before or oldest <= _MAX_AGE.total_seconds()
        self._clock.step(timedelta(days=-days))

    @rule()
    def reopen(self) -> None:
        before = self._spool.statistics()
        self._run(self._spool.aclose())
        self._spool = self._opened()
        assert _counts(self._spool.statistics()) == _counts(before)

    @rule()
    def crash(self) -> None:
        before = self._spool.statistics()
        self._copy_and_leave()
        self._spool = self._opened()
        assert _counts(self._spool.statistics()) == _counts(before)

    def _copy_and_leave(self) -> Path:
        """Copy the files as they are, as if the process had been killed."""
        left = Path(self._made.name) / f"{self._generation}"
        self._generation += 1
        directory = Path(self._made.name) / f"{self._generation}"
        shutil.copytree(left, directory)
        self._run(self._spool.aclose())
        shutil.rmtree(left)
        return directory

    @precondition(lambda self: not self._is_damaged)
    @rule(name=st.sampled_from(FILES), kind=st.sampled_from(KINDS), place=st.floats(0, 1))
    def crash_and_damage_a_byte(self, name: str, kind: str, place: float) -> None:
        directory = self._copy_and_leave()
        path = directory / name
        content = path.read_bytes() if path.exists() else b""
        if content:
            path.write_bytes(damaged(content, int(place * (len(content) - 1)), kind))
            self._is_damaged = True
        self._receiver.is_lenient = self._is_damaged
        self._spool = self._opened()

    @invariant()
    def every_point_is_accounted_for(self) -> None:
        found = self._spool.statistics()
        assert balanced(found).appended == self._appended, found
        assert not found.degraded

    def teardown(self) -> None:
        try:
            self._run(self._deliver_everything())
        finally:
            self._run(self._spool.aclose())
            self._loop.close()
            self._made.cleanup()
            logging.disable(logging.NOTSET)

    async def _deliver_everything(self) -> None:
        """Deliver two last batches, the second of which reports all losses before it."""
        for _ in range(2):
            await self._spool.seal(5)
            await self._receiver.drain(self._spool)
            await self._spool.append(latency_points(1, self._appended))
            self._appended += 1
        await self._spool.seal(5)
        await self._receiver.drain(self._spool)
        found = self._spool.statistics()
        assert found.waiting == 0
        missing = self._appended - len(self._receiver.points)
        assert missing <= found.lost <= missing + self._unanswered
        if not self._is_damaged:
            assert found.damaged == 0
            assert found.refused == self._refused
            assert found.lost <= self._receiver.told <= found.lost + self._unanswered_dropped


def _counts(found: SpoolStatistics) -> tuple[int, ...]:
    return (
        found.appended,
        found.acknowledged,
        found.refused,
        found.evicted,
        found.expired,
        found.buffered,
        found.sealed,
        found.batches,
        found.stored_bytes,
        found.dead_letters,
    )


TestSpool = pytest.mark.slow(SpoolMachine.TestCase)
TestSpool.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
