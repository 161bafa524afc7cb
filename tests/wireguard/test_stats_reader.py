"""From devices and peers to the tunnels of the wire."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from plexd.api import Peer
from plexd.metrics.testing import ManualClock
from plexd.wireguard import (
    DevicePeer,
    PeerIndex,
    WireGuardError,
    WireGuardStatsReader,
    userspace,
)
from wireguard.fakes import ScriptedKernel, answering, daemon
from wireguard.messages import done, dump, family, key, peer, refusal, uapi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("nothing_leaks")

ENOENT, ENODEV, EPERM = 2, 19, 1
NOW = ManualClock().now()
NOW_NANO = int(NOW.timestamp()) * 10**9
SECOND = 10**9
ALICE, BOB = Peer("alice", key(1), "10.0.0.1"), Peer("bob", key(2), "10.0.0.2")


@pytest.fixture
def no_kernel() -> Iterator[ScriptedKernel]:
    source = ScriptedKernel([refusal(ENOENT)])
    yield source
    source.close()


class Bench:
    """A reader of ``wg0`` served by a daemon in ``directory``, unless the kernel has it."""

    def __init__(self, directory: Path, source: ScriptedKernel, *peers: Peer) -> None:
        self.index = PeerIndex(peers)
        self.clock = ManualClock()
        self.directory = directory
        self.source = source

    def reader(self, **options: Callable[[str], float]) -> WireGuardStatsReader:
        return WireGuardStatsReader(
            "wg0",
            self.index,
            loss=options.get("loss"),
            clock=self.clock,
            connect=self.source.connect,
            directory=self.directory,
        )


@pytest.fixture
def bench(tmp_path: Path, no_kernel: ScriptedKernel) -> Bench:
    return Bench(tmp_path, no_kernel, BOB, ALICE)


async def test_every_field_is_filled(bench: Bench) -> None:
    one = peer(1, handshake_nano=NOW_NANO - 30 * SECOND, rx=5, tx=6)
    async with daemon(bench.directory, answering(uapi([one]))):
        (stats,) = await bench.reader(loss={"alice": 12.5}.__getitem__).read_tunnel_stats()
    assert stats.peer_id == "alice"
    assert stats.last_handshake_time == NOW - timedelta(seconds=30)
    assert (stats.rx_bytes, stats.tx_bytes) == (5, 6)
    assert (stats.handshake_succeeded, stats.handshake_stale) == (True, False)
    assert stats.packet_loss_percent == 12.5


async def test_a_peer_without_a_handshake_has_the_zero_time(bench: Bench) -> None:
    async with daemon(bench.directory, answering(uapi([peer(1)]))):
        (stats,) = await bench.reader().read_tunnel_stats()
    assert stats.last_handshake_time == datetime(1, 1, 1, tzinfo=UTC)
    assert (stats.handshake_succeeded, stats.handshake_stale) == (False, False)
    assert stats.packet_loss_percent == -1


@pytest.mark.parametrize(("age", "stale"), [(0, False), (180, False), (181, True), (10**6, True)])
async def test_a_handshake_is_stale_after_three_minutes(
    bench: Bench, age: int, stale: bool
) -> None:
    one = peer(1, handshake_nano=NOW_NANO - age * SECOND)
    async with daemon(bench.directory, answering(uapi([one]))):
        (stats,) = await bench.reader().read_tunnel_stats()
    assert stats.handshake_succeeded
    assert stats.handshake_stale is stale


@pytest.mark.parametrize("ahead", [1, 86_400, 2**33, 10**15])
async def test_a_handshake_in_the_future_was_just_now(bench: Bench, ahead: int) -> None:
    one = peer(1, handshake_nano=NOW_NANO + ahead * SECOND)
    async with daemon(bench.directory, answering(uapi([one]))):
        (stats,) = await bench.reader().read_tunnel_stats()
    assert stats.last_handshake_time == NOW
    assert (stats.handshake_succeeded, stats.handshake_stale) == (True, False)


async def test_known_peers_come_in_the_indexs_order_and_strangers_by_key(bench: Bench) -> None:
    async with daemon(bench.directory, answering(uapi([peer(i) for i in (9, 1, 7, 2)]))):
        stats = await bench.reader().read_tunnel_stats()
    assert [one.peer_id for one in stats] == ["bob", "alice", key(7), key(9)]


async def test_peers_missing_on_the_interface_are_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    reader = bench.reader()
    async with daemon(bench.directory, answering(uapi([peer(1)]))):
        readings = [await reader.read_tunnel_stats() for _ in range(3)]
    assert [[one.peer_id for one in stats] for stats in readings] == [["alice"]] * 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "peers missing on the interface"
    assert vars(record)["peer_id"] == "bob"
    assert vars(record)["count"] == 1


async def test_the_kernels_interface_goes_before_the_daemons(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = ScriptedKernel([family()], dump([peer(1, rx=1)]))
    request.addfinalizer(source.close)
    bench = Bench(tmp_path, source, ALICE)
    async with daemon(tmp_path, answering(uapi([peer(1, rx=2)]))):
        (stats,) = await bench.reader().read_tunnel_stats()
    assert stats.rx_bytes == 1


async def test_an_interface_that_vanished_and_returned_is_read_again(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    there: Sequence[Sequence[bytes]] = [[family()], dump([peer(1, rx=3)])]
    source = ScriptedKernel(*there, [family()], [refusal(ENODEV)], *there)
    request.addfinalizer(source.close)
    reader = Bench(tmp_path, source, ALICE).reader()
    assert len(await reader.read_tunnel_stats()) == 1
    with pytest.raises(
        WireGuardError, match=r"wg0: kernel: no such interface; userspace: .*\.sock"
    ):
        await reader.read_tunnel_stats()
    assert len(await reader.read_tunnel_stats()) == 1


async def test_where_nothing_can_be_read_both_reasons_are_given(bench: Bench) -> None:
    with pytest.raises(WireGuardError, match=r"modprobe wireguard\); userspace: .*No such file"):
        await bench.reader().read_tunnel_stats()


async def test_without_the_right_the_reason_names_it(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = ScriptedKernel([family()], [refusal(EPERM)])
    request.addfinalizer(source.close)
    with pytest.raises(WireGuardError, match="CAP_NET_ADMIN"):
        await Bench(tmp_path, source).reader().read_tunnel_stats()


async def test_a_source_that_fails_is_not_hidden_by_the_other(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = ScriptedKernel([family()], [done()])
    request.addfinalizer(source.close)
    async with daemon(tmp_path, answering(uapi([peer(1)]))):
        with pytest.raises(WireGuardError, match="netlink: asked"):
            await Bench(tmp_path, source).reader().read_tunnel_stats()


async def test_a_thousand_peers_keep_their_names_and_numbers(bench: Bench) -> None:
    many = [peer(i, rx=i, tx=2 * i) for i in range(1, 1001)]
    bench.index.load([Peer(f"p{i}", key(i), f"10.0.{i // 256}.{i % 256}") for i in range(1, 1001)])
    async with daemon(bench.directory, answering(uapi(many[::-1]))):
        stats = await bench.reader().read_tunnel_stats()
    assert [(s.peer_id, s.rx_bytes, s.tx_bytes) for s in stats] == [
        (f"p{i}", i, 2 * i) for i in range(1, 1001)
    ]


def test_a_handshake_time_is_a_moment_or_none() -> None:
    assert peer(1).last_handshake is None
    assert DevicePeer(key(1), None, -5, 0, 0).last_handshake is None
    assert peer(1, 1_000_000_999).last_handshake == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert peer(1, 2**80).last_handshake == datetime.max.replace(tzinfo=UTC)


async def test_an_odd_peer_is_named_once_and_the_others_are_read(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    text = uapi([peer(1), peer(2)]).replace(b"tx_bytes=0", b"tx_bytes=-1", 1)
    reader = bench.reader()
    async with daemon(bench.directory, answering(text)):
        for _ in range(3):
            (stats,) = await reader.read_tunnel_stats()
            assert stats.peer_id == "bob"
    (line,) = caplog.records
    assert line.getMessage() == "peers not readable"
    assert (line.__dict__["peer_id"], line.__dict__["count"]) == ("alice", 1)
    assert line.__dict__["error"] == "tx_bytes is no counter of 64 bits: -1"


async def test_the_sockets_of_every_daemon_are_looked_for(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = tmp_path / "wireguard", tmp_path / "amneziawg"
    for directory in directories:
        directory.mkdir()
    monkeypatch.setattr(userspace, "DIRECTORIES", tuple(map(str, directories)))
    reader = WireGuardStatsReader("wg0", bench.index, connect=bench.source.connect)
    with pytest.raises(WireGuardError, match=r"/wireguard/wg0\.sock: .*, .*/amneziawg/wg0\.sock: "):
        await reader.read_tunnel_stats()
    async with daemon(directories[1], answering(uapi([peer(1)]))):
        (stats,) = await reader.read_tunnel_stats()
    assert stats.peer_id == "alice"
