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

from typing import Final, Literal

from msgspec import Struct

from plexd_server.mesh.wording import milliseconds, percent, seconds, size

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
    """A state and its reason, a clause for people. If it ``is_proof``, one reading is enough."""

    state: State
    reason: str
    is_proof: bool = False


def classify(seen: Observation) -> Verdict:
    """Return the state that follows from one reading. Total: every observation has one."""
    if seen.handshake_succeeded is None:
        return _by_ping_alone(seen)
    if not seen.handshake_succeeded or seen.handshake_age is None:
        return _never(seen)
    age = max(0.0, seen.handshake_age)
    if seen.rtt_nano is not None and seen.rtt_nano >= 0:
        return _answered(seen, age)
    rule = _with_keys if age <= REJECT_SECONDS + _SLACK_SECONDS else _without_keys
    return rule(seen, age)


def _by_ping_alone(seen: Observation) -> Verdict:
    if seen.rtt_nano is None:
        return Verdict("unknown", "neither its tunnel nor its round trip was read")
    if seen.rtt_nano >= 0:
        return Verdict("up", f"answers in {_round_trip(seen)}; no tunnel to it is read")
    if not seen.was_reached:
        return Verdict("unknown", "no tunnel to it is read, and it never answered a ping")
    return Verdict("down", f"{_lost(seen)}; no tunnel to it is read")


def _never(seen: Observation) -> Verdict:
    if seen.tx_bytes:
        tried = f"{size(seen.tx_bytes)} of attempts in {seconds(seen.span)} went unanswered"
        return Verdict("never", f"no handshake ever; {tried}", is_proof=True)
    if seen.rtt_nano is not None and seen.rtt_nano >= 0:
        around = f"pings are answered in {_round_trip(seen)}, but not through the tunnel"
        return Verdict("never", f"no handshake ever; {around}", is_proof=True)
    return Verdict("never", "no handshake ever", is_proof=True)


def _answered(seen: Observation, age: float) -> Verdict:
    if age > REJECT_SECONDS + _SLACK_SECONDS:
        return Verdict(
            "stale",
            f"pings are answered in {_round_trip(seen)}, but the last handshake was "
            f"{seconds(age)} old and its keys end at {seconds(REJECT_SECONDS)}: "
            "the answers may not come through the tunnel",
        )
    loss = seen.loss_percent
    lost = f", {percent(loss)} of pings lost" if loss is not None and loss >= _LOSSY_PERCENT else ""
    return Verdict("up", f"answers in {_round_trip(seen)}{lost}; handshake {seconds(age)} old")


def _with_keys(seen: Observation, age: float) -> Verdict:
    """Classify a reading without an answer to a ping, while the keys are valid."""
    pinged = seen.rtt_nano is not None
    handshake = f"handshake {seconds(age)} old"
    if seen.rx_bytes:
        return _heard(seen, age, handshake)
    if pinged and not _all_lost(seen):
        return Verdict("up", f"{_lost(seen)}; {handshake}")
    if _sends_in_vain(seen):
        return Verdict("one-way", f"{_sent(seen)}, nothing came back; {handshake}")
    if pinged:
        return Verdict("stale", f"answers no ping; the last sign of life is the {handshake}")
    return Verdict("up", handshake)


def _heard(seen: Observation, age: float, handshake: str) -> Verdict:
    """Classify a reading with bytes that came in: whether ours arrive is the question."""
    if not _all_lost(seen):
        missed = f", {_lost(seen)}" if seen.rtt_nano == -1 else ""
        return Verdict("up", f"{_received(seen)}{missed}; {handshake}")
    if age <= REKEY_SECONDS + _SLACK_SECONDS:
        return Verdict("up", f"{_received(seen)}; answers no ping, which it may not allow")
    return Verdict(
        "one-way",
        f"{_received(seen)}, but no ping is answered and the handshake {seconds(age)} old "
        "was not renewed: what is sent seems not to arrive",
    )


def _without_keys(seen: Observation, age: float) -> Verdict:
    """Classify a reading without an answer to a ping, after the keys have expired."""
    handshake = f"the last handshake was {seconds(age)} old"
    if seen.rx_bytes:
        return Verdict(
            "one-way", f"{_received(seen)}, but {handshake}: what is sent seems not to arrive"
        )
    if seen.tx_bytes or (seen.rtt_nano == -1 and _all_lost(seen)):
        vain = f"{_sent(seen)}, nothing came back" if seen.tx_bytes else "answers no ping"
        return Verdict("down", f"{vain}; {handshake}", is_proof=_all_lost(seen))
    if seen.tx_bytes == 0 and seen.rtt_nano is None:
        return Verdict("idle", f"nothing was sent in {seconds(seen.span)}; {handshake}")
    return Verdict("stale", f"{handshake}, and nothing since")


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


def _round_trip(seen: Observation) -> str:
    return milliseconds(seen.rtt_nano or 0)


def _sent(seen: Observation) -> str:
    return f"{size(seen.tx_bytes or 0)} went out in {seconds(seen.span)}"


def _received(seen: Observation) -> str:
    return f"{size(seen.rx_bytes or 0)} came in within {seconds(seen.span)}"
