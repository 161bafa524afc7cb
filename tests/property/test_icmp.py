"""Any bytes from the network give a value or the documented error."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from plexd.icmp import PacketError
from plexd.icmp.packet import (
    REPLY_V4,
    REPLY_V6,
    REQUEST_V4,
    REQUEST_V6,
    checksum,
    encode_echo,
    parse_echo,
    parse_ipv4_header,
    parse_quote,
    parse_report,
)
from plexd.icmp.roundtrip import round_trip
from plexd.icmp.targets import WINDOW_PROBES, LossWindow

KINDS = st.sampled_from([REPLY_V4, REPLY_V6, REQUEST_V4, REQUEST_V6])
NUMBERS = st.integers(0, 0xFFFF)
PAYLOADS = st.binary(min_size=16, max_size=16)
NANOS = st.integers(-(2**62), 2**62)


@given(st.binary(max_size=256), KINDS)
@example(b"\x45" + bytes(8) + b"\x01" + bytes(10), REPLY_V4)
@example(b"\x4f" + bytes(8) + b"\x01" + bytes(50), REPLY_V4)
def test_arbitrary_bytes_end_in_a_value_or_a_packet_error(data: bytes, kind: int) -> None:
    with suppress(PacketError):
        parse_echo(data, kind)
    with suppress(PacketError):
        parse_echo(data, kind, parse_ipv4_header(data))
    with suppress(PacketError):
        parse_quote(data, kind)
    with suppress(PacketError):
        parse_report(data)


@given(KINDS, NUMBERS, NUMBERS, PAYLOADS)
@example(REPLY_V4, 0, 0, bytes(16))
@example(REPLY_V4, 0xFFFF, 0, bytes(16))
def test_what_was_encoded_is_parsed_and_sums_up(
    kind: int, identifier: int, sequence: int, payload: bytes
) -> None:
    packet = encode_echo(kind, identifier, sequence, payload)
    assert parse_echo(packet, kind) == (identifier, sequence, payload)
    assert checksum(packet) == 0


@given(NUMBERS, NUMBERS, PAYLOADS, st.integers(0, 23), st.integers(1, 255))
def test_a_damaged_answer_is_never_taken_for_another(
    identifier: int, sequence: int, payload: bytes, position: int, damage: int
) -> None:
    packet = bytearray(encode_echo(REPLY_V4, identifier, sequence, payload))
    packet[position] ^= damage
    with suppress(PacketError):
        found = parse_echo(bytes(packet), REPLY_V4)
        assert found != (identifier, sequence, payload) or position in {2, 3}  # the checksum


@given(st.integers(0, 2**62), st.integers(0, 2**40), NANOS, NANOS, NANOS)
def test_a_round_trip_is_above_nothing_and_within_the_time_that_passed(
    sent: int, passed: int, stamp: int, offset_then: int, offset: int
) -> None:
    rtt, _ = round_trip(sent, sent + passed, stamp, offset_then, offset)
    assert 0 < rtt <= max(1, passed)


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_the_window_is_the_share_of_the_latest_probes(fates: list[bool]) -> None:
    window = LossWindow()
    for lost in fates:
        window.add(lost=lost)
    since = max((end for end in range(8, len(fates)) if _comes_back(fates, end)), default=0)
    latest = fates[since:][-WINDOW_PROBES:]
    assert window.percent() == (sum(latest) * 100 / len(latest) if len(latest) >= 8 else -1)


def _comes_back(fates: list[bool], position: int) -> bool:
    """Return whether this answer is the first after eight lost probes or more."""
    return not fates[position] and all(fates[position - 8 : position])
