from __future__ import annotations

import pytest

from plexd.icmp import PacketError
from plexd.icmp.packet import (
    REPLY_V4,
    REQUEST_V4,
    checksum,
    encode_echo,
    parse_echo,
    parse_ipv4_header,
    parse_quote,
    parse_report,
)

PAYLOAD = bytes(range(16))
IPV4 = bytes.fromhex("4500002c0000000040010000 7f000001 7f000001")


def test_a_request_is_laid_out_as_the_standard_says() -> None:
    packet = encode_echo(REQUEST_V4, 0x1234, 0x5678, PAYLOAD)
    assert packet.hex() == "0800571312345678" + PAYLOAD.hex()
    assert checksum(packet) == 0


def test_the_checksum_is_that_of_the_standards_example() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # RFC 1071 section 3


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "0 bytes"),
        (encode_echo(REPLY_V4, 1, 2, PAYLOAD) + b"\0", "25 bytes"),
        (encode_echo(REQUEST_V4, 1, 2, PAYLOAD), "type 8 code 0"),
        (b"\0\1" + encode_echo(REPLY_V4, 1, 2, PAYLOAD)[2:], "type 0 code 1"),
    ],
)
def test_what_is_no_answer_is_refused_with_the_reason(packet: bytes, reason: str) -> None:
    with pytest.raises(PacketError, match=reason):
        parse_echo(packet, REPLY_V4)


def test_an_answer_is_found_behind_its_ipv4_header() -> None:
    packet = IPV4 + encode_echo(REPLY_V4, 1, 2, PAYLOAD)
    assert parse_echo(packet, REPLY_V4, parse_ipv4_header(packet)) == (1, 2, PAYLOAD)


@pytest.mark.parametrize(
    "header",
    [b"", IPV4[:19], b"\x65" + IPV4[1:], b"\x44" + IPV4[1:], IPV4[:9] + b"\x11" + IPV4[10:]],
)
def test_what_is_no_ipv4_header_is_refused(header: bytes) -> None:
    with pytest.raises(PacketError):
        parse_ipv4_header(header)


@pytest.mark.parametrize("length", [8, 12, 24, 28])
def test_a_quoted_request_may_be_cut_after_its_header(length: int) -> None:
    quote = (encode_echo(REQUEST_V4, 1, 2, PAYLOAD) + bytes(4))[:length]
    assert parse_quote(quote, REQUEST_V4) == (1, 2, PAYLOAD[: max(0, length - 8)])


@pytest.mark.parametrize("quote", [b"\x08", encode_echo(REPLY_V4, 1, 2, PAYLOAD)])
def test_what_quotes_no_request_is_refused(quote: bytes) -> None:
    with pytest.raises(PacketError):
        parse_quote(quote, REQUEST_V4)


def report(number: int, origin: int, kind: int, offender: bytes) -> bytes:
    return number.to_bytes(4, "little") + bytes([origin, kind, 0, 0]) + bytes(8) + offender


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (report(113, 2, 3, b""), "No route to host"),
        (report(113, 2, 11, b"\2\0\0\0\x0a\0\0\1"), "Time to live exceeded (reported by 10.0.0.1)"),
        (
            report(113, 3, 3, b"\x0a\0" + bytes(6) + bytes(15) + b"\1"),
            "Time to live exceeded (reported by ::1)",
        ),
        (report(101, 1, 0, b"\0\0\0\0"), "Network is unreachable"),
        (report(101, 1, 0, b"\2\0\0\0\x0a"), "Network is unreachable"),
    ],
)
def test_a_report_names_the_reason_and_the_reporter(data: bytes, reason: str) -> None:
    assert parse_report(data)[1] == reason


def test_half_a_report_is_refused() -> None:
    with pytest.raises(PacketError, match="15 bytes"):
        parse_report(bytes(15))
