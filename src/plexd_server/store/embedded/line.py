"""One connection between the front and the tables, for as long as the tables live."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from plexd_server.errors import StoreError
from plexd_server.store.embedded import questions as ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from plexd_server.store.embedded.launching import Started

T = TypeVar("T")

_LOCK_SECONDS: Final = 0.05


class Line:
    """Questions of any thread to what was ``started``; ``loaded`` is called with what it loaded."""

    def __init__(self, started: Started, loaded: Callable[[int], None]) -> None:
        self._started = started
        self._loaded = loaded
        self._connection = started.connection
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[bytes]] = {}
        self._number = ask.NOTICE
        self._is_over = False
        self._reader = threading.Thread(target=self._read, name="store-answers", daemon=True)
        self._reader.start()

    def ask(self, question: ask.Question[T], upto: int, seconds: float | None) -> T:
        """Return the answer, which knows the records up to ``upto``.

        Raises its error, `ConnectionError` if the tables end, `StoreError` after so many seconds.
        """
        answer: Future[bytes] = Future()
        body = ask.encode_question(question, upto)
        with self._lock:
            if self._is_over:
                raise ConnectionError
            self._number += 1
            self._waiting[self._number] = answer
            self._connection.sendall(ask.encode_frame(self._number, body))
        try:
            found = answer.result(seconds)
        except TimeoutError as err:
            raise StoreError("the store takes too long to answer; try again") from err
        return ask.decode_answer(question, found)

    def extend(self, durable: int) -> None:
        """Say how far the journal is. It never waits: what was not said comes with the next one."""
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            return
        try:
            frame = ask.encode_notice(durable)
            sent = self._connection.send(frame, socket.MSG_DONTWAIT)
            self._connection.sendall(frame[sent:])
        except OSError:
            pass
        finally:
            self._lock.release()

    def _read(self) -> None:
        """Hand over what comes, until the tables end."""
        with suppress(OSError):
            while frame := ask.receive_frame(self._connection):
                self._hand_over(*frame)
        with self._lock:
            self._is_over = True
            waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.set_exception(ConnectionError())

    def _hand_over(self, number: int, body: bytes) -> None:
        if number == ask.NOTICE:
            self._loaded(ask.decode_notice(body))
        else:
            self._waiting.pop(number).set_result(body)

    def wait(self) -> None:
        """Return once the tables have ended."""
        self._reader.join()

    def hang_up(self) -> None:
        """Have the tables end; on any thread."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def end(self) -> str:
        """Have the tables end, and return how they did. Blocks."""
        self.hang_up()
        self.wait()
        self._connection.close()
        return self._started.end()
