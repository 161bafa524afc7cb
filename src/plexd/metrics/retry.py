"""What to do after a report, as a pure function of its outcome and of the failures before it.

The table is that of the delivery contract:

    outcome                                         action     seconds until the next attempt
    2xx                                             ACCEPT
    no answer, 408, 425, 429, 5xx, anything raised  RETRY      0 ... min(300, 2^attempt)
      ... that asks for a wait of r seconds         RETRY      r ... r + max(1, r / 10)
    401, 403, no credential                         HOLD       120 ... 300
    404, 405, 3xx, a TLS failure                    HOLD       120 ... 300
    any other status                                HOLD       120 ... 300
    413                                             SPLIT
    400, 415, 422, a batch that has no JSON         SET_ASIDE

``r`` is at least 1 and at most 3600, whatever was asked for.
The caller draws from the range evenly. Spreading retries from zero on ("full jitter") empties a
queue of clients sooner than any other way, see "Exponential Backoff And Jitter", AWS, 2015.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.api import APIError, EncodeError, TLSError
from plexd.metrics.errors import CredentialError

if TYPE_CHECKING:
    from datetime import timedelta

_LONGEST_BACKOFF = 300.0
# 2^9 s is beyond the longest backoff; a much larger exponent would overflow.
_LARGEST_EXPONENT = 9
_SHORTEST_ASKED, _LONGEST_ASKED = 1.0, 3600.0
_PROBE = (120.0, 300.0)

_NOT_NOW = {408, 425, 429}
_NEVER = {400, 415, 422}
_CREDENTIAL = {401, 403}
_CONFIGURATION = {404, 405}
_TOO_LARGE = 413

_RENEW = (
    "the control plane does not accept this node's credential; put a valid one in its place, "
    "it is read again before each attempt; a node that was revoked needs `plexd register --force`"
)
_CORRECT = (
    "a configuration error: check the control plane's address (api.base_url), the authority its "
    "certificate is from (api.ca_file), and this machine's clock"
)
_LOOK = "an answer that is not understood; is it the control plane that answers there?"


class Action(Enum):
    """What becomes of a batch."""

    ACCEPT = auto()
    RETRY = auto()
    HOLD = auto()
    SPLIT = auto()
    SET_ASIDE = auto()


class Decision(Struct, frozen=True):
    """An action and, for RETRY and HOLD, the range in seconds to draw the next attempt from.

    ``hint`` says what the operator should look at; only HOLD has one.
    """

    action: Action
    least: float = 0.0
    most: float = 0.0
    hint: str = ""

    def draw(self, fraction: float) -> float:
        """Seconds until the next attempt; ``fraction`` is evenly distributed over [0, 1)."""
        return self.least + fraction * (self.most - self.least)


def decide(error: BaseException | None, attempt: int) -> Decision:
    """What to do after a report that ended in ``error``, or well with None.

    ``attempt`` counts the failures in a row before this one, from 0; any integer is accepted.
    """
    if error is None:
        return Decision(Action.ACCEPT)
    if isinstance(error, APIError):
        return _after_answer(error, attempt)
    if isinstance(error, TLSError):
        return _hold(_CORRECT)
    if isinstance(error, CredentialError):
        return _hold(_RENEW)
    if isinstance(error, EncodeError):
        return Decision(Action.SET_ASIDE)
    return _retry(attempt)


def _after_answer(error: APIError, attempt: int) -> Decision:
    status = error.status_code
    if 200 <= status < 300:
        return Decision(Action.ACCEPT)
    if status in _NOT_NOW or 500 <= status < 600:
        return _retry(attempt) if error.retry_after is None else _wait(error.retry_after)
    if status == _TOO_LARGE:
        return Decision(Action.SPLIT)
    if status in _NEVER:
        return Decision(Action.SET_ASIDE)
    return _hold(_hint(status))


def _hint(status: int) -> str:
    if status in _CREDENTIAL:
        return _RENEW
    if status in _CONFIGURATION or 300 <= status < 400:
        return _CORRECT
    return _LOOK


def _retry(attempt: int) -> Decision:
    most = min(_LONGEST_BACKOFF, 2.0 ** min(max(attempt, 0), _LARGEST_EXPONENT))
    return Decision(Action.RETRY, 0.0, most)


def _wait(asked: timedelta) -> Decision:
    """Wait as long as asked, and a little longer so that not all nodes come back at once."""
    least = min(max(asked.total_seconds(), _SHORTEST_ASKED), _LONGEST_ASKED)
    return Decision(Action.RETRY, least, least + max(1.0, least / 10))


def _hold(hint: str) -> Decision:
    return Decision(Action.HOLD, *_PROBE, hint)
