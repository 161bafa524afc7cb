"""Group commit: one thread writes, many coroutines wait.

All reports that arrive during a commit share the next one. So the cost of a durable commit is
shared exactly when there is much to write, and no report waits for a timer.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from plexd_server.errors import FilesReplaced, StoreBusy, StoreClosed, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plexd_server.fault_log import FaultLog
    from plexd_server.store.port import Report, Written

_GROUP_POINTS = 50_000


class _Pending(NamedTuple):
    report: Report
    done: asyncio.Future[Written]

    @property
    def weight(self) -> int:
        """Return how many points it counts as; if none counted, the queue had no bound."""
        return max(1, len(self.report.points))


class GroupWriter:
    """Passes reports to ``commit`` in groups, in order, on a thread of its own.

    ``commit`` makes a group durable and returns the result of each report, or raises `StoreError`
    and has written none. The reports of a group that failed are committed one by one, so that a bad
    report fails alone. At most ``max_points`` points wait; a single larger report is accepted when
    no other waits. ``faults`` logs every failure.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Report]], Sequence[Written]],
        *,
        max_points: int,
        faults: FaultLog,
    ) -> None:
        self._commit = commit
        self._max_points = max_points
        self._faults = faults
        self._pending: deque[_Pending] = deque()
        self._points = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def write(self, report: Report) -> Written:
        """Return once the report is durable. Raises `StoreBusy` at once when too much waits."""
        pending = _Pending(report, asyncio.get_running_loop().create_future())
        with self._changed:
            if self._closed:
                raise StoreClosed("the store is shutting down")
            if self._points and self._points + pending.weight > self._max_points:
                raise StoreBusy("too much is waiting to be written; try again in a moment")
            self._points += pending.weight
            self._pending.append(pending)
            self._changed.notify()
        return await pending.done

    def close(self) -> None:
        """Write what was accepted and end the thread. Blocks; may be called again."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            answers = self._try(group)
            if not isinstance(answers, StoreError) or len(group) == 1:
                _answer(group, answers)
                continue
            for one in group:
                _answer([one], self._try([one]))

    def _next_group(self) -> list[_Pending]:
        """Return the next group; it is empty once the writer is closed and the queue drained."""
        with self._changed:
            while not self._pending and not self._closed:
                self._changed.wait()
            group: list[_Pending] = []
            points = 0
            while self._pending and points < _GROUP_POINTS:
                group.append(self._pending.popleft())
                points += group[-1].weight
            self._points -= points
            return group

    def _try(self, group: Sequence[_Pending]) -> Sequence[Written] | StoreError:
        try:
            return self._commit([pending.report for pending in group])
        except FilesReplaced as err:
            return err  # it is logged where it was found
        except StoreError as err:
            self._faults.failed(err.__cause__ or err)
            return err
        except Exception as err:  # noqa: BLE001 -- the thread must outlive any failure of a commit
            self._faults.failed(err)
            return StoreError("the store failed; the server's log says why")


def _answer(group: Sequence[_Pending], answers: Sequence[Written] | StoreError) -> None:
    """Give each caller its answer, on the caller's loop; a closed loop has no callers left."""
    each: Sequence[Written | StoreError] = (
        [answers] * len(group) if isinstance(answers, StoreError) else answers
    )
    pairs = list(zip((pending.done for pending in group), each, strict=True))
    for loop in {done.get_loop() for done, _ in pairs}:
        ours = [pair for pair in pairs if pair[0].get_loop() is loop]
        try:
            loop.call_soon_threadsafe(_finish, ours)
        except RuntimeError:
            continue


def _finish(pairs: Sequence[tuple[asyncio.Future[Written], Written | StoreError]]) -> None:
    for done, answer in pairs:
        if done.done():  # its caller was cancelled
            continue
        if isinstance(answer, StoreError):
            done.set_exception(answer)
        else:
            done.set_result(answer)
