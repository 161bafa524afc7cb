"""What one node's readings of one peer say about the tunnel between them, and why.

The rules follow from WireGuard itself. A key pair is replaced after 120 s of use and refused after
180 s, so whatever crossed a tunnel did so at most 180 s after a handshake, and a handshake takes
both directions. A tunnel without traffic makes no handshakes, and that is no fault. A peer that
only sends keepalives sends 32 bytes at a time and expects no answer.

    state    what it means
    up       both directions work: a ping came back, or a handshake is fresh
    idle     nothing is sent, so nothing is known to be wrong
    unknown  there is no reading, or no new one; or no tunnel is read, and no ping was ever answered
    stale    the last proof of life is old, and nothing proves the contrary
    never    there has never been a handshake
    one-way  bytes go out and none come back, or bytes come in and ours seem not to arrive
    down     the keys have expired and what is sent is not answered
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from plexd_server.mesh.wording import milliseconds, percent, seconds, size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

State = Literal["up", "idle", "unknown", "stale", "never", "one-way", "down"]
SEVERITY: Final[dict[State, int]] = {
    "up": 0,
    "idle": 1,
    "unknown": 2,
    "stale": 3,
    "never": 4,
    "one-way": 5,
    "down": 6,
}

REKEY_SECONDS: Final = 120.0
REJECT_SECONDS: Final = 180.0
# The tunnel is read at one moment and pinged up to two seconds around it.
_SLACK_SECONDS: Final = 5.0
_KEEPALIVE_BYTES: Final = 32
_LEAST_KEEPALIVE_SECONDS: Final = 10  # also WireGuard's own passive keepalive
_LOSSY_PERCENT: Final = 1.0
# A path that loses every other ping loses as many in a row once in 16 times.
_MANY_LOST: Final = 4


class Observation(Struct, frozen=True, gc=False, kw_only=True):
    """One reading of a peer. None stands for what is not known.

    Attributes:
        handshake_age: seconds since the last handshake when it was read; None without one.
        handshake_succeeded: whether there ever was one; None if the tunnel was not read.
        rx_bytes, tx_bytes: moved since the reading before; None for the first reading, and after a
            counter went back: the interface was made again, and what it moved is not known.
        span: seconds since the reading before.
        rtt_nano: of the ping that goes with the reading; -1 if it was not answered.
        lost_in_row: how many pings in a row, up to that one, were not answered as far as is known.
        loss_percent: of the latest pings.
        was_reached: whether there ever was a tunnel or an answer.
    """

    handshake_age: float | None = None
    handshake_succeeded: bool | None = None
    rx_bytes: int | None = None
    tx_bytes: int | None = None
    span: float = 0.0
    rtt_nano: int | None = None
    lost_in_row: int = 0
    loss_percent: float | None = None
    was_reached: bool = True


class Verdict(Struct, frozen=True, gc=False):
    """What a reading was ``seen`` to say: a state, and ``because`` of what, which names `_WORDS`.

    If it ``is_proof``, one reading is enough.
    """

    state: State
    because: str
    seen: Observation
    is_proof: bool = False

    @property
    def reason(self) -> str:
        """Why, as a clause for people. Few are read, so it is not made with each reading."""
        return self.because.format_map(_Words(self.seen))


def classify(seen: Observation) -> Verdict:
    """Return the state that follows from one reading. Total: every observation has one."""
    if seen.handshake_succeeded is None:
        return _by_ping_alone(seen)
    if not seen.handshake_succeeded or seen.handshake_age is None:
        return _never(seen)
    has_keys = seen.handshake_age <= REJECT_SECONDS + _SLACK_SECONDS
    if seen.rtt_nano is not None and seen.rtt_nano >= 0:
        return _answered(seen, has_keys=has_keys)
    return _with_keys(seen, seen.handshake_age) if has_keys else _without_keys(seen)


def _by_ping_alone(seen: Observation) -> Verdict:
    if seen.rtt_nano is None:
        return Verdict("unknown", "neither its tunnel nor its round trip was read", seen)
    if seen.rtt_nano >= 0:
        return Verdict("up", "answers in {rtt}; no tunnel to it is read", seen)
    if not seen.was_reached:
        return Verdict("unknown", "no tunnel to it is read, and it never answered a ping", seen)
    return Verdict("down", "{lost}; no tunnel to it is read", seen)


def _never(seen: Observation) -> Verdict:
    because = "no handshake ever"
    if seen.tx_bytes:
        because += "; {tx} of attempts in {span} went unanswered"
    elif seen.rtt_nano is not None and seen.rtt_nano >= 0:
        because += "; pings are answered in {rtt}, but not through the tunnel"
    return Verdict("never", because, seen, is_proof=True)


def _answered(seen: Observation, *, has_keys: bool) -> Verdict:
    if has_keys:
        return Verdict("up", "answers in {rtt}{loss}; handshake {age} old", seen)
    return Verdict(
        "stale",
        "pings are answered in {rtt}, but the last handshake was {age} old and its keys end at "
        "{end of keys}: the answers may not come through the tunnel",
        seen,
    )


def _with_keys(seen: Observation, age: float) -> Verdict:
    """Classify a reading without an answer to a ping, while the keys are valid."""
    pinged = seen.rtt_nano is not None
    if seen.rx_bytes:
        return _heard(seen, age)
    if pinged and not _all_lost(seen):
        return Verdict("up", "{lost}; handshake {age} old", seen)
    if _sends_in_vain(seen):
        return Verdict("one-way", "{sent}, nothing came back; handshake {age} old", seen)
    if pinged:
        return Verdict(
            "stale", "answers no ping; the last sign of life is the handshake {age} old", seen
        )
    return Verdict("up", "handshake {age} old", seen)


def _heard(seen: Observation, age: float) -> Verdict:
    """Classify a reading with bytes that came in: whether ours arrive is the question."""
    if not _all_lost(seen):
        missed = ", {lost}" if seen.rtt_nano == -1 else ""
        return Verdict("up", "{received}" + missed + "; handshake {age} old", seen)
    if age <= REKEY_SECONDS + _SLACK_SECONDS:
        return Verdict("up", "{received}; answers no ping, which it may not allow", seen)
    return Verdict(
        "one-way",
        "{received}, but no ping is answered and the handshake {age} old was not renewed: what is "
        "sent seems not to arrive",
        seen,
    )


def _without_keys(seen: Observation) -> Verdict:
    """Classify a reading without an answer to a ping, after the keys have expired."""
    if seen.rx_bytes:
        return Verdict(
            "one-way",
            "{received}, but the last handshake was {age} old: what is sent seems not to arrive",
            seen,
        )
    if seen.tx_bytes or (seen.rtt_nano == -1 and _all_lost(seen)):
        vain = "{sent}, nothing came back" if seen.tx_bytes else "answers no ping"
        because = vain + "; the last handshake was {age} old"
        return Verdict("down", because, seen, is_proof=_all_lost(seen))
    if seen.tx_bytes == 0 and seen.rtt_nano is None:
        return Verdict("idle", "nothing was sent in {span}; the last handshake was {age} old", seen)
    return Verdict("stale", "the last handshake was {age} old, and nothing since", seen)


def _sends_in_vain(seen: Observation) -> bool:
    """Return whether more than keepalives went out and nothing came in."""
    if not seen.tx_bytes or seen.rx_bytes is None:
        return False
    keepalives = _KEEPALIVE_BYTES * (seen.span // _LEAST_KEEPALIVE_SECONDS + 1)
    return seen.rtt_nano == -1 or seen.tx_bytes > keepalives


def _all_lost(seen: Observation) -> bool:
    all_of_latest = seen.loss_percent is not None and seen.loss_percent >= 100
    return all_of_latest or seen.lost_in_row >= _MANY_LOST


def _lost(seen: Observation) -> str:
    many = seen.lost_in_row > 1
    which = f"the last {seen.lost_in_row} pings were" if many else "the last ping was"
    if many or seen.loss_percent is None:
        return f"{which} lost"
    return f"{which} lost ({percent(seen.loss_percent)} of the latest)"


def _loss(seen: Observation) -> str:
    loss = seen.loss_percent
    return f", {percent(loss)} of pings lost" if loss is not None and loss >= _LOSSY_PERCENT else ""


_WORDS: Final[Mapping[str, Callable[[Observation], str]]] = {
    "age": lambda seen: seconds(seen.handshake_age or 0.0),
    "end of keys": lambda _: seconds(REJECT_SECONDS),
    "loss": _loss,
    "lost": _lost,
    "received": lambda seen: f"{size(seen.rx_bytes or 0)} came in within {seconds(seen.span)}",
    "rtt": lambda seen: milliseconds(seen.rtt_nano or 0),
    "sent": lambda seen: f"{size(seen.tx_bytes or 0)} went out in {seconds(seen.span)}",
    "span": lambda seen: seconds(seen.span),
    "tx": lambda seen: size(seen.tx_bytes or 0),
}


class _Words(dict[str, str]):
    """The words of a reason, each made when the reason has it."""

    def __init__(self, seen: Observation) -> None:
        super().__init__()
        self._seen = seen

    def __missing__(self, word: str) -> str:
        return _WORDS[word](self._seen)
