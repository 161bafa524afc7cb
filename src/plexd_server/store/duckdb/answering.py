"""The tables' end of the sockets: questions of the front are answered until it is gone.

Two threads read, one looks up marks, so that no question of a person holds up a report, and one
does the upkeep. Only the loader's thread writes.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from plexd.clock import SystemClock
from plexd_server.errors import FilesReplaced, ServerError, StoreError
from plexd_server.fault_log import FaultLog
from plexd_server.opened_files import OpenedFiles
from plexd_server.store.duckdb import queries
from plexd_server.store.duckdb.loader import Loader
from plexd_server.store.duckdb.old_records import load_all
from plexd_server.store.duckdb.series import read_series
from plexd_server.store.duckdb.tables import Tables
from plexd_server.store.embedded import questions as ask
from plexd_server.store.embedded.files import FILE_NAME, JOURNAL_NAME

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from plexd_server.store.duckdb.new_rows import Chunk

    T = TypeVar("T")

_READERS: Final = 2
_FIRST_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)
_LONGEST_HOLD_SECONDS: Final = 660.0  # longer than a backup may take


class Answering:
    """Answers the questions that come over ``connection``, about at most one database."""

    def __init__(self, connection: socket.socket) -> None:
        clock = SystemClock()
        self._connection = connection
        self._sending = threading.Lock()
        self._files = OpenedFiles(clock)
        # The names are those of docs/reference/logs.md.
        self._loading = FaultLog("filling", clock)
        self._reading = FaultLog("reading", clock)
        self._rolling = FaultLog("rolling", clock)
        self._released = threading.Event()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._marks = ThreadPoolExecutor(1, thread_name_prefix="store-marks")
        self._upkeep = ThreadPoolExecutor(1, thread_name_prefix="store-upkeep")
        self.loader: Loader | None = None
        self.tables: Tables | None = None

    def run(self) -> None:
        """Answer until the other end closes, or breaks; then close everything."""
        try:
            with suppress(OSError):
                while frame := ask.receive_frame(self._connection):
                    self._receive(*frame)
        finally:
            self._close()

    def _receive(self, number: int, body: bytes) -> None:
        """Begin to answer a question, or note how far the journal is."""
        if number == ask.NOTICE:
            if self.loader is not None:
                self.loader.extend(ask.decode_notice(body))
            return
        upto, question = ask.decode_question(body)
        self._pool(question).submit(self._answer, number, question, upto)

    def _pool(self, question: ask.Question[Any]) -> ThreadPoolExecutor:
        if isinstance(question, ask.FindMark | ask.FindMarks | ask.Finish):
            return self._marks  # where nothing takes long, so that the end waits for no upkeep
        if isinstance(question, ask.Check | ask.Release) or type(question) in _READS:
            return self._readers
        return self._upkeep

    def _answer(self, number: int, question: ask.Question[Any], upto: int) -> None:
        try:
            body = ask.encode_answer(self._find(question, upto))
        except (ServerError, ValueError) as err:
            body = ask.encode_error(err)
        except Exception as err:  # noqa: BLE001 -- a fault of a question ends nothing else
            self._reading.failed(err)
            body = ask.encode_error(err)
        self._send(ask.encode_frame(number, body))

    def _send(self, frame: bytes) -> None:
        with self._sending, suppress(OSError):  # the front is gone
            self._connection.sendall(frame)

    def _close(self) -> None:
        """Close the files without loading more."""
        self._released.set()
        if self.loader is not None:
            self.loader.abandon()
        for pool in (self._readers, self._marks, self._upkeep):
            pool.shutdown()
        if self.tables is not None:
            self.tables.close()
        self._connection.close()

    def _find(self, question: ask.Question[Any], upto: int) -> object:
        if method := _METHODS.get(type(question)):
            return method(self, question, upto)
        if not isinstance(question, ask.FindKnown | ask.FindMark | ask.FindMarks):
            self._flush(upto)
        read = _READS[type(question)]
        return self._opened.read(lambda cursor: read(cursor, question))

    def open(self, question: ask.Open, _: int) -> int:
        directory = Path(question.data_dir)
        self._journal = directory / JOURNAL_NAME
        self.tables = Tables(directory / FILE_NAME, question.memory, reading=self._reading)
        self._files.add(directory / FILE_NAME)
        return self.tables.loaded_upto()

    def load_old(self, question: ask.LoadOld, upto: int) -> int:
        load_all(self._opened, self._journal, question.position, upto)
        return self._opened.loaded_upto()

    def follow(self, question: ask.Follow, upto: int) -> None:
        if self.loader is None:  # else it was asked again, as the answer was lost
            self.loader = self._following(question.position)
        self.loader.extend(upto)

    def _following(self, position: int) -> Loader:
        return Loader(
            self._journal,
            position,
            self._load,
            lambda loaded: self._send(ask.encode_notice(loaded)),
            self._loading,
            self._roll,
        )

    def _load(self, chunk: Chunk) -> None:
        self._files.check()
        self._opened.load(chunk)

    def _roll(self) -> bool:
        """Make some rollups; after a failure there is another attempt with the next chunk.

        Also if memory is short: what is loaded must not depend on rollups.
        """
        try:
            self._files.check()
            has_more = self._opened.roll()
        except FilesReplaced:  # it is logged where it was found
            return False
        except Exception as err:  # noqa: BLE001 -- the thread loads points as well
            self._rolling.failed(err)
            return False
        self._rolling.worked()
        return has_more

    def check(self, _: ask.Check, upto: int) -> None:
        self._flush(upto, strictly=self._loading.failing)
        self._opened.read(lambda cursor: queries.read_meta(cursor, "schema_version"))

    def expire(self, question: ask.Expire, upto: int) -> int:
        """Remove hour by hour, so that what is loaded meanwhile waits for one hour's points."""
        self._flush(upto)
        tables = self._opened
        newest = self._maintain(tables.newest)
        if newest is None:
            return 0
        last = min(question.now, newest)
        if question.keep_rollups is not None and last - _FIRST_TIME > question.keep_rollups:
            self._maintain(partial(tables.expire_rollups, last - question.keep_rollups))
        return self._expire(last - question.keep) if last - _FIRST_TIME > question.keep else 0

    def _expire(self, before: datetime) -> int:
        """Remove points that are in rollups by then."""
        tables = self._opened
        while self._maintain(lambda: tables.roll(before)):
            pass
        expired = 0
        while points := self._maintain(lambda: tables.expire(before)):
            expired += points
        self._maintain(lambda: tables.compact(before))
        return expired

    def _flush(self, upto: int, *, strictly: bool = False) -> None:
        """Load what is durable; if that fails, the answer is as old as the tables."""
        try:
            self._loader.flush(upto)
        except StoreError:
            if strictly:
                raise

    def _maintain(self, task: Callable[[], T]) -> T:
        """Run ``task`` on the loader's thread, if the file is in its place."""

        def checked() -> T:
            self._files.check()
            return task()

        return self._loader.run(checked)

    def hold(self, _: ask.Hold, upto: int) -> None:
        self._loader.flush(upto)
        self._released.clear()
        held: Future[None] = Future()
        self._loader.submit(lambda: self._stand_still(held))
        held.result()

    def _stand_still(self, held: Future[None]) -> None:
        try:
            self._files.check()
            self._opened.checkpoint()
        except BaseException as err:  # noqa: BLE001 -- it is the answer
            held.set_exception(err)
        else:
            held.set_result(None)
            self._released.wait(_LONGEST_HOLD_SECONDS)

    def release(self, _: ask.Release, __: int) -> None:
        self._released.set()

    def finish(self, _: ask.Finish, upto: int) -> int:
        self._released.set()
        loaded = self._loader.close(upto)
        self._files.check()
        self._opened.checkpoint()
        return loaded

    @property
    def _opened(self) -> Tables:
        assert self.tables is not None, "the first question opens them"
        return self.tables

    @property
    def _loader(self) -> Loader:
        if self.loader is None:
            raise StoreError("the store is not open yet")
        return self.loader


_METHODS: Final[dict[type, Callable[[Answering, Any, int], object]]] = {
    ask.Open: Answering.open,
    ask.LoadOld: Answering.load_old,
    ask.Follow: Answering.follow,
    ask.Check: Answering.check,
    ask.Expire: Answering.expire,
    ask.Hold: Answering.hold,
    ask.Release: Answering.release,
    ask.Finish: Answering.finish,
}
_READS: Final[dict[type, Callable[[Any, Any], object]]] = {
    ask.FindKnown: lambda c, q: queries.read_known_marks(c, q.salt),
    ask.FindMark: lambda c, q: queries.read_mark(c, q.node_id, q.epoch),
    ask.FindMarks: lambda c, q: queries.read_marks_of(c, q.node_id),
    ask.ReadAccount: lambda c, q: queries.read_account(c, q.node_id),
    ask.ReadLatest: lambda c, q: queries.read_latest(c, q.node_id, q.last),
    ask.ReadSeries: lambda c, q: read_series(c, q.query),
    ask.ReadFleet: lambda c, q: queries.read_fleet(c, q.last),
}
