"""Answers as a kernel and as a daemon give them, made from the peers they are to describe."""

from __future__ import annotations

import socket
import struct
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

from plexd.wireguard import DevicePeer
from plexd.wireguard.netlink import encode_attribute

if TYPE_CHECKING:
    from collections.abc import Sequence

FAMILY = 31
DONE, ERROR, INTERRUPTED, MULTI = 3, 2, 0x10, 0x02
NESTED = 0x8000
PRIVATE, PRESHARED = b"\xaa" * 32, b"\xbb" * 32


def spellings(secret: bytes) -> tuple[str, str, str]:
    """How the first bytes of a secret key would show: escaped, in hexadecimal or in base64.

    Both keys repeat one byte so that their base64 is the same wherever it begins.
    """
    return repr(secret[:8])[2:-1], secret[:8].hex(), b64encode(secret).decode()[:8]


def key(number: int) -> str:
    return b64encode(number.to_bytes(32, "big")).decode()


def peer(number: int, handshake_nano: int = 0, rx: int = 0, tx: int = 0) -> DevicePeer:
    return DevicePeer(key(number), f"192.0.2.1:{number % 65536}", handshake_nano, rx, tx)


def message(kind: int, payload: bytes, flags: int = MULTI) -> bytes:
    raw = struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload
    return raw + bytes(-len(raw) % 4)


def done(status: int = 0, flags: int = MULTI) -> bytes:
    return message(DONE, struct.pack("=i", status), flags)


def refusal(errno: int) -> bytes:
    return message(ERROR, struct.pack("=i", -errno) + bytes(20), 0)


def family(number: int = FAMILY) -> bytes:
    named = encode_attribute(2, b"wireguard\0") + encode_attribute(1, struct.pack("=H", number))
    return message(0x10, bytes([1, 2, 0, 0]) + named, 0)


def device(
    peers: Sequence[bytes], name: bytes = b"wg0", *, first: bool = True, flags: int = MULTI
) -> bytes:
    """One message of a dump, of peers from `whole` and `continued`."""
    attributes = encode_attribute(2, name + b"\0")
    if first:
        attributes += encode_attribute(3, PRIVATE) + encode_attribute(6, b"\x6c\xca")
    attributes += encode_attribute(NESTED | 8, b"".join(peers))
    return message(FAMILY, bytes(4) + attributes, flags)


def whole(peer: DevicePeer, *, backwards: bool = False) -> bytes:
    """A peer in the kernel's order, or in the opposite one."""
    parts = [
        (1, b64decode(peer.public_key)),
        (2, PRESHARED),
        (6, struct.pack("=qq", *divmod(peer.last_handshake_nano, 10**9))),
        (5, b"\x19\0"),
        (8, struct.pack("=Q", peer.tx_bytes)),
        (7, struct.pack("=Q", peer.rx_bytes)),
        (10, struct.pack("=I", 1)),
        *([] if peer.endpoint is None else [(4, sockaddr(peer.endpoint))]),
        (NESTED | 9, allowed_ip()),
    ]
    ordered = reversed(parts) if backwards else parts
    return encode_attribute(NESTED, b"".join(encode_attribute(*part) for part in ordered))


def continued(public_key: str) -> bytes:
    inner = encode_attribute(1, b64decode(public_key)) + encode_attribute(NESTED | 9, allowed_ip())
    return encode_attribute(NESTED, inner)


def allowed_ip() -> bytes:
    parts = [(1, struct.pack("=H", 2)), (2, bytes([10, 0, 0, 1])), (3, b"\x20")]
    return encode_attribute(NESTED, b"".join(encode_attribute(*part) for part in parts))


def sockaddr(endpoint: str) -> bytes:
    host, _, port = endpoint.rpartition(":")
    number = struct.pack("!H", int(port))
    if host.startswith("["):
        address = socket.inet_pton(socket.AF_INET6, host.strip("[]"))
        return struct.pack("=H", 10) + number + bytes(4) + address + bytes(4)
    return struct.pack("=H", 2) + number + socket.inet_aton(host) + bytes(8)


def dump(peers: Sequence[DevicePeer], per_message: int = 100) -> list[bytes]:
    """A whole dump, one message per datagram."""
    slices = [peers[i : i + per_message] for i in range(0, len(peers), per_message)] or [[]]
    return [
        *[device([whole(p) for p in part], first=not i) for i, part in enumerate(slices)],
        done(),
    ]


def uapi(peers: Sequence[DevicePeer], errno: int = 0) -> bytes:
    """An answer in wireguard-go's order of lines."""
    lines = [f"private_key={PRIVATE.hex()}", "listen_port=51820"]
    for one in peers:
        seconds, nano = divmod(one.last_handshake_nano, 10**9)
        lines += [
            f"public_key={b64decode(one.public_key).hex()}",
            f"preshared_key={PRESHARED.hex()}",
            "protocol_version=1",
            *([] if one.endpoint is None else [f"endpoint={one.endpoint}"]),
            f"last_handshake_time_sec={seconds}",
            f"last_handshake_time_nsec={nano}",
            f"tx_bytes={one.tx_bytes}",
            f"rx_bytes={one.rx_bytes}",
            "persistent_keepalive_interval=25",
            "allowed_ip=10.0.0.1/32",
        ]
    return "\n".join([*lines, f"errno={errno}", "", ""]).encode()
