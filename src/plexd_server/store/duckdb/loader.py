"""From the journal into the tables, in large strokes, on a thread of its own.

A stroke costs what a few hundred reports cost one by one, so points wait a moment for others to
come along, unless somebody asks. They are durable meanwhile: the journal has them.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from plexd_server.errors import StoreClosed, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from plexd_server.store.duckdb.columns import ReportPoints
    from plexd_server.store.marks import Mark
    from plexd_server.store.port import Loss

    T = TypeVar("T")

__all__ = ["Addition", "Filler"]

_STROKE_POINTS: Final = 30_000
_WAIT_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 1.0
# Who asks waits no longer for what else the thread may be at, such as a copy.
_PATIENCE_SECONDS: Final = 5.0


class Addition(NamedTuple):
    """What the journal's records up to ``record`` add to the tables."""

    record: int
    arrivals: Sequence[ReportPoints]
    receipts: Sequence[Mark]
    losses: Sequence[tuple[str, Loss]]

    @property
    def size(self) -> int:
        """How many points it counts as; none at all would not be bounded."""
        return max(1, sum(len(arrival.points) for arrival in self.arrivals))


class Filler:
    """Hands additions to ``fill`` in order, as many at once as there are.

    ``fill`` puts all into the tables or, when it raises, none; then it is tried again with the same
    ones a second later, for ever: what is in the journal was acknowledged.
    """

    def __init__(self, fill: Callable[[Sequence[Addition]], None]) -> None:
        self._fill = fill
        self._waiting: list[Addition] = []
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._added = self._filled = self._failures = 0
        self._asked = 0
        self._closed = False
        self._changed = threading.Condition()
        self.backlog = 0
        self._thread = threading.Thread(target=self._run, name="store-filler", daemon=True)
        self._thread.start()

    def add(self, addition: Addition) -> None:
        """Take an addition on; returns at once."""
        with self._changed:
            self._waiting.append(addition)
            self._added += 1
            self.backlog += addition.size
            self._changed.notify_all()

    def waiting(self) -> list[Addition]:
        """What is not in the tables yet, oldest first; what is being filled in is still there."""
        with self._changed:
            return list(self._waiting)

    def settle(self) -> None:
        """Return once all that was added before is in the tables. Raises `StoreError`."""
        with self._changed:
            upto, failures = self._added, self._failures
            self._asked = max(self._asked, upto)
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._filled >= upto or self._failures > failures, _PATIENCE_SECONDS
            )
            if self._filled < upto:
                raise StoreError("points are kept but not in their tables yet")

    def between(self, task: Callable[[], T]) -> T:
        """What ``task`` returns, run on the thread while no stroke is; blocks.

        Raises `StoreClosed` after `close`. Points wait meanwhile, so a long task is done in slices.
        """
        done: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise StoreClosed("the store is shutting down")
            self._tasks.append((done, task))
            self._changed.notify_all()
        return done.result()

    def close(self) -> None:
        """Fill once more and end the thread. Blocks; what failed stays in the journal."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        is_over = False
        while not is_over:
            self._wait_for_work()
            self._do_tasks()
            stroke = self._next()
            is_over = not self._try(stroke) if stroke else self._closed and not self._waiting
        self._do_tasks()

    def _try(self, stroke: Sequence[Addition]) -> bool:
        """Fill it in; whether to go on."""
        try:
            self._fill(stroke)
        except Exception:  # noqa: BLE001 -- it has told; the thread must outlive whatever it was
            return self._pause()
        self._done(stroke)
        return True

    def _wait_for_work(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._tasks or self._closed)

    def _do_tasks(self) -> None:
        while self._tasks:
            done, task = self._tasks.popleft()
            try:
                done.set_result(task())
            except BaseException as err:  # noqa: BLE001 -- whoever waits for it is told
                done.set_exception(err)

    def _next(self) -> Sequence[Addition]:
        """The next stroke, whole additions; empty if there is something else to do."""
        with self._changed:
            self._changed.wait_for(self._is_due, _WAIT_SECONDS)
            stroke: list[Addition] = []
            points = 0
            for addition in self._waiting:
                if points >= _STROKE_POINTS:
                    break
                stroke.append(addition)
                points += addition.size
            return stroke

    def _is_due(self) -> bool:
        if not self._waiting or self._tasks or self._closed:
            return True
        return self._asked > self._filled or self.backlog >= _STROKE_POINTS

    def _done(self, stroke: Sequence[Addition]) -> None:
        with self._changed:
            del self._waiting[: len(stroke)]
            self._filled += len(stroke)
            self.backlog -= sum(addition.size for addition in stroke)
            self._changed.notify_all()

    def _pause(self) -> bool:
        """After a failure: whether to try again, which whoever asks anew does not wait for."""
        with self._changed:
            self._failures += 1
            self._asked = 0
            self._changed.notify_all()
            if self._closed:
                return False
            self._changed.wait_for(lambda: self._asked or self._closed, _RETRY_SECONDS)
            return True
