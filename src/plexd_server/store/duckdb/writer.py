"""One thread that writes, many coroutines that wait: group commit.

Whatever has come in while a commit was under way goes into the next one together, so the cost of
a durable commit is shared exactly when there is much to write, and nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from plexd_server.errors import StoreBusy, StoreClosed, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plexd_server.store.duckdb.fault_log import FaultLog
    from plexd_server.store.port import Receipt, Report

__all__ = ["GroupWriter"]

_COMMIT_POINTS = 50_000


class _Pending(NamedTuple):
    report: Report
    done: asyncio.Future[Receipt]

    @property
    def weight(self) -> int:
        """How many points it counts as; none at all would not be bounded."""
        return max(1, len(self.report.points))


class GroupWriter:
    """Passes reports to ``commit`` in groups, in order, on a thread of its own.

    ``commit`` makes a group durable and answers each, or raises `StoreError` having written none
    of it; a group that fails is tried again one by one, so that one bad report fails alone. At
    most ``max_points`` points wait (a single larger report is let in when nothing else does).
    ``faults`` is told of every failure.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Report]], Sequence[Receipt]],
        *,
        max_points: int,
        faults: FaultLog,
    ) -> None:
        self._commit = commit
        self._max_points = max_points
        self._faults = faults
        self._waiting: deque[_Pending] = deque()
        self._points = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def write(self, report: Report) -> Receipt:
        """Return once the report is durable. Raises `StoreBusy` at once when too much waits."""
        waiting = _Pending(report, asyncio.get_running_loop().create_future())
        with self._changed:
            if self._closed:
                raise StoreClosed("the store is shutting down")
            if self._points and self._points + waiting.weight > self._max_points:
                raise StoreBusy("too much is waiting to be written; try again in a moment")
            self._points += waiting.weight
            self._waiting.append(waiting)
            self._changed.notify()
        return await waiting.done

    def close(self) -> None:
        """Write what was accepted and end the thread. Blocks; may be called again."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._take():
            answers = self._try(group)
            if not isinstance(answers, StoreError) or len(group) == 1:
                _settle(group, answers)
                continue
            for one in group:
                _settle([one], self._try([one]))

    def _take(self) -> list[_Pending]:
        """The next group; empty once closed and drained."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            group: list[_Pending] = []
            points = 0
            while self._waiting and points < _COMMIT_POINTS:
                group.append(self._waiting.popleft())
                points += group[-1].weight
            self._points -= points
            return group

    def _try(self, group: Sequence[_Pending]) -> Sequence[Receipt] | StoreError:
        try:
            return self._commit([waiting.report for waiting in group])
        except StoreError as err:
            self._faults.failed(err.__cause__ or err)
            return err
        except Exception as err:  # noqa: BLE001 -- the thread must outlive whatever a commit does
            self._faults.failed(err)
            return StoreError("the store failed; the server's log says why")


def _settle(group: Sequence[_Pending], answers: Sequence[Receipt] | StoreError) -> None:
    """Tell each waiter, on the loop it waits on; a loop that is gone has no waiters left."""
    told: Sequence[Receipt | StoreError] = (
        [answers] * len(group) if isinstance(answers, StoreError) else answers
    )
    pairs = list(zip((waiting.done for waiting in group), told, strict=True))
    for loop in {done.get_loop() for done, _ in pairs}:
        ours = [pair for pair in pairs if pair[0].get_loop() is loop]
        try:
            loop.call_soon_threadsafe(_wake, ours)
        except RuntimeError:
            continue


def _wake(pairs: Sequence[tuple[asyncio.Future[Receipt], Receipt | StoreError]]) -> None:
    for done, answer in pairs:
        if done.done():
            continue
        if isinstance(answer, StoreError):
            done.set_exception(answer)
        else:
            done.set_result(answer)
