"""Claims: a kernel's dump of 10,000 peers parses in 60 ms; 1,000 userspace peers in twice a drain.

A drain asks the daemon and throws its answer away; every reader has to wait that long. The dump is
made here in the kernel's format, in datagrams of 32 KiB as the kernel sends them. The daemon is
wireguard-go in a network namespace; its peers have endpoints but no handshakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.daemon import public_key, raw_key, what_is_missing, wireguard_go
from benchmarks.measure import interleaved, table
from plexd.api import Peer
from plexd.wireguard import PeerIndex, WireGuardStatsReader
from plexd.wireguard.dump import parse_dump
from plexd.wireguard.netlink import encode_attribute
from plexd.wireguard.userspace import DIRECTORIES, UserspaceReader
from plexd.wireguard.userspace import open as open_userspace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROUNDS = 15
SIZES = (10, 100, 1_000, 10_000)
CLAIM_MS = 60
READ_PEERS = 1_000
READ_ROUNDS = 51
CLAIM_RATIO = 2.0

_HANDSHAKE_SECONDS = 1_700_000_000
_PEERS_PER_DATAGRAM = 150  # as many as fit into 32 KiB


def _peer(number: int) -> bytes:
    """Encode one peer as the kernel does, with an IPv4 endpoint and one allowed address."""
    allowed = [(1, struct.pack("=H", 2)), (2, struct.pack("!I", number)), (3, b"\x20")]
    network = encode_attribute(0x8000, b"".join(encode_attribute(*part) for part in allowed))
    parts = [
        (1, raw_key(number)),
        (2, bytes(32)),
        (6, struct.pack("=qq", _HANDSHAKE_SECONDS + number, 123_456_789)),
        (5, b"\x19\0"),
        (8, struct.pack("=Q", number << 20)),
        (7, struct.pack("=Q", number << 24)),
        (10, struct.pack("=I", 1)),
        (4, struct.pack("=H", 2) + struct.pack("!HI", 51820, number) + bytes(8)),
        (0x8009, network),
    ]
    return encode_attribute(0x8000, b"".join(encode_attribute(*part) for part in parts))


def _dump(size: int) -> list[bytes]:
    datagrams = []
    for first in range(0, size, _PEERS_PER_DATAGRAM):
        numbers = range(first, min(first + _PEERS_PER_DATAGRAM, size))
        nested = encode_attribute(0x8008, b"".join(map(_peer, numbers)))
        payload = bytes(4) + encode_attribute(2, b"plexd0\0") + nested
        datagrams.append(struct.pack("=IHHII", 16 + len(payload), 31, 2, 1, 0) + payload)
    return [*datagrams, struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)]


def _kernel() -> None:
    dumps = {size: _dump(size) for size in SIZES}
    contenders = {str(size): _parsing(dump) for size, dump in dumps.items()}
    seconds = interleaved(contenders, rounds=ROUNDS)
    rows = []
    for size in SIZES:
        taken = seconds[str(size)]
        claim = f"at most {CLAIM_MS} ms" if size == SIZES[-1] else ""
        per_peer = f"{taken / size * 1e6:.2f} us"
        rows.append([f"{size:,}", f"{taken * 1e3:.2f} ms", per_peer, claim])
    table("Parsing a kernel's dump, CPU time", ["peers", "measured", "a peer", "claim"], rows)


def _parsing(dump: list[bytes]) -> Callable[[], object]:
    return lambda: parse_dump(dump)


async def _drain(path: Path) -> None:
    """Ask, and throw the answer away."""
    loop = asyncio.get_running_loop()
    chunk = bytearray(256 * 1024)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(0)
        await loop.sock_connect(connection, str(path))
        await loop.sock_sendall(connection, b"get=1\n\n")
        end = b""
        while not end.endswith(b"\n\n"):
            size = await loop.sock_recv_into(connection, chunk)
            end = bytes(chunk[max(size - 2, 0) : size])


async def _wall_seconds(contenders: dict[str, Callable[[], Awaitable[object]]]) -> dict[str, float]:
    """Measure median wall time, which is spent mostly in the daemon; each runs once per round."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(READ_ROUNDS):
        for name, contender in contenders.items():
            began = time.perf_counter()
            await contender()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


async def _measured(interface: str) -> dict[str, float]:
    source = await open_userspace(interface)
    if not isinstance(source, UserspaceReader):
        raise SystemExit(source.reason)
    stats = WireGuardStatsReader(interface, PeerIndex(_peers()))
    path = Path(DIRECTORIES[0]) / f"{interface}.sock"
    return await _wall_seconds(
        {
            "drained": lambda: _drain(path),
            "read": source.read_device,
            "read, named and judged": stats.read_tunnel_stats,
        }
    )


def _peers() -> list[Peer]:
    return [
        Peer(f"peer{i}", public_key(i + 1), f"10.0.{i >> 8}.{i & 255}") for i in range(READ_PEERS)
    ]


def _userspace() -> None:
    if needs := what_is_missing():
        print(f"Reading userspace peers: {needs}")
        return
    with wireguard_go(_peers()) as interface:
        seconds = asyncio.run(_measured(interface))
    rows = []
    for name, taken in seconds.items():
        ratio = f"{taken / seconds['drained']:.2f} x"
        claim = f"at most {CLAIM_RATIO:.1f} x" if name == "read" else ""
        rows.append([name, f"{taken * 1e3:.2f} ms", ratio, claim])
    head = ["", "measured", "of drained", "claim"]
    table(f"Reading {READ_PEERS:,} peers of wireguard-go, wall time", head, rows)


def main() -> None:
    """Print the time of parsing a dump by its size, and of reading and draining a daemon."""
    _kernel()
    print()
    _userspace()
