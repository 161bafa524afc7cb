"""From the journal into the tables, in large chunks, on a thread of its own.

A chunk costs what a few hundred reports cost one by one, so points wait a moment for others, unless
a query needs them. The journal keeps them durable meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

from plexd_server.errors import StoreClosed, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plexd_server.store.duckdb.changeset import Changeset

    T = TypeVar("T")

_CHUNK_POINTS: Final = 30_000
_MAX_DELAY_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 1.0
# A query does not wait longer for another task of the thread, such as a copy.
_FLUSH_TIMEOUT_SECONDS: Final = 5.0


class Loader:
    """Passes changesets to ``load`` in order, in chunks of as many as wait.

    ``load`` puts a chunk into the tables whole or raises. A chunk that failed is loaded again a
    second later, for ever: what is in the journal was acknowledged.
    """

    def __init__(self, load: Callable[[Sequence[Changeset]], None]) -> None:
        self._load = load
        self._pending: list[Changeset] = []
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._added = self._loaded = self._failures = 0
        self._flush_upto = 0
        self._closed = False
        self._changed = threading.Condition()
        self.backlog = 0
        self._thread = threading.Thread(target=self._run, name="store-loader", daemon=True)
        self._thread.start()

    def add(self, changeset: Changeset) -> None:
        """Queue a changeset; returns at once."""
        with self._changed:
            self._pending.append(changeset)
            self._added += 1
            self.backlog += changeset.weight
            self._changed.notify_all()

    def pending(self) -> list[Changeset]:
        """Return what is not in the tables yet, oldest first, with the chunk being loaded."""
        with self._changed:
            return list(self._pending)

    def flush(self) -> None:
        """Return once everything added before is in the tables. Raises `StoreError`."""
        with self._changed:
            upto, failures = self._added, self._failures
            self._flush_upto = max(self._flush_upto, upto)
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._loaded >= upto or self._failures > failures, _FLUSH_TIMEOUT_SECONDS
            )
            if self._loaded < upto:
                raise StoreError("points are kept but not in their tables yet")

    def run(self, task: Callable[[], T]) -> T:
        """Run ``task`` on the thread while nothing is loaded, and return its result; blocks.

        Raises `StoreClosed` after `close`. Points wait meanwhile, so a long task is cut in slices.
        """
        done: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise StoreClosed("the store is shutting down")
            self._tasks.append((done, task))
            self._changed.notify_all()
        return done.result()

    def close(self) -> None:
        """Load once more and end the thread. Blocks; what failed stays in the journal."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        is_over = False
        while not is_over:
            self._wait_for_work()
            self._run_tasks()
            chunk = self._next_chunk()
            is_over = not self._try(chunk) if chunk else self._closed and not self._pending
        self._run_tasks()

    def _try(self, chunk: Sequence[Changeset]) -> bool:
        """Load the chunk; return whether to continue."""
        try:
            self._load(chunk)
        except Exception:  # noqa: BLE001 -- it is logged; the thread must outlive any failure
            return self._pause()
        self._remove(chunk)
        return True

    def _wait_for_work(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._tasks or self._closed)

    def _run_tasks(self) -> None:
        while self._tasks:
            done, task = self._tasks.popleft()
            try:
                done.set_result(task())
            except BaseException as err:  # noqa: BLE001 -- the caller of `run` gets it
                done.set_exception(err)

    def _next_chunk(self) -> Sequence[Changeset]:
        """Return the next chunk, whole changesets; empty if there is something else to do."""
        with self._changed:
            self._changed.wait_for(self._is_due, _MAX_DELAY_SECONDS)
            chunk: list[Changeset] = []
            points = 0
            for changeset in self._pending:
                if points >= _CHUNK_POINTS:
                    break
                chunk.append(changeset)
                points += changeset.weight
            return chunk

    def _is_due(self) -> bool:
        if not self._pending or self._tasks or self._closed:
            return True
        return self._flush_upto > self._loaded or self.backlog >= _CHUNK_POINTS

    def _remove(self, chunk: Sequence[Changeset]) -> None:
        with self._changed:
            del self._pending[: len(chunk)]
            self._loaded += len(chunk)
            self.backlog -= sum(changeset.weight for changeset in chunk)
            self._changed.notify_all()

    def _pause(self) -> bool:
        """Wait after a failure, until the next flush at most; return whether to try again."""
        with self._changed:
            self._failures += 1
            self._flush_upto = 0
            self._changed.notify_all()
            if self._closed:
                return False
            self._changed.wait_for(lambda: self._flush_upto or self._closed, _RETRY_SECONDS)
            return True
