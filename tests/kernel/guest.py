"""The program inside the machine: it makes kernel tunnels and reads them beside ``wg``.

``python -m kernel.guest TTY`` writes its `Results` to the terminal ``TTY``.
"""

from __future__ import annotations

import asyncio
import lzma
import os
import sys
import tty
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kernel.recorder import Recorder
from kernel.results import Absences, Reading, Results
from kernel.tunnels import busybox, load_modules, make_pair, make_thousand, wg
from plexd.api import Peer
from plexd.wireguard import Absent, Device, PeerIndex, WireGuardStatsReader, kernel
from plexd.wireguard.kernel import netlink_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from plexd.api import TunnelStats

_NOBODY = 65534
_ATTEMPTS = 20
_PATIENCE_SECONDS = 60.0  # emulated, on a busy machine


async def run() -> Results:
    """Do everything in the only possible order."""
    booted, began = _uptime(), datetime.now(UTC)
    no_module = await absence("plexd0")
    load_modules()
    no_interface = await absence("plexd0")
    make_pair()
    with somebody_else():
        no_right = await absence("plexd0")
    pair = await reading("plexd0")
    stats = await read_stats("plexd0", pair.device)
    make_thousand("plexd9")
    thousand = await reading("plexd9")
    interrupted = await reading("plexd9", lambda: wg("set", "plexd9", "fwmark", "7"))
    busybox("ip", "link", "del", "plexd0")
    removed = await absence("plexd0")
    busybox("ip", "link", "add", "plexd0", "type", "wireguard")
    returned = await present("plexd0")
    return Results(
        kernel=os.uname().release,
        began=began,
        ended=datetime.now(UTC),
        booted_seconds=booted,
        done_seconds=_uptime(),
        absences=Absences(no_module, no_interface, await absence("lo"), no_right, removed),
        pair=pair,
        stats=stats,
        thousand=thousand,
        interrupted=interrupted,
        returned=returned,
    )


async def read(
    interface: str, connect: Callable[[], socket.socket] = netlink_socket
) -> Device | Absent:
    source = await kernel.open(interface, connect=connect, deadline_seconds=_PATIENCE_SECONDS)
    return source if isinstance(source, Absent) else await source.read_device()


async def absence(interface: str) -> str:
    found = await read(interface)
    assert isinstance(found, Absent), found
    return found.reason


async def present(interface: str, connect: Callable[[], socket.socket] = netlink_socket) -> Device:
    found = await read(interface, connect)
    assert isinstance(found, Device), found
    return found


async def reading(interface: str, interrupt: Callable[[], object] | None = None) -> Reading:
    """Read while ``wg`` sees no change except that of ``interrupt``."""
    for _ in range(_ATTEMPTS):
        recorder = Recorder(interrupt)
        before = wg("show", interface, "dump")
        device = await present(interface, recorder.connect)
        shown = wg("show", interface, "dump")
        if before == shown or interrupt is not None:
            return Reading(shown, device, tuple(map(tuple, recorder.conversations)))
    raise AssertionError(f"{interface} never stands still")


async def read_stats(interface: str, device: Device) -> tuple[TunnelStats, ...]:
    """Read as the agent does; the first peer is known, the others are not."""
    index = PeerIndex([Peer("known", device.peers[0].public_key, "10.9.1.2")])
    return tuple(await WireGuardStatsReader(interface, index).read_tunnel_stats())


@contextmanager
def somebody_else() -> Iterator[None]:
    """Give up root's rights for a while."""
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def main() -> None:
    # The terminal is slow, and dumps of one interface compress well.
    results = lzma.compress(msgspec.msgpack.encode(asyncio.run(run())), preset=1)
    with Path(sys.argv[1]).open("wb") as terminal:
        tty.setraw(terminal.fileno())
        terminal.write(results)


if __name__ == "__main__":
    main()
