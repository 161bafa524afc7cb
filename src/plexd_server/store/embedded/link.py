"""The front's end: it starts the tables, asks them, and starts them again if they die.

A question that finds the tables away waits until they were away for ten seconds, and one that was
under way as they died is asked once more.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, TypeVar

from plexd.clock import SystemClock
from plexd_server.errors import FilesReplaced, StartError, StoreClosed, StoreError
from plexd_server.fault_log import FaultLog
from plexd_server.store.embedded.line import Line
from plexd_server.store.embedded.questions import Follow, Open, Question

if TYPE_CHECKING:
    from collections.abc import Callable

    from plexd_server.store.embedded.launching import Started

T = TypeVar("T")

_AWAY_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 60.0
_AGAIN_SECONDS: Final = 1.0
_ATTEMPTS: Final = 2  # a question that kills the tables does so twice at most
_AWAY: Final = "the store's tables are being opened; try again in a moment"


class TablesLink:
    """The tables, which ``start`` starts, over one connection after the other. Calls block.

    ``check`` raises `StoreError` if the files are not those that were opened, so that the tables
    are not opened again. ``durable`` is the journal's last record, ``loaded`` is called with the
    last one in the tables.
    """

    def __init__(
        self,
        start: Callable[[], Started],
        *,
        check: Callable[[], None],
        durable: Callable[[], int],
        loaded: Callable[[int], None],
    ) -> None:
        self._start = start
        self._check = check
        self._durable = durable
        self._loaded = loaded
        self._faults = FaultLog("tables", SystemClock())
        self._changed = threading.Condition()
        self._line: Line | None = None
        self._away_since = time.monotonic()
        self._closed = False
        self._follows_after: int | None = None

    def open(self, question: Open) -> int:
        """Start the tables and return the last record in them. Raises `StartError`."""
        self._opening = question
        opened: Future[int] = Future()
        # The process is killed with the thread that started it, so one thread starts all of them.
        self._thread = threading.Thread(
            target=self._run, args=(opened,), name="store-link", daemon=True
        )
        self._thread.start()
        return opened.result()

    def follow(self, after: int) -> None:
        """Have the tables follow the journal after this record; later ones go on after theirs."""
        self._follows_after = after
        self.ask(Follow(after))

    def ask(
        self,
        question: Question[T],
        *,
        away: float = _AWAY_SECONDS,
        seconds: float | None = _ANSWER_SECONDS,
    ) -> T:
        """Return the answer, which knows all that is durable. Raises `StoreError`, or its error.

        It waits until the tables were ``away`` so long, and for an answer for ``seconds``.
        """
        for _ in range(_ATTEMPTS):
            line = self._connected(away)
            try:
                return line.ask(question, self._durable(), seconds)
            except ConnectionError:
                self._lose(line)
        raise StoreError(_AWAY)

    def extend(self) -> None:
        """Say how far the journal is; never waits."""
        line = self._line
        if line is not None:
            line.extend(self._durable())

    def close(self) -> None:
        """End the tables; what they have not loaded stays in the journal. May be called again."""
        with self._changed:
            self._closed = True
            line = self._line
            self._changed.notify_all()
        if line is not None:
            line.hang_up()
        self._thread.join()

    def _connected(self, away: float) -> Line:
        with self._changed:
            seconds = self._away_since + away - time.monotonic()
            self._changed.wait_for(lambda: self._line or self._closed, max(0.0, seconds))
            if self._closed:
                raise StoreClosed("the store is shutting down")
            if self._line is None:
                raise StoreError(_AWAY)
            return self._line

    def _lose(self, line: Line) -> None:
        with self._changed:
            if self._line is line:
                self._line, self._away_since = None, time.monotonic()

    def _run(self, opened: Future[int]) -> None:
        """Keep the tables running; the first start decides whether there is a store."""
        try:
            first, position = self._begin()
        except BaseException as err:  # noqa: BLE001 -- the caller of `open` gets it
            opened.set_exception(err)
            return
        opened.set_result(position)
        line: Line | None = first
        while line is not None:
            began = time.monotonic()
            line.wait()
            self._lose(line)
            line = self._begin_again(line.end(), lived=time.monotonic() - began)

    def _begin(self) -> tuple[Line, int]:
        try:
            line = Line(self._start(), self._loaded)
        except OSError as err:
            raise StartError(f"cannot start the process of the tables: {err.strerror}") from err
        try:
            position = self._introduce(line)
        except ConnectionError as err:
            reason = f"the process of the tables {line.end()}; its last lines in the log say why"
            raise StartError(reason) from err
        except BaseException:
            line.end()
            raise
        with self._changed:
            self._line = line
            self._changed.notify_all()
            if self._closed:
                line.hang_up()
        return line, position

    def _introduce(self, line: Line) -> int:
        """Have the tables opened and, once the front follows, loaded; return the last record."""
        position = line.ask(self._opening, 0, None)
        if self._follows_after is not None:
            position = position or self._follows_after  # a new database has none of its own
            line.ask(Follow(position), self._durable(), None)
            self._loaded(position)
        return position

    def _begin_again(self, how: str, *, lived: float) -> Line | None:
        """Start the tables again, until that works; None once the store is closed."""
        pause = 0.0 if lived > _AGAIN_SECONDS else _AGAIN_SECONDS
        cause: Exception = StoreError(f"its process {how}")
        while not self._is_closed_after(pause):
            if not isinstance(cause, FilesReplaced):  # that is logged where it was found
                self._faults.failed(cause)
            pause = _AGAIN_SECONDS
            try:
                self._check()
                line, _ = self._begin()
            except Exception as err:  # noqa: BLE001 -- without this thread there are no tables
                cause = err
            else:
                self._faults.worked()
                return line
        return None

    def _is_closed_after(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, seconds)
