"""How much is worked on at once: requests of everybody, and the bodies of reports being taken in.

Whatever is over a bound is refused at once and told when to come back, so that a flood costs those
who wait a moment and not the server its memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plexd_server.problems import Problem, send_problem

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

    from plexd.clock import Clock

__all__ = ["RETRY_SOON", "InFlight"]

RETRY_SOON: Final = {"Retry-After": "2"}
_REQUESTS = 1024
_REQUEST_SECONDS = 60.0


class InFlight:
    """An ASGI app around another: at most ``requests`` at once, each for a minute at most.

    The minute is for answers nobody reads; what a body may take is shorter (body.py).
    """

    def __init__(self, app: ASGIApp, clock: Clock, *, requests: int = _REQUESTS) -> None:
        self._app = app
        self._clock = clock
        self._free = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with 503."""
        if not self._free:
            await send_problem(Problem(503, "too many requests at once", headers=RETRY_SOON), send)
            return
        self._free -= 1
        try:
            async with self._clock.timeout(_REQUEST_SECONDS):
                await self._app(scope, receive, send)
        except TimeoutError:
            return  # granian closes a connection whose answer is not whole
        finally:
            self._free += 1
