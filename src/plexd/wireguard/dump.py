"""A kernel's dump of one WireGuard interface into a `Device`. Pure bytes, no socket.

As in ``linux/wireguard.h`` and the kernel's ``get_peer``: each message holds
``WGDEVICE_A_IFNAME`` and a list ``WGDEVICE_A_PEERS``. A peer whose allowed addresses do not fit
goes on in the next message with its public key and the rest of them only.

Messages carry the interface's private key and the preshared keys. Both are skipped in place and
never copied.
"""

from __future__ import annotations

import struct
from binascii import b2a_base64
from socket import AF_INET, AF_INET6, inet_ntoa, inet_ntop
from sys import byteorder
from typing import TYPE_CHECKING, Final

from plexd.wireguard.device import Device, DevicePeer
from plexd.wireguard.errors import DumpError
from plexd.wireguard.netlink import (
    ATTRIBUTE_HEADER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    Buffer,
    attributes,
    encode_attribute,
    encode_request,
    messages,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


WG_CMD_GET_DEVICE: Final = 0
WGDEVICE_A_IFNAME: Final = 2
WGDEVICE_A_PUBLIC_KEY: Final = 4
WGDEVICE_A_PEERS: Final = 8
WGPEER_A_PUBLIC_KEY: Final = 1
WGPEER_A_PRESHARED_KEY: Final = 2
WGPEER_A_ENDPOINT: Final = 4
WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL: Final = 5
WGPEER_A_LAST_HANDSHAKE_TIME: Final = 6
WGPEER_A_RX_BYTES: Final = 7
WGPEER_A_TX_BYTES: Final = 8
WGPEER_A_ALLOWEDIPS: Final = 9
WGPEER_A_PROTOCOL_VERSION: Final = 10

_KEY_BYTES: Final = 32
_NANO: Final = 10**9
_TIMESPEC: Final = struct.Struct("=qq")
_UINT64: Final = struct.Struct("=Q")
_INET: Final = struct.Struct("!2xH4s")  # sockaddr_in behind its family
_INET6: Final = struct.Struct("!2xH4x16s")  # sockaddr_in6 up to its scope
_FAMILY: Final = struct.Struct("=H")
# Plain numbers: comparing with an enumeration is slow.
_INET_FAMILY, _INET6_FAMILY = int(AF_INET), int(AF_INET6)

# The attributes every whole peer begins with, in the kernel's order, are unpacked in one step: one
# by one takes nearly twice as long. A peer that begins otherwise is read one by one. Headers are
# compared as one number each; "x" skips what is not read.
_USUAL: Final = struct.Struct("=I32sI32xIqqI4xIQIQI4x")
_USUAL_HEADERS: Final = tuple(
    int.from_bytes(ATTRIBUTE_HEADER.pack(ATTRIBUTE_HEADER.size + size, kind), byteorder)
    for kind, size in (
        (WGPEER_A_PUBLIC_KEY, _KEY_BYTES),
        (WGPEER_A_PRESHARED_KEY, _KEY_BYTES),
        (WGPEER_A_LAST_HANDSHAKE_TIME, _TIMESPEC.size),
        (WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, 2),
        (WGPEER_A_TX_BYTES, _UINT64.size),
        (WGPEER_A_RX_BYTES, _UINT64.size),
        (WGPEER_A_PROTOCOL_VERSION, 4),
    )
)


def encode_dump_request(family: int, interface: bytes) -> bytes:
    """Return ``WG_CMD_GET_DEVICE`` for the interface of this name."""
    name = encode_attribute(WGDEVICE_A_IFNAME, interface + b"\0")
    return encode_request(family, NLM_F_REQUEST | NLM_F_DUMP, WG_CMD_GET_DEVICE, name)


def parse_dump(datagrams: Iterable[Buffer]) -> Device:
    """Return one dump from its datagrams in the order received, ``NLMSG_DONE`` included.

    Raises `DumpError` when the dump is damaged, incomplete or was interrupted, and
    `RefusedError` when the kernel ended it with an error. What follows the end is ignored.
    """
    parser = DumpParser()
    for datagram in datagrams:
        parser.feed(datagram)
        if parser.done:
            break
    return parser.device()


def parse_public_key(datagram: Buffer) -> str | None:
    """Return the interface's public key from the first datagram of a dump; None without one.

    Raises as `parse_dump`.
    """
    for _, start, end in messages(datagram):
        for attribute, value, value_end in attributes(datagram, start, end):
            if attribute == WGDEVICE_A_PUBLIC_KEY and value_end - value == _KEY_BYTES:
                return _text(bytes(datagram[value:value_end]))
    return None


class DumpParser:
    """Reads a dump datagram by datagram and keeps only what is public.

    ``done`` once ``NLMSG_DONE`` was seen.
    """

    def __init__(self) -> None:
        self.done = False
        self._name: str | None = None
        self._peers: dict[str, DevicePeer] = {}
        self._latest: str | None = None

    def feed(self, datagram: Buffer) -> None:
        """Read one datagram. Raises as `parse_dump`; the parser cannot be used after that."""
        for kind, start, end in messages(datagram):
            if kind == NLMSG_DONE:
                self.done = True
                return
            for attribute, value, value_end in attributes(datagram, start, end):
                if attribute == WGDEVICE_A_IFNAME:
                    self._set_name(bytes(datagram[value:value_end]))
                elif attribute == WGDEVICE_A_PEERS:
                    self._add_peers(datagram, value, value_end)

    def device(self) -> Device:
        """Return the device. Raises `DumpError` if the dump's end or interface is missing."""
        if not self.done:
            raise DumpError("the dump has no end")
        if self._name is None:
            raise DumpError("the dump names no interface")
        return Device(self._name, tuple(self._peers.values()))

    def _set_name(self, raw: bytes) -> None:
        name = raw.rstrip(b"\0").decode(errors="backslashreplace")
        if self._name not in {None, name}:
            raise DumpError(f"the dump is of {self._name!r} and of {name!r}")
        self._name = name

    def _add_peers(self, datagram: Buffer, start: int, end: int) -> None:
        for _, value, value_end in attributes(datagram, start, end):
            peer = _usual_peer(datagram, value, value_end)
            if peer is None:
                key, peer = _any_peer(datagram, value, value_end)
            else:
                key = peer.public_key
            if peer is None and key != self._latest:
                raise DumpError("a peer goes on that did not begin")
            if peer is not None:
                if key in self._peers:
                    raise DumpError("the dump has a peer twice")
                self._peers[key] = peer
            self._latest = key


def _usual_peer(buffer: Buffer, start: int, end: int) -> DevicePeer | None:
    """Return a peer that begins as the kernel writes it, None for any other."""
    rest = start + _USUAL.size
    if rest > end:
        return None
    (a, key, b, c, seconds, nano, d, e, sent, f, received, g) = _USUAL.unpack_from(buffer, start)
    if (a, b, c, d, e, f, g) != _USUAL_HEADERS:
        return None
    endpoint = None
    for kind, value, value_end in attributes(buffer, rest, end):
        if kind == WGPEER_A_ENDPOINT:
            endpoint = _endpoint(buffer, value, value_end)
        elif kind != WGPEER_A_ALLOWEDIPS:
            return None
    return DevicePeer(_text(key), endpoint, seconds * _NANO + nano, received, sent)


def _any_peer(buffer: Buffer, start: int, end: int) -> tuple[str, DevicePeer | None]:
    """Return a peer's key, and the peer, None if this continues one."""
    places = {kind: (at, stop) for kind, at, stop in attributes(buffer, start, end)}
    at = _place(places, WGPEER_A_PUBLIC_KEY, _KEY_BYTES)
    key = _text(bytes(buffer[at : at + _KEY_BYTES]))
    if places.keys() <= {WGPEER_A_PUBLIC_KEY, WGPEER_A_ALLOWEDIPS}:
        return key, None
    endpoint = places.get(WGPEER_A_ENDPOINT)
    time = _place(places, WGPEER_A_LAST_HANDSHAKE_TIME, _TIMESPEC.size)
    seconds, nano = _TIMESPEC.unpack_from(buffer, time)
    return key, DevicePeer(
        key,
        None if endpoint is None else _endpoint(buffer, *endpoint),
        seconds * _NANO + nano,
        _UINT64.unpack_from(buffer, _place(places, WGPEER_A_RX_BYTES, _UINT64.size))[0],
        _UINT64.unpack_from(buffer, _place(places, WGPEER_A_TX_BYTES, _UINT64.size))[0],
    )


def _place(places: dict[int, tuple[int, int]], kind: int, size: int) -> int:
    start, end = places.get(kind, (0, -1))
    if end - start != size:
        raise DumpError(f"attribute {kind} of a peer is missing or not of {size} bytes")
    return start


def _endpoint(buffer: Buffer, start: int, end: int) -> str | None:
    """Return a ``sockaddr`` as ``wg`` prints it; None for a family WireGuard does not use."""
    size = end - start
    family = _FAMILY.unpack_from(buffer, start)[0] if size >= _FAMILY.size else None
    if family == _INET_FAMILY and size >= _INET.size:
        port, address = _INET.unpack_from(buffer, start)
        return f"{inet_ntoa(address)}:{port}"
    if family == _INET6_FAMILY and size >= _INET6.size:
        port, address = _INET6.unpack_from(buffer, start)
        return f"[{inet_ntop(AF_INET6, address)}]:{port}"
    return None


def _text(key: bytes) -> str:
    return b2a_base64(key, newline=False).decode()
