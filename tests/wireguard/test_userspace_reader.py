"""A daemon on a real socket that answers well, badly or not at all."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from plexd.metrics.testing import ManualClock
from plexd.wireguard import Absent, Device, DevicePeer, WireGuardError, userspace
from plexd.wireguard.uapi import parse_answer
from plexd.wireguard.userspace import UserspaceReader
from wireguard.fakes import answering, daemon
from wireguard.messages import PRESHARED, PRIVATE, key, peer, spellings, uapi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("nothing_leaks")

PEERS = (
    peer(1, handshake_nano=1_700_000_000_123_456_789, rx=5, tx=2**64 - 1),
    DevicePeer(key(2), None, 0, 0, 0),
    DevicePeer(key(3), "[fd00::3]:51820", 0, 7, 8),
)
ANSWER = uapi(PEERS)
# As boringtun orders it, with a line of a newer version.
OTHER_ORDER = (
    f"own_public_key={'00' * 32}\nlisten_port=1\nnew_thing=\n"
    f"public_key={'00' * 31}01\nrx_bytes=5\ntx_bytes=6\nallowed_ip=10.0.0.1/32\n"
    f"last_handshake_time_nsec=7\nlast_handshake_time_sec=1\nerrno=0\n\n"
).encode()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Path]:
    async with daemon(tmp_path, answering(ANSWER)):
        yield tmp_path


async def opened(
    directory: Path, *, clock: ManualClock | None = None, max_bytes: int = 2**20
) -> UserspaceReader:
    reader = await userspace.open("wg0", directory=directory, clock=clock, max_bytes=max_bytes)
    assert isinstance(reader, UserspaceReader)
    return reader


async def test_a_device_is_read(served: Path) -> None:
    assert await (await opened(served)).read_device() == Device("wg0", PEERS)


async def test_an_answer_of_many_pieces_is_one(tmp_path: Path) -> None:
    many = tuple(peer(i, rx=i) for i in range(1, 3001))
    async with daemon(tmp_path, answering(uapi(many))):
        assert await (await opened(tmp_path)).read_device() == Device("wg0", many)


async def test_an_answer_byte_by_byte_is_one(tmp_path: Path) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in ANSWER:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    async with daemon(tmp_path, serve):
        assert await (await opened(tmp_path)).read_device() == Device("wg0", PEERS)


def test_lines_in_any_order_read_the_same() -> None:
    expected = (DevicePeer(key(1), None, 10**9 + 7, 5, 6),)
    assert parse_answer("wg0", OTHER_ORDER) == Device("wg0", expected)


def test_a_key_in_capitals_is_the_same_key() -> None:
    twice = uapi([peer(10), peer(11)]).replace(b"0b\npreshared", b"0A\npreshared")
    with pytest.raises(WireGuardError, match="a peer twice"):
        parse_answer("wg0", twice)


def test_an_interface_without_peers_is_a_device() -> None:
    assert parse_answer("wg0", uapi([])) == Device("wg0")
    assert parse_answer("wg0", b"errno=0\n\n") == Device("wg0")


@pytest.mark.parametrize("text", [*spellings(PRIVATE), *spellings(PRESHARED)])
def test_secret_keys_are_nowhere_in_what_is_read(text: str) -> None:
    other_order = ANSWER.replace(b"listen_port", b"new_thing=\nlisten_port")
    assert text not in repr(parse_answer("wg0", ANSWER))
    assert text not in repr(parse_answer("wg0", other_order))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"errno=0", b"errno=22", "the daemon refused: Invalid argument"),
        (b"errno=0", b"errno=-13", "the daemon refused: Permission denied"),
        (b"errno=0\n", b"", "does not end with an errno"),
        (b"errno=0", b"errno=zero", "does not end with an errno"),
        (b"listen_port", b"\nlisten_port", "a line that is no key=value"),
        (b"listen_port", b"errno=0\nlisten_port", "a line that is no key=value"),
        (b"listen_port=", b"listen port ", "a line that is no key=value"),
        (b"rx_bytes=7", b"rx_bytes7", "a line that is no key=value"),
        (b"rx_bytes=7", b"rx_bytes=-7", "rx_bytes is no count: b'-7'"),
        (b"rx_bytes=7", b"rx_bytes=" + b"9" * 5000, "no count"),
        (b"rx_bytes=7", b"rx_bytes=18446744073709551616", "beyond 64 bits"),
        (b"rx_bytes=7\n", b"", "a peer has no rx_bytes"),
        (b"rx_bytes=7", b"rx_bytes=7\nrx_bytes=8", "comes twice"),
        (b"listen_port=51820", b"rx_bytes=1", "belongs to no peer"),
        (b"03\npreshared", b"01\npreshared", "a peer twice"),
        (b"03\npreshared", b"0x\npreshared", "not hexadecimal"),
        (b"0003\npreshared", b"\npreshared", "has 60 digits"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_error(
    tmp_path: Path, old: bytes, new: bytes, reason: str
) -> None:
    assert old in ANSWER
    async with daemon(tmp_path, answering(ANSWER.replace(old, new, 1) + b"\n\n")):
        with pytest.raises(WireGuardError, match=reason):
            parse_answer("wg0", ANSWER.replace(old, new, 1))
        with pytest.raises(WireGuardError, match=r"wg0\.sock: "):
            await (await opened(tmp_path)).read_device()


@pytest.mark.parametrize("said", [b"", ANSWER[:100], ANSWER[:-1]])
async def test_a_daemon_that_dies_in_mid_answer_is_an_error(tmp_path: Path, said: bytes) -> None:
    async with daemon(tmp_path, answering(said)):
        with pytest.raises(WireGuardError, match="closed the connection before the answer's end"):
            await (await opened(tmp_path)).read_device()


@pytest.mark.parametrize("said", [b"", b"listen_po", ANSWER[:-1]])
async def test_a_daemon_that_hangs_ends_at_the_deadline(tmp_path: Path, said: bytes) -> None:
    clock, hanging = ManualClock(), asyncio.Event()
    async with daemon(tmp_path, answering(said, hang=hanging)):
        reader = await opened(tmp_path, clock=clock)
        reading = asyncio.create_task(reader.read_device())
        await hanging.wait()
        await clock.advance(1.9)
        assert not reading.done()
        await clock.advance(0.2)
        with pytest.raises(WireGuardError, match="no whole answer within 2 s"):
            await reading


async def test_a_daemon_that_accepts_no_connection_is_an_error(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as server, closing(_client()) as first:
        server.bind(str(tmp_path / "wg0.sock"))
        server.listen(0)
        first.connect(str(tmp_path / "wg0.sock"))
        with pytest.raises(WireGuardError, match="does not take connections"):
            await (await opened(tmp_path)).read_device()


def _client() -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(10)
    return made


async def test_an_endless_answer_is_cut(tmp_path: Path) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _line in range(1000):
            writer.write(b"a=b\n" * 1000)
            await writer.drain()

    async with daemon(tmp_path, serve):
        with pytest.raises(WireGuardError, match="more than 100000 bytes"):
            await (await opened(tmp_path, max_bytes=100_000)).read_device()


async def test_without_a_daemon_the_reason_says_so(tmp_path: Path) -> None:
    absent = await userspace.open("wg0", directory=tmp_path)
    assert absent == Absent(f"{tmp_path}/wg0.sock: No such file or directory")
    (tmp_path / "wg0.sock").touch()
    absent = await userspace.open("wg0", directory=tmp_path)
    assert absent == Absent(f"{tmp_path}/wg0.sock: not a socket")
    assert isinstance(await userspace.open("../wg0", directory=tmp_path), Absent)


async def test_a_socket_that_was_left_behind_is_absence(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(tmp_path / "wg0.sock"))
    absent = await (await opened(tmp_path)).read_device()
    assert absent == Absent(f"{tmp_path}/wg0.sock: Connection refused")


async def test_a_daemon_that_returns_is_read_again(tmp_path: Path) -> None:
    async with daemon(tmp_path, answering(ANSWER[:50])):
        reader = await opened(tmp_path)
        with pytest.raises(WireGuardError):
            await reader.read_device()
    (tmp_path / "wg0.sock").unlink(missing_ok=True)
    async with daemon(tmp_path, answering(ANSWER)):
        assert await reader.read_device() == Device("wg0", PEERS)


async def test_a_cancelled_reading_leaves_nothing_open(tmp_path: Path) -> None:
    hanging = asyncio.Event()
    async with daemon(tmp_path, answering(b"", hang=hanging)):
        reading = asyncio.create_task((await opened(tmp_path)).read_device())
        await hanging.wait()
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()
