"""What a storm of ICMP replies costs the process that pings.

Claims: a sender that has not seen a probe costs less than a hundredth of a core, whatever it sends;
one that has costs less than a tenth of a core with 10,000 replies a second. One ping is under way
over a cable between two network namespaces. At the far end another program sends, as fast as it
can, packets that look like an answer, and the answer itself after the storm. Needs root, and says
so if it lacks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from itertools import cycle, islice
from typing import TYPE_CHECKING

from benchmarks.measure import table
from plexd.icmp import ICMPPinger
from plexd.icmp.errors import PacketError
from plexd.icmp.packet import (
    COOKIE_BYTES,
    PAYLOAD_BYTES,
    REPLY_V4,
    REQUEST_V4,
    encode_echo,
    parse_echo,
    parse_ipv4_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plexd.icmp.packet import Echo

PACKETS = 100_000
ROUNDS = 5
NEAR, FAR = "10.77.0.1", "10.77.0.2"
TOKEN_BYTES = PAYLOAD_BYTES - COOKIE_BYTES
# From a sender that guesses to one on the path that repeats what it saw.
KINDS = ("wrong identifier", "wrong cookie", "wrong sequence", "wrong token", "duplicates", "mixed")


@dataclass(frozen=True)
class Storm:
    """How long it lasted, what the pinging process spent, and how many packets it ignored."""

    seconds: float
    cpu_seconds: float
    ignored: int


def main() -> None:
    """Make two namespaces and a cable, and measure in the near one."""
    if os.geteuid() != 0:
        print("cannot make a storm: network namespaces need root")
        return
    near, far = (f"pxstorm{os.getpid()}{end}" for end in "nf")
    with _namespace(near), _namespace(far):
        cable = ("eth0", "type", "veth", "peer", "eth0", "netns", far)
        _run("ip", "-n", near, "link", "add", *cable)
        for place, address in ((near, NEAR), (far, FAR)):
            _run("ip", "-n", place, "address", "add", f"{address}/24", "dev", "eth0")
            _run("ip", "-n", place, "link", "set", "eth0", "up")
        _run(*_inside(far), "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1")
        _run(*_inside(near), *_this_program("near", far))


def _inside(place: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", place)


def _this_program(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "benchmarks.storm", *arguments)


@contextlib.contextmanager
def _namespace(name: str) -> Iterator[None]:
    _run("ip", "netns", "add", name)
    try:
        yield
    finally:
        _run("ip", "netns", "delete", name)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


async def _near(far: str) -> None:
    """Print the medians of alternating rounds."""
    command = (*_inside(far), *_this_program("far"))
    pipe = asyncio.subprocess.PIPE
    sender = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert sender.stdout is not None  # it has pipes
    await sender.stdout.readline()  # it listens
    storms: dict[str, list[Storm]] = {kind: [] for kind in KINDS}
    async with ICMPPinger(lambda peer_id: peer_id, timeout=timedelta(minutes=1)) as pinger:
        for _ in range(ROUNDS):
            for kind in KINDS:
                storms[kind].append(await _storm(pinger, sender, kind))
    assert sender.stdin is not None  # the same
    sender.stdin.close()
    await sender.wait()
    rows = [[kind, *_cells(found)] for kind, found in storms.items()]
    head = [
        "",
        "packets a second",
        "CPU of a core",
        "us a packet",
        "a tenth of a core at",
        "ignored",
    ]
    table(f"{PACKETS:,} replies while one ping is under way", head, rows)


async def _storm(pinger: ICMPPinger, sender: asyncio.subprocess.Process, kind: str) -> Storm:
    assert sender.stdin is not None  # it has pipes
    assert sender.stdout is not None  # the same
    before, cpu = pinger.statistics(), time.process_time()
    ping = asyncio.create_task(pinger.ping(FAR))
    sender.stdin.write(f"{kind}\n".encode())
    seconds = float(await sender.stdout.readline())
    await asyncio.sleep(0.2)  # what is still in the queue costs time as well
    sender.stdin.write(b"enough\n")
    await ping
    used, after = time.process_time() - cpu, pinger.statistics()
    if after.answered != before.answered + 1:
        raise SystemExit(f"{kind}: one ping and {after.answered - before.answered} answers")
    return Storm(
        seconds,
        used,
        after.foreign + after.duplicates - before.foreign - before.duplicates,
    )


def _cells(storms: list[Storm]) -> list[str]:
    median = statistics.median
    return [
        f"{PACKETS / median(storm.seconds for storm in storms):,.0f}",
        f"{median(storm.cpu_seconds / storm.seconds for storm in storms):.1%}",
        f"{median(storm.cpu_seconds for storm in storms) * 1e6 / PACKETS:.2f}",
        f"{0.1 * PACKETS / median(storm.cpu_seconds for storm in storms):,.0f}/s",
        f"{median(storm.ignored for storm in storms):,.0f}",
    ]


def _far() -> None:
    """Print that it listens; then, for each line of stdin, send a storm of that kind.

    It prints how long the storm took, and answers the ping after one more line.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        print("listening", flush=True)
        for line in sys.stdin:
            asked = _request(sock)
            packets = list(islice(cycle(_packets(line.strip(), *asked)), PACKETS))
            began = time.perf_counter()
            for packet in packets:
                sock.sendto(packet, (NEAR, 0))
            seconds = time.perf_counter() - began
            print(seconds, flush=True)
            sys.stdin.readline()
            sock.sendto(encode_echo(REPLY_V4, *asked), (NEAR, 0))


def _request(sock: socket.socket) -> Echo:
    while True:
        data = sock.recv(256)
        with contextlib.suppress(PacketError):
            return parse_echo(data, REQUEST_V4, parse_ipv4_header(data))


def _packets(kind: str, identifier: int, sequence: int, payload: bytes) -> list[bytes]:
    """Return some replies of that kind to a request."""
    cookie, token = payload[:COOKIE_BYTES], payload[COOKIE_BYTES:]
    if kind == "mixed":
        return [_packets(each, identifier, sequence, payload)[0] for each in KINDS[:-1]]
    replies = {
        "wrong identifier": (identifier ^ 1, sequence, payload),
        "wrong cookie": (identifier, sequence, bytes(COOKIE_BYTES) + token),
        "wrong sequence": (identifier, sequence ^ 1, payload),
        "wrong token": (identifier, sequence, cookie + bytes(TOKEN_BYTES)),
        "duplicates": (identifier, sequence, payload),
    }
    return [encode_echo(REPLY_V4, *replies[kind])]


if __name__ == "__main__":
    asyncio.run(_near(sys.argv[2])) if sys.argv[1] == "near" else _far()
