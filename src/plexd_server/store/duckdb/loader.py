"""From the journal into the tables, in large chunks, on a thread of its own.

A chunk costs what a few hundred reports cost one by one, so points wait a moment for others, unless
a question needs them. The journal keeps them durable meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

from plexd_server.errors import FilesReplaced, JournalDamaged, StoreClosed, StoreError
from plexd_server.store.duckdb.new_rows import Chunk
from plexd_server.store.journal import Follower, Record, decode_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from plexd_server.fault_log import FaultLog

    T = TypeVar("T")

_CHUNK_POINTS: Final = 120_000  # what DuckDB keeps together
_MAX_DELAY_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 1.0
# A question does not wait longer for another task of the thread, such as a copy.
_FLUSH_TIMEOUT_SECONDS: Final = 5.0


class Loader:
    """Follows the journal in ``directory`` after ``position``, and passes its records to ``load``.

    ``load`` puts a chunk into the tables whole or raises; ``loaded`` is called with the last record
    of each. A chunk that failed is loaded again a second later, for ever: what is in the journal
    was acknowledged. ``faults`` logs it. Between chunks ``roll`` makes some rollups, and returns
    whether there may be more to make.
    """

    def __init__(
        self,
        directory: Path,
        position: int,
        load: Callable[[Chunk], None],
        loaded: Callable[[int], None],
        faults: FaultLog,
        roll: Callable[[], bool] = lambda: False,
    ) -> None:
        self._directory = directory
        self._load = load
        self._report = loaded
        self._faults = faults
        self._roll = roll
        self._has_more_to_roll = True
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._durable = self._loaded = position
        self._failures = self._flush_upto = 0
        self._closed = self._is_over = False
        self._changed = threading.Condition()
        self._follower = Follower(directory, position)
        self._begin_again()
        self._thread = threading.Thread(target=self._run, name="store-loader", daemon=True)
        self._thread.start()

    def _begin_again(self) -> None:
        """Read from the journal what is not in the tables."""
        self._follower.return_to(self._loaded)
        self._chunk = Chunk(self._loaded)
        self._began = 0.0

    def extend(self, durable: int) -> None:
        """Note that the journal's records up to this one are durable."""
        with self._changed:
            self._durable = max(self._durable, durable)
            self._changed.notify_all()

    def flush(self, upto: int) -> None:
        """Return once everything up to this record is in the tables. Raises `StoreError`."""
        with self._changed:
            failures = self._failures
            self._durable = max(self._durable, upto)
            self._flush_upto = max(self._flush_upto, upto)
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._loaded >= upto or self._failures > failures or self._closed,
                _FLUSH_TIMEOUT_SECONDS,
            )
            if self._loaded < upto:
                raise StoreError("points are kept but not in their tables yet")

    def run(self, task: Callable[[], T]) -> T:
        """Run ``task`` on the thread while nothing is loaded, and return its result; blocks.

        Raises `StoreClosed` after `close`. Points wait meanwhile, so a long task is cut in slices.
        """
        return self.submit(task).result()

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Begin what `run` does."""
        done: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise StoreClosed("the store is shutting down")
            self._tasks.append((done, task))
            self._changed.notify_all()
        return done

    def close(self, upto: int) -> int:
        """Load up to this record if that works, and end the thread; return the last one. Blocks."""
        with self._changed:
            self._durable = max(self._durable, upto)
        self._end()
        return self._loaded

    def abandon(self) -> None:
        """End the thread without loading more; blocks for a load that has begun."""
        self._is_over = True
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._follower.close()

    def _run(self) -> None:
        while not self._is_over:
            with self._changed:
                self._changed.wait_for(self._has_work, self._patience())
                is_last = self._closed
            self._run_tasks()
            if not self._is_over:
                self._step(is_last=is_last)
            if self._has_more_to_roll and not self._closed:
                self._has_more_to_roll = self._roll()
        self._run_tasks()

    def _has_work(self) -> bool:
        is_behind = self._chunk.weight < _CHUNK_POINTS and self._chunk.upto < self._durable
        has_more = bool(self._tasks) or self._has_more_to_roll
        return is_behind or has_more or self._closed or self._is_due()

    def _patience(self) -> float | None:
        """Return in how many seconds what waits is due; None if nothing waits."""
        if not self._chunk.weight:
            return None
        return max(0.0, self._began + _MAX_DELAY_SECONDS - time.monotonic())

    def _is_due(self) -> bool:
        waits = self._chunk.weight > 0
        is_old = waits and time.monotonic() >= self._began + _MAX_DELAY_SECONDS
        return waits and (
            is_old
            or self._closed
            or self._chunk.weight >= _CHUNK_POINTS
            or self._flush_upto > self._loaded
        )

    def _step(self, *, is_last: bool) -> None:
        """Read what is durable, and load it if that is due; pause after a failure."""
        try:
            self._read()
            if self._is_due():
                self._load_chunk()
        except FilesReplaced:  # it is logged where it was found
            self._pause()
        except Exception as err:  # noqa: BLE001 -- the thread must outlive any failure
            self._faults.failed(err)
            self._pause()
        else:
            self._is_over = is_last and self._loaded >= self._durable
            return
        self._is_over = is_last

    def _read(self) -> None:
        while self._chunk.upto < self._durable and self._chunk.weight < _CHUNK_POINTS:
            try:
                payload = self._follower.next()
                self._chunk.add(self._follower.position, self._decoded(payload))
            except BaseException:
                self._begin_again()
                raise
            self._began = self._began or time.monotonic()

    def _decoded(self, payload: bytes) -> Record | None:
        try:
            record = decode_record(payload)
        except ValueError as err:
            reason = f"record {self._follower.position}: {err}"
            raise JournalDamaged(self._directory, reason) from err
        assert record is None or isinstance(record, Record), "old records are loaded at the start"
        return record

    def _load_chunk(self) -> None:
        self._load(self._chunk)
        self._faults.worked()
        self._has_more_to_roll = True
        upto = self._chunk.upto
        self._chunk, self._began = Chunk(upto), 0.0
        self._report(upto)  # before an answer says it
        with self._changed:
            self._loaded = upto
            self._changed.notify_all()

    def _run_tasks(self) -> None:
        while self._tasks:
            done, task = self._tasks.popleft()
            try:
                done.set_result(task())
            except BaseException as err:  # noqa: BLE001 -- the caller of `run` gets it
                done.set_exception(err)

    def _pause(self) -> None:
        """Wait after a failure, until the next flush at most."""
        with self._changed:
            self._failures += 1
            self._flush_upto = 0
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._flush_upto or self._tasks or self._closed, _RETRY_SECONDS
            )
