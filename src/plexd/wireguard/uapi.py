"""A userspace daemon's answer to ``get=1`` into a `Device`. Pure text, no socket.

As in https://www.wireguard.com/xplatform/: lines ``key=value``, those of the interface first,
then for each peer its ``public_key`` and what belongs to it; ``errno=<n>`` and an empty line end
the answer. Keys are hexadecimal. Unknown lines are for newer clients and skipped; so are
``private_key`` and ``preshared_key``, which are never copied out of the text.
"""

from __future__ import annotations

import os
import re
from binascii import Error as NotHexadecimal
from binascii import b2a_base64, unhexlify
from typing import Final, TypeAlias

from plexd.wireguard.device import Device, DevicePeer
from plexd.wireguard.errors import WireGuardError

_Row: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes, bytes]

GET: Final = b"get=1\n\n"

_UINT64_MAX: Final = 2**64 - 1
_NANO: Final = 10**9
_KEY_DIGITS: Final = 64

_END: Final = re.compile(rb"(?:\A|\n)errno=(-?\d{1,9})\n\n\Z")
_LINES: Final = re.compile(rb"(?:(?!errno=)[a-z0-9_]++=.*+\n)*+errno=.++\n\n")
_COUNT: Final = re.compile(rb"\d{1,20}")

# What wireguard-go reports of the interface.
_HEAD: Final = re.compile(
    rb"(?:private_key=.{64}\n)?+(?:listen_port=\d++\n)?+(?:fwmark=\d++\n)?+(?=public_key=|errno=.++\n\n\Z)"
)
_FIELD: Final = re.compile(
    rb"^(public_key|endpoint|last_handshake_time_n?sec|[rt]x_bytes)=(.*)$", re.MULTILINE
)
_REQUIRED: Final = (
    b"last_handshake_time_sec",
    b"last_handshake_time_nsec",
    b"tx_bytes",
    b"rx_bytes",
)

# A peer in wireguard-go's order is matched in one step, which halves the time. The last line
# asserts that nothing lies between it and the next: any other order, or unknown lines, are read
# line by line. Nothing in it can be matched in two ways, so no answer makes it slow.
_USUAL_PEER: Final = re.compile(
    rb"^public_key=(.{64})\n"
    rb"(?:preshared_key=.{64}\n)?+"
    rb"(?:protocol_version=1\n)?+"
    rb"(?:endpoint=(.++)\n)?+"
    rb"last_handshake_time_sec=(\d{1,20}+)\n"
    rb"last_handshake_time_nsec=(\d{1,20}+)\n"
    rb"tx_bytes=(\d{1,20}+)\n"
    rb"rx_bytes=(\d{1,20}+)\n"
    rb"(?:persistent_keepalive_interval=.++\n)?+"
    rb"(?:allowed_ip=.++\n)*+"
    rb"(?=public_key=|errno=.++\n\n\Z)",
    re.MULTILINE,
)


def is_whole(text: bytes | bytearray) -> bool:
    """Return whether the empty line that ends an answer was received."""
    return text.endswith(b"\n\n")


def parse_answer(interface: str, text: bytes | bytearray) -> Device:
    """Return the device of a whole answer. Raises `WireGuardError` if it is no answer."""
    _check_end(text)
    rows = _USUAL_PEER.findall(text)
    # Keys of the interface come before, so that no peer is on the first line.
    if len(rows) != text.count(b"\npublic_key=") or not _HEAD.match(text):
        rows = _any_rows(text)
    return Device(interface, _peers(rows))


def _check_end(text: bytes | bytearray) -> None:
    # Only the last bytes: the expression would try every line of a long answer.
    end = _END.search(text, max(len(text) - 24, 0))
    if end is None:
        raise WireGuardError("the answer does not end with an errno and an empty line")
    if errno := abs(int(end[1])):
        raise WireGuardError(f"the daemon refused: {os.strerror(errno)}")


def _any_rows(text: bytes | bytearray) -> list[_Row]:
    """Return each peer's fields, in whatever order they are."""
    if not _LINES.fullmatch(text):
        raise WireGuardError("the answer has a line that is no key=value")
    peers: list[dict[bytes, bytes]] = []
    for name, value in _FIELD.findall(text):
        if name == b"public_key":
            peers.append({})
        if not peers or name in peers[-1]:
            raise WireGuardError(f"{name.decode()} belongs to no peer or comes twice")
        peers[-1][name] = value
    return [_row(fields) for fields in peers]


def _row(fields: dict[bytes, bytes]) -> _Row:
    for name in _REQUIRED:
        if name not in fields:
            raise WireGuardError(f"a peer has no {name.decode()}")
        if not _COUNT.fullmatch(fields[name]):
            raise WireGuardError(f"{name.decode()} is no count: {fields[name][:40]!r}")
    if len(fields[b"public_key"]) != _KEY_DIGITS:
        raise WireGuardError(f"a public key has {len(fields[b'public_key'])} digits")
    seconds, nano, sent, received = [fields[name] for name in _REQUIRED]
    return fields[b"public_key"], fields.get(b"endpoint", b""), seconds, nano, sent, received


def _peers(rows: list[_Row]) -> tuple[DevicePeer, ...]:
    """Convert all rows at once, column by column: a third less work than peer by peer."""
    if not rows:
        return ()
    keys, endpoints, *counts = zip(*rows, strict=True)
    texts = _texts(keys)
    if len(set(texts)) != len(texts):
        raise WireGuardError("the answer has a peer twice")
    seconds, nano, sent, received = [list(map(int, column)) for column in counts]
    if (most := max(*sent, *received)) > _UINT64_MAX:
        raise WireGuardError(f"a counter is beyond 64 bits: {most}")
    where = [one.decode(errors="backslashreplace") if one else None for one in endpoints]
    handshakes = [whole * _NANO + rest for whole, rest in zip(seconds, nano, strict=True)]
    return tuple(map(DevicePeer, texts, where, handshakes, received, sent))


def _texts(keys: tuple[bytes, ...]) -> list[str]:
    """Convert hexadecimal keys to base64, all at once.

    A byte is added to each, since 33 bytes are a whole number of base64's groups of three. It
    makes the last character an ``A``, where a single key ends in ``=``.
    """
    try:
        raw = unhexlify(b"00".join([*keys, b""]))
    except NotHexadecimal as err:
        raise WireGuardError("a public key is not hexadecimal") from err
    text = b2a_base64(raw, newline=False).decode()
    return [text[at : at + 43] + "=" for at in range(0, len(text), 44)]
