"""Claims: a kernel's dump of 10,000 peers parses in 60 ms; 1,000 userspace peers in twice a drain.

A drain is what any reader has to wait for: to ask the daemon and throw its answer away.
The dump is made here in the kernel's format, in datagrams of 32 KiB as the kernel sends them. The
daemon is wireguard-go in a network namespace; its peers have endpoints and never shook hands.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import struct
import subprocess
import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import interleaved, table
from plexd.api import Peer
from plexd.wireguard import PeerIndex, WireGuardStatsReader
from plexd.wireguard.kernel import parse_dump
from plexd.wireguard.netlink import encode_attribute
from plexd.wireguard.userspace import DIRECTORY, UserspaceReader
from plexd.wireguard.userspace import open as open_userspace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

ROUNDS = 15
SIZES = (10, 100, 1_000, 10_000)
CLAIM_MS = 60
READ_PEERS = 1_000
READ_ROUNDS = 51
CLAIM_RATIO = 2.0

_HANDSHAKE_SECONDS = 1_700_000_000
_PEERS_PER_DATAGRAM = 150  # as many as fit into 32 KiB


def _key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _peer(number: int) -> bytes:
    """One peer as the kernel writes it, with an IPv4 endpoint and one allowed address."""
    allowed = [(1, struct.pack("=H", 2)), (2, struct.pack("!I", number)), (3, b"\x20")]
    network = encode_attribute(0x8000, b"".join(encode_attribute(*part) for part in allowed))
    parts = [
        (1, _key(number)),
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
    """Median wall time, all of them once per round: most of it is spent in the daemon."""
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
    stats = WireGuardStatsReader(interface, PeerIndex(_as_peers()))
    path = Path(DIRECTORY) / f"{interface}.sock"
    return await _wall_seconds(
        {
            "drained": lambda: _drain(path),
            "read": source.read_device,
            "read, named and judged": stats.read_tunnel_stats,
        }
    )


def _as_peers() -> Iterator[Peer]:
    for number in range(READ_PEERS):
        address = f"10.0.{number >> 8}.{number & 255}"
        yield Peer(f"peer{number}", b64encode(_key(number + 1)).decode(), address)


def _userspace() -> None:
    if os.geteuid() != 0 or not shutil.which("wireguard-go") or not shutil.which("wg"):
        print("Reading userspace peers: needs root, wireguard-go and wireguard-tools")
        return
    with _wireguard_go() as interface:
        seconds = asyncio.run(_measured(interface))
    rows = []
    for name, taken in seconds.items():
        ratio = f"{taken / seconds['drained']:.2f} x"
        claim = f"at most {CLAIM_RATIO:.1f} x" if name == "read" else ""
        rows.append([name, f"{taken * 1e3:.2f} ms", ratio, claim])
    head = ["", "measured", "of drained", "claim"]
    table(f"Reading {READ_PEERS:,} peers of wireguard-go, wall time", head, rows)


@contextlib.contextmanager
def _wireguard_go() -> Iterator[str]:
    """The name of an interface with `READ_PEERS` peers, in a namespace of its own."""
    name = f"pxbench{os.getpid() % 10**6}"
    path = Path(DIRECTORY) / f"{name}.sock"
    _run("ip", "netns", "add", name)
    try:
        with subprocess.Popen(["ip", "netns", "exec", name, "wireguard-go", "-f", name]) as daemon:  # noqa: S607  # where it is
            try:
                _wait_for(path)
                _run("wg", "setconf", name, "/dev/stdin", given="".join(_sections()))
                yield name
            finally:
                daemon.kill()
    finally:
        path.unlink(missing_ok=True)
        _run("ip", "netns", "delete", name)


def _run(*command: str, given: str = "") -> None:
    subprocess.run(command, check=True, input=given, text=True)


def _wait_for(path: Path) -> None:
    for _ in range(500):
        if path.exists():
            return
        time.sleep(0.01)
    raise SystemExit(f"{path} did not appear")


def _sections() -> Iterator[str]:
    private = b64encode(b"plexd benchmark, not secret at all"[:32]).decode()
    yield f"[Interface]\nPrivateKey={private}\n"
    for peer in _as_peers():
        endpoint = "Endpoint=127.0.0.1:9"
        yield f"[Peer]\nPublicKey={peer.public_key}\nAllowedIPs={peer.mesh_ip}/32\n{endpoint}\n"


def main() -> None:
    """Print the time of parsing a dump by its size, and of reading a daemon beside draining it."""
    _kernel()
    print()
    _userspace()
