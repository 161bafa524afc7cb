"""How much is under way at once: all requests, and the bodies of reports.

What waits is cheap, so as many requests may wait as there may be connections, if they are answered
in time. A request over a bound is refused at once, with the time to come back, so that a flood
costs its senders a moment and not the server its memory.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from plexd_server.web.problems import RETRY_SOON, Problem, send_problem
from plexd_server.web.shares import sender_in
from plexd_server.web.waiting import Turns, Waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litestar.types import ASGIApp, Message, Receive, Scope, Send

    from plexd.clock import Clock

_REQUESTS = 16_384  # a single sender has half of them
_NODE_REPORTS = 4  # an agent sends one at a time; the rest is for retries that cross
_TOTAL_BYTES = 64 * 1024 * 1024
_REQUEST_SECONDS = 60.0


class InFlight:
    """An ASGI app around another: at most ``requests`` at once, each for a minute at most.

    There are fewer if so many are not answered in 25 s. One sender has at most as many as
    it leaves free. The minute is for answers that nobody reads; a body has less time (body.py).
    """

    def __init__(self, app: ASGIApp, clock: Clock, *, requests: int = _REQUESTS) -> None:
        self._app = app
        self._clock = clock
        self._requests = Waiting(clock, requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with 503."""
        sender = sender_in(scope)
        if not self._requests.enter(sender):
            turn = self._requests.turn()
            await send_problem(Problem(503, "too many requests at once", headers=turn), send)
            return
        answer = _StartedAnswer(send)
        try:
            async with self._clock.timeout(_REQUEST_SECONDS):
                await self._app(scope, receive, answer.send)
        except TimeoutError:
            if not answer.is_started:  # else uvicorn closes the connection, as the end is missing
                await send_problem(_TOO_SLOW, send)
        finally:
            self._requests.leave(sender)


class _StartedAnswer:
    """Notes whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_started = False

    async def send(self, message: Message) -> None:
        self.is_started = True
        await self._send(message)


class Admission:
    """Bounds on the reports under way: a few for each node, and so many bytes in all."""

    def __init__(
        self,
        clock: Clock,
        *,
        node_reports: int = _NODE_REPORTS,
        total_bytes: int = _TOTAL_BYTES,
    ) -> None:
        self._turns = Turns(clock)
        self._node_reports = node_reports
        self._reports = Counter[str]()
        self._free_bytes = total_bytes

    @contextmanager
    def admit(self, node_id: str) -> Iterator[Reservation]:
        """Count a report of the node, and hold its bytes, until the end of the ``with``."""
        refused = self._reports[node_id] >= self._node_reports
        reservation = Reservation(self, _TOO_MANY if refused else None)
        self._reports[node_id] += 1
        try:
            yield reservation
        finally:
            self._free_bytes += reservation.size
            self._reports[node_id] -= 1
            if not self._reports[node_id]:
                del self._reports[node_id]
            self._turns.answered(len(self._reports))

    def allocate(self, size: int) -> None:
        """Give out bytes. Raises `Problem` 503 if fewer are free."""
        if size > self._free_bytes:
            turn = self._turns.give(len(self._reports))
            raise Problem(503, "too much is being taken in at once", headers=turn)
        self._free_bytes -= size


class Reservation:
    """The bytes that one report's body may fill; ``refusal`` is why the report is refused."""

    def __init__(self, admission: Admission, refusal: Problem | None) -> None:
        self._admission = admission
        self._filled = 0
        self.refusal = refusal
        self.size = 0

    def reserve(self, size: int) -> None:
        """Reserve so much in all, or bodies that grow together would all be refused half-way."""
        if size > self.size:
            self._admission.allocate(size - self.size)
            self.size = size

    def fill(self, size: int) -> None:
        """Fill so much more, and reserve what that needs. Raises `Problem` 503."""
        self._filled += size
        self.reserve(self._filled)


_TOO_SLOW: Final = Problem(503, "the answer was not ready within a minute", headers=RETRY_SOON)
_TOO_MANY: Final = Problem(429, "too many reports of this node at once", headers=RETRY_SOON)
