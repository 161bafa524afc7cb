"""A userspace daemon's answer to ``get=1`` into a `Device`. Pure text, no socket.

As in https://www.wireguard.com/xplatform/: lines ``key=value``, those of the interface first,
then for each peer its ``public_key`` and what belongs to it; ``errno=<n>`` and an empty line end
the answer. Keys are hexadecimal. Unknown lines are for newer clients and skipped; so are
``private_key`` and ``preshared_key``, which are never copied out of the text.

Only ``public_key`` is required of a peer. What daemons send of the rest, and what it means:

==================  ==============================  ============================================
daemon              last_handshake_time_*           rx_bytes, tx_bytes
==================  ==============================  ============================================
wireguard-go,       always; since 1970, 0 is never  always
amneziawg-go
boringtun           absent is never; **age** of     always
                    the handshake, not its time
the protocol's own  absent is never                 absent is 0, as ``wg`` and wgctrl read it
example
==================  ==============================  ============================================

boringtun is known by its line ``own_public_key``, which no other daemon has (``device/api.rs``).
A peer that cannot be read is an `OddPeer` with a reason, and the others are read.
"""

from __future__ import annotations

import os
import re
from binascii import Error as NotHexadecimal
from binascii import b2a_base64, unhexlify
from typing import Final, NamedTuple, TypeAlias

from plexd.wireguard.device import Device, DevicePeer, OddPeer
from plexd.wireguard.errors import WireGuardError

_Row: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes, bytes]

GET: Final = b"get=1\n\n"

_UINT64_MAX: Final = 2**64 - 1
_NANO: Final = 10**9
_KEY_DIGITS: Final = 64

_END: Final = re.compile(rb"(?:\A|\n)errno=(-?\d{1,9})\n\n\Z")
_BORINGTUN: Final = re.compile(rb"^own_public_key=", re.MULTILINE)
_NUMBER: Final = re.compile(rb"-?\d{1,20}")
# Seconds of an age that nothing has: a daemon of boringtun's family that sends a time after all.
_NO_AGE: Final = 10**9

# What wireguard-go reports of the interface.
_HEAD: Final = re.compile(
    rb"(?:private_key=.{64}\n)?+(?:listen_port=\d++\n)?+(?:fwmark=\d++\n)?+(?=public_key=|errno=.++\n\n\Z)"
)
# Group 1 is None for a line that is no key=value. Nothing but the named fields is copied.
_LINE: Final = re.compile(
    rb"^(?:(public_key|endpoint|last_handshake_time_n?sec|[rt]x_bytes)=(.*)|(?![^\s=]++=).+)$",
    re.MULTILINE,
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


def parse_answer(interface: str, text: bytes | bytearray, *, now_nano: int) -> Device:
    """Return the device of a whole answer, its unreadable peers in ``odd``.

    ``now_nano`` is the wall clock, from which ages are counted back. Raises `WireGuardError` if
    the text is no answer or the daemon refused.
    """
    _check_end(text)
    rows = _USUAL_PEER.findall(text)
    keys = text.count(b"\npublic_key=") + text.startswith(b"public_key=")
    if len(rows) == keys and _HEAD.match(text):
        peers = _usual_peers(rows)
        if peers is not None:
            return Device(interface, peers)
    return _any_device(interface, text, now_nano)


def _check_end(text: bytes | bytearray) -> None:
    # Only the last bytes: the expression would try every line of a long answer.
    end = _END.search(text, max(len(text) - 24, 0))
    if end is None:
        raise WireGuardError("the answer does not end with an errno and an empty line")
    if errno := abs(int(end[1])):
        raise WireGuardError(f"the daemon refused: {os.strerror(errno)}")
    early = text.startswith(b"errno=") and end.start() > 0
    if early or text.find(b"\nerrno=") < end.start() - 1 or text.find(b"\n\n") + 2 < len(text):
        raise WireGuardError("the answer goes on behind its end")


def _usual_peers(rows: list[_Row]) -> tuple[DevicePeer, ...] | None:
    """Convert all rows at once, None if any is odd.

    Column by column this is a third less work than peer by peer.
    """
    if not rows:
        return ()
    keys, endpoints, *counts = zip(*rows, strict=True)
    texts = _texts(keys)
    seconds, nano, sent, received = [list(map(int, column)) for column in counts]
    if len(set(texts)) != len(keys) or max(*sent, *received) > _UINT64_MAX:
        return None
    where = [_where(one) for one in endpoints]
    handshakes = [whole * _NANO + rest for whole, rest in zip(seconds, nano, strict=True)]
    return tuple(map(DevicePeer, texts, where, handshakes, received, sent))


class _OddError(Exception):
    """Why one peer cannot be read."""


class _Section(NamedTuple):
    """The fields of one peer, and what is wrong with its lines."""

    fields: dict[bytes, bytes]
    faults: list[str]


def _any_device(interface: str, text: bytes | bytearray, now_nano: int) -> Device:
    """Return the device of an answer whose lines have any order, peer by peer."""
    head, *sections = _sections(text)
    ages_at = now_nano if _BORINGTUN.search(text) else None
    peers: dict[str, DevicePeer] = {}
    odd = [OddPeer("", f"{name.decode()} belongs to no peer") for name in list(head.fields)[:1]]
    for number, section in enumerate(sections, start=1):
        try:
            name = _key(section.fields[b"public_key"])
        except _OddError as err:
            odd.append(OddPeer("", f"peer {number} of the answer: {err}"))
            continue
        try:
            peer = _any_peer(name, section, ages_at)
        except _OddError as err:
            odd.append(OddPeer(name, str(err)))
            continue
        if peers.setdefault(name, peer) is not peer:
            odd.append(OddPeer(name, "the answer has this peer twice"))
    return Device(interface, tuple(peers.values()), tuple(odd))


def _sections(text: bytes | bytearray) -> list[_Section]:
    """Return the lines of the interface, then those of each peer."""
    sections = [_Section({}, [])]
    for line in _LINE.finditer(text):
        name, value = line.groups()
        if name == b"public_key":
            sections.append(_Section({}, []))
        fields, faults = sections[-1]
        if name is None:
            faults.append("a line that is no key=value")
        elif name in fields:
            faults.append(f"{name.decode()} comes twice")
        else:
            fields[name] = value
    return sections


def _key(digits: bytes) -> str:
    if len(digits) != _KEY_DIGITS:
        raise _OddError(f"a public key has {len(digits)} digits")
    try:
        return b2a_base64(unhexlify(digits), newline=False).decode()
    except (NotHexadecimal, ValueError):
        raise _OddError("a public key is not hexadecimal") from None


def _any_peer(key: str, section: _Section, ages_at: int | None) -> DevicePeer:
    fields, faults = section
    if faults:
        raise _OddError(faults[0])
    handshake = _number(fields, b"last_handshake_time_sec") * _NANO
    handshake += _number(fields, b"last_handshake_time_nsec")
    if ages_at is not None and b"last_handshake_time_sec" in fields and handshake < _NO_AGE * _NANO:
        handshake = max(ages_at - handshake, 1)
    received, sent = _count(fields, b"rx_bytes"), _count(fields, b"tx_bytes")
    return DevicePeer(key, _where(fields.get(b"endpoint", b"")), handshake, received, sent)


def _count(fields: dict[bytes, bytes], name: bytes) -> int:
    count = _number(fields, name)
    if not 0 <= count <= _UINT64_MAX:
        raise _OddError(f"{name.decode()} is no counter of 64 bits: {count}")
    return count


def _number(fields: dict[bytes, bytes], name: bytes) -> int:
    value = fields.get(name, b"0")
    if not _NUMBER.fullmatch(value):
        raise _OddError(f"{name.decode()} is no number: {value[:40]!r}")
    return int(value)


def _where(endpoint: bytes) -> str | None:
    return endpoint.decode(errors="backslashreplace") if endpoint else None


def _texts(keys: tuple[bytes, ...]) -> list[str]:
    """Convert hexadecimal keys to base64, all at once.

    A byte is added to each, since 33 bytes are a whole number of base64's groups of three. It
    makes the last character an ``A``, where a single key ends in ``=``. Returns nothing if any is
    not hexadecimal.
    """
    try:
        raw = unhexlify(b"00".join([*keys, b""]))
    except (NotHexadecimal, ValueError):
        return []
    text = b2a_base64(raw, newline=False).decode()
    return [text[at : at + 43] + "=" for at in range(0, len(text), 44)]
