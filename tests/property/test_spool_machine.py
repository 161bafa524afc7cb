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
        self._unanswered = 0
        # Losses reported with these, which are reported again if all of the epoch is lost later.
        self._unanswered_losses = 0
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

    @rule(most=st.integers(1, 4), limit=st.integers(1, 20))
    def deliver(self, most: int, limit: int) -> None:
        self._run(self._receiver.drain(self._spool, most, limit=limit))

    @rule(limit=st.integers(1, 20))
    def deliver_without_an_answer(self, limit: int) -> None:
        head = self._head(limit)
        if head is not None:
            before = len(self._receiver.points)
            self._receiver.accept(head)
            self._unanswered += len(self._receiver.points) - before
            assert head.after is not None
            self._unanswered_losses += head.dropped + head.after.skipped
            self._receiver.marks.may_begin_again = True

    @rule(count=st.integers(1, 12), limit=st.integers(1, 20))
    def append_while_a_batch_is_under_way(self, count: int, limit: int) -> None:
        head = self._head(limit)
        self.append(count)
        if head is not None:
            self._run(self._spool.acknowledge(self._receiver.accept(head)))

    @rule(limit=st.integers(1, 20))
    def read_the_head_twice(self, limit: int) -> None:
        first, second = self._head(limit), self._head(limit)
        if first is not None:
            assert second is not None
            assert second == first
            assert second.to_json() == first.to_json()

    @rule(limit=st.integers(1, 20))
    def set_aside(self, limit: int) -> None:
        head = self._head(limit)
        if head is None or any(self._receiver.has(head.piece(i, i + 1)) for i in range(len(head))):
            return
        self._receiver.reject(head)
        self._run(self._spool.set_aside(Refusal(head, "no")))
        self._refused += len(head)

    def _head(self, limit: int) -> MetricBatch | None:
        return self._run(self._spool.head(limit))

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
        self._receiver.marks.is_lenient = self._is_damaged
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
        """Deliver what waits, and then a point that shows what is missing before it."""
        await self._receiver.drain(self._spool)
        await self._spool.append(latency_points(1, self._appended))
        self._appended += 1
        await self._receiver.drain(self._spool)
        found = self._spool.statistics()
        assert found.waiting == 0
        missing = self._appended - len(self._receiver.points)
        assert missing <= found.lost <= missing + self._unanswered
        assert missing <= self._receiver.lost or self._receiver.marks.is_begun_again
        if not self._is_damaged:
            assert found.damaged == found.clashed == 0
            assert found.refused == self._refused
            assert self._receiver.lost <= found.lost + self._unanswered_losses


def _counts(found: SpoolStatistics) -> tuple[int, ...]:
    return (
        found.appended,
        found.acknowledged,
        found.refused,
        found.evicted,
        found.expired,
        found.waiting,
        found.stored_bytes,
        found.dead_letters,
    )


TestSpool = pytest.mark.slow(SpoolMachine.TestCase)
TestSpool.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
