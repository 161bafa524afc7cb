"""What talking to the control plane can end in.

Exception
├── APIError            it answered, but not with a 2xx: the status decides what to do
├── TransportError      no answer at all: try again
│   └── TLSError        the server is not trusted: a configuration error, hold and probe
└── ValueError
    └── DecodeError     bytes that are not what the contract says
        ├── MalformedError  … and are no JSON at all
        └── EncodeError     … and points that the contract has no form for
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


class APIError(Exception):
    """The server answered with a status that is no 2xx.

    ``message`` is the server's own reason, at most a few hundred printable characters;
    ``retry_after`` is the wait it asked for (never negative) or None.
    """

    def __init__(
        self, status_code: int, message: str, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(status_code, message, retry_after)
        self.status_code = status_code
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"api: HTTP {self.status_code}: {self.message}"


class TransportError(Exception):
    """No complete answer came: refused, reset, timed out, cut short. The cause is chained.

    ``place`` is the method and the origin of the request, where known. The request may have
    arrived if ``was_connected``.
    """

    def __init__(self, reason: str, place: str = "", *, was_connected: bool = True) -> None:
        super().__init__(reason, place)
        self.reason = reason
        self.place = place
        self.was_connected = was_connected

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}" if self.place else self.reason


class TLSError(TransportError):
    """The handshake failed or the certificate was not accepted. The cause is chained."""


class DecodeError(ValueError):
    """A body that does not follow the contract.

    ``index`` is the offending point's place in the batch (None when the body as a whole is at
    fault), ``field`` the dotted path inside it (empty when the point as a whole is).
    """

    def __init__(self, reason: str, *, index: int | None = None, field: str = "") -> None:
        super().__init__(reason, index, field)
        self.reason = reason
        self.index = index
        self.field = field

    def __str__(self) -> str:
        place = "" if self.index is None else f"point {self.index}: "
        return f"{place}{self.field + ': ' if self.field else ''}{self.reason}"


class MalformedError(DecodeError):
    """A body that is no JSON, or is nested too deeply."""


class EncodeError(DecodeError):
    """A point whose values JSON of this contract cannot carry: NaN, a naive time, a wrong type."""
