"""A daemon on a real socket that answers well, badly or not at all."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plexd.metrics.testing import ManualClock
from plexd.wireguard import Absent, Device, DevicePeer, WireGuardError, userspace
from plexd.wireguard.device import OddPeer
from plexd.wireguard.uapi import parse_answer
from plexd.wireguard.userspace import UserspaceReader
from wireguard.fakes import answering, daemon
from wireguard.messages import PRESHARED, PRIVATE, key, peer, spellings, uapi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("nothing_leaks")

PEERS = (
    peer(1, handshake_nano=1_700_000_000_123_456_789, rx=5, tx=2**64 - 1),
    DevicePeer(key(2), None, 0, 0, 0),
    DevicePeer(key(3), "[fd00::3]:51820", 0, 7, 8),
)
ANSWER = uapi(PEERS)
NOW_NANO = 1_767_225_600 * 10**9
GOLDEN = Path(__file__).parent.parent / "golden" / "uapi"
# As boringtun orders it, with a line of a newer version.
OTHER_ORDER = (
    f"own_public_key={'00' * 32}\nlisten_port=1\nnew_thing=\n"
    f"public_key={'00' * 31}01\nrx_bytes=5\ntx_bytes=6\nallowed_ip=10.0.0.1/32\n"
    f"last_handshake_time_nsec=0\nlast_handshake_time_sec=1\nerrno=0\n\n"
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
    expected = (DevicePeer(key(1), None, NOW_NANO - 10**9, 5, 6),)
    assert parse_answer("wg0", OTHER_ORDER, now_nano=NOW_NANO) == Device("wg0", expected)


def test_a_key_in_capitals_is_the_same_key() -> None:
    twice = uapi([peer(10), peer(11)]).replace(b"0b\npreshared", b"0A\npreshared")
    read = parse_answer("wg0", twice, now_nano=NOW_NANO)
    assert read == Device("wg0", (peer(10),), (OddPeer(key(10), "the answer has this peer twice"),))


@pytest.mark.parametrize("name", ["wireguard-go", "boringtun", "amneziawg-go", "documented"])
def test_every_daemon_means_what_its_answer_means(name: str) -> None:
    read = parse_answer("wg0", (GOLDEN / f"{name}.txt").read_bytes(), now_nano=NOW_NANO)
    peers = {one.public_key: one for one in read.peers}
    assert read.odd == ()
    assert peers[key(1)].last_handshake_nano == NOW_NANO - 29_500_000_000
    assert peers[key(2)].last_handshake_nano <= 0
    assert peers[key(2)].tx_bytes == 296
    assert peers[key(1)].rx_bytes == (0 if name == "documented" else 92)


@pytest.mark.parametrize(
    ("handshake", "nano"),
    [
        (b"", 0),
        (b"last_handshake_time_sec=7\n", 7 * 10**9),
        (b"last_handshake_time_nsec=7\n", 7),
        # A Go program's zero time.
        (b"last_handshake_time_sec=-62135596800\n", -62135596800 * 10**9),
    ],
)
def test_a_peer_may_lack_everything_but_its_key(handshake: bytes, nano: int) -> None:
    text = b"public_key=" + b"00" * 31 + b"01\n" + handshake + b"errno=0\n\n"
    expected = (DevicePeer(key(1), None, nano, 0, 0),)
    assert parse_answer("wg0", text, now_nano=NOW_NANO) == Device("wg0", expected)


def test_boringtuns_age_is_counted_back_and_a_time_is_a_time() -> None:
    text = (GOLDEN / "boringtun.txt").read_bytes()
    time = text.replace(b"time_sec=29", b"time_sec=1767225570")
    assert parse_answer("wg0", time, now_nano=NOW_NANO) == parse_answer(
        "wg0", text, now_nano=NOW_NANO
    )
    just_now = text.replace(b"time_sec=29", b"time_sec=0").replace(b"nsec=5", b"nsec=0")
    peers = parse_answer("wg0", just_now, now_nano=NOW_NANO).peers
    assert peers[1].last_handshake_nano == NOW_NANO


def test_an_interface_without_peers_is_a_device() -> None:
    assert parse_answer("wg0", uapi([]), now_nano=NOW_NANO) == Device("wg0")
    assert parse_answer("wg0", b"errno=0\n\n", now_nano=NOW_NANO) == Device("wg0")


@pytest.mark.parametrize("text", [*spellings(PRIVATE), *spellings(PRESHARED)])
def test_secret_keys_are_nowhere_in_what_is_read(text: str) -> None:
    other_order = ANSWER.replace(b"listen_port", b"new_thing=\nlisten_port")
    assert text not in repr(parse_answer("wg0", ANSWER, now_nano=NOW_NANO))
    assert text not in repr(parse_answer("wg0", other_order, now_nano=NOW_NANO))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"errno=0", b"errno=22", "the daemon refused: Invalid argument"),
        (b"errno=0", b"errno=-13", "the daemon refused: Permission denied"),
        (b"errno=0\n", b"", "does not end with an errno"),
        (b"errno=0", b"errno=zero", "does not end with an errno"),
        (b"listen_port", b"\nlisten_port", "goes on behind its end"),
        (b"listen_port", b"errno=0\nlisten_port", "goes on behind its end"),
        (b"private_key", b"errno=0\nprivate_key", "goes on behind its end"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_error(
    tmp_path: Path, old: bytes, new: bytes, reason: str
) -> None:
    assert old in ANSWER
    async with daemon(tmp_path, answering(ANSWER.replace(old, new, 1) + b"\n\n")):
        with pytest.raises(WireGuardError, match=reason):
            parse_answer("wg0", ANSWER.replace(old, new, 1), now_nano=NOW_NANO)
        with pytest.raises(WireGuardError, match=r"wg0\.sock: "):
            await (await opened(tmp_path)).read_device()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"rx_bytes=7", b"rx_bytes7", "a line that is no key=value"),
        (b"rx_bytes=7", b"rx_bytes=-7", "rx_bytes is no counter of 64 bits: -7"),
        (b"rx_bytes=7", b"rx_bytes=", "rx_bytes is no number: b''"),
        (b"rx_bytes=7", b"rx_bytes=" + b"9" * 5000, "no number"),
        (b"rx_bytes=7", b"rx_bytes=18446744073709551616", "no counter of 64 bits"),
        (b"rx_bytes=7", b"rx_bytes=7\nrx_bytes=8", "rx_bytes comes twice"),
        (b"sec=0\ntx_bytes=8", b"sec=soon\ntx_bytes=8", "last_handshake_time_nsec is no number"),
        (b"03\npreshared", b"01\npreshared", "the answer has this peer twice"),
        (b"03\npreshared", b"0x\npreshared", "peer 3 .* not hexadecimal"),
        (b"0003\npreshared", b"\npreshared", "peer 3 .* has 60 digits"),
    ],
)
def test_an_odd_peer_costs_itself_only(old: bytes, new: bytes, reason: str) -> None:
    assert ANSWER.count(old) == 1
    read = parse_answer("wg0", ANSWER.replace(old, new), now_nano=NOW_NANO)
    assert read.peers == PEERS[:2]
    (odd,) = read.odd
    assert re.search(reason, odd.reason)


@pytest.mark.parametrize("line", [b"new_key=1", b"new.key-2=a b", b"i1=<b 0xf6>", b"x=", b"\xff=1"])
def test_a_line_for_newer_clients_costs_no_peer(line: bytes) -> None:
    newer = ANSWER.replace(b"rx_bytes=7", line + b"\nrx_bytes=7").replace(
        b"fwmark=", line + b"\nfwmark="
    )
    assert parse_answer("wg0", newer, now_nano=NOW_NANO) == Device("wg0", PEERS)


def test_counters_in_front_of_the_first_peer_are_said_to_belong_to_none() -> None:
    odd = ANSWER.replace(b"listen_port=51820", b"rx_bytes=1")
    read = parse_answer("wg0", odd, now_nano=NOW_NANO)
    assert read == Device("wg0", PEERS, (OddPeer("", "rx_bytes belongs to no peer"),))


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
