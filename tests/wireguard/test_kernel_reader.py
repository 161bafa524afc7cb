"""Conversations with the kernel: what is asked again, what is absent, what is an error."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from errno import (
    EAFNOSUPPORT,
    EINTR,
    EIO,
    EMFILE,
    ENOBUFS,
    ENODEV,
    ENOENT,
    EOPNOTSUPP,
    EPERM,
    EPROTONOSUPPORT,
)
from typing import TYPE_CHECKING

import pytest

from plexd.metrics.testing import ManualClock
from plexd.wireguard import Absent, Device, WireGuardError, kernel
from plexd.wireguard.kernel import DUMPS, Conversation, KernelReader
from wireguard.fakes import ScriptedKernel
from wireguard.messages import INTERRUPTED, device, done, dump, family, message, peer, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.usefixtures("nothing_leaks")

PEERS = tuple(peer(i, rx=i) for i in range(1, 4))
Scripted = Callable[..., ScriptedKernel]


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    made = []

    def make(*scripts: Sequence[bytes] | OSError) -> ScriptedKernel:
        made.append(ScriptedKernel(*scripts))
        return made[-1]

    yield make
    for one in made:
        one.close()


async def read(source: ScriptedKernel, interface: str = "wg0") -> Device | Absent:
    reader = await kernel.open(interface, connect=source.connect, clock=ManualClock())
    return reader if isinstance(reader, Absent) else await reader.read_device()


async def test_a_device_is_read_by_name(scripted: Scripted) -> None:
    source = scripted([family()], dump(PEERS))
    assert await read(source) == Device("wg0", PEERS)
    assert [b"wireguard\0" in request for request in source.asked()] == [True, False]


async def test_the_request_names_the_interface_and_the_family(scripted: Scripted) -> None:
    source = scripted([family(77)], dump(PEERS))
    await read(source)
    request = source.asked()[1]
    assert request[4] == 77
    assert request.endswith(b"wg0\0")


@pytest.mark.parametrize(
    "bad",
    [
        [device([], flags=INTERRUPTED), done()],
        [refusal(EINTR)],
        [b"\x10\0\0"],
        [bytes(70_000)],
        OSError(ENOBUFS, "No buffer space available"),
    ],
    ids=["interrupted", "eintr", "garbage", "cut", "overrun"],
)
async def test_a_dump_that_cannot_be_trusted_is_asked_for_again(
    scripted: Scripted, bad: Sequence[bytes] | OSError
) -> None:
    source = scripted([family()], bad, bad, dump(PEERS))
    assert await read(source) == Device("wg0", PEERS)


async def test_nothing_of_a_spoilt_dump_is_used(scripted: Scripted) -> None:
    spoilt = [*dump([peer(9)])[:-1], done(flags=INTERRUPTED)]
    assert await read(scripted([family()], spoilt, dump(PEERS))) == Device("wg0", PEERS)


async def test_an_interface_that_keeps_changing_is_an_error_after_a_number_of_dumps(
    scripted: Scripted,
) -> None:
    source = scripted([family()], [device([], flags=INTERRUPTED), done()])
    with pytest.raises(WireGuardError, match=f"asked {DUMPS} times in vain: the interface changed"):
        await read(source)
    assert source.conversations == DUMPS + 1


@pytest.mark.parametrize(
    ("scripts", "reason"),
    [
        ([[refusal(ENOENT)]], "modprobe wireguard"),
        ([OSError(EAFNOSUPPORT, "")], "no netlink"),
        ([OSError(EPROTONOSUPPORT, "")], "no generic netlink"),
        ([[family()], [refusal(ENODEV)]], "no such interface"),
        ([[family()], [refusal(EOPNOTSUPP)]], "not one of the kernel's WireGuard"),
        ([[family()], [refusal(EPERM)]], "CAP_NET_ADMIN"),
        ([[family()], [refusal(ENOENT)]], "modprobe wireguard"),
        ([[family()], [device([]), done(-ENODEV)]], "no such interface"),
    ],
)
async def test_what_is_not_there_is_a_value_with_a_reason(
    scripted: Scripted, scripts: list[Sequence[bytes] | OSError], reason: str
) -> None:
    absent = await read(scripted(*scripts))
    assert isinstance(absent, Absent)
    assert reason in absent.reason


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "a:b", "sixteen-bytes-xx", "nul\0"])
async def test_a_name_no_interface_can_have_is_absent(name: str) -> None:
    absent = await kernel.open(name)
    assert isinstance(absent, Absent)
    assert "no interface can be called" in absent.reason


async def test_an_interface_that_returns_is_read_again(scripted: Scripted) -> None:
    source = scripted([family()], [refusal(ENODEV)], [family(99)], dump(PEERS))
    assert isinstance(await read(source), Absent)
    assert await read(source) == Device("wg0", PEERS)


@pytest.mark.parametrize(
    ("scripts", "reason"),
    [
        ([OSError(EMFILE, os.strerror(EMFILE))], "Too many open files"),
        ([[refusal(EIO)]], os.strerror(EIO)),
        ([[message(2, b"\0\0\0\x80")]], "Unknown error"),
        ([[message(0x10, bytes(4), 0)]], "has no number"),
        ([[message(0x11, bytes(4), 0)]], "has no number"),
    ],
)
async def test_other_failures_are_errors(
    scripted: Scripted, scripts: list[Sequence[bytes] | OSError], reason: str
) -> None:
    with pytest.raises(WireGuardError, match=reason):
        await read(scripted(*scripts))


async def test_a_kernel_that_does_not_answer_ends_at_the_deadline(scripted: Scripted) -> None:
    clock = ManualClock()
    source = scripted([family()], dump(PEERS)[:-1])
    reader = await kernel.open("wg0", connect=source.connect, clock=clock)
    assert isinstance(reader, KernelReader)
    reading = asyncio.create_task(reader.read_device())
    await clock.advance(1.9)
    assert not reading.done()
    await clock.advance(0.2)
    with pytest.raises(WireGuardError, match="no answer within 2 s"):
        await reading


async def test_a_closed_socket_is_no_endless_loop(scripted: Scripted) -> None:
    source = scripted([family()], [])
    reader = await kernel.open("wg0", connect=source.connect, clock=ManualClock())
    assert isinstance(reader, KernelReader)
    reading = asyncio.create_task(reader.read_device())
    for _ in range(200):
        await asyncio.sleep(0)
        source.close()
    with pytest.raises(WireGuardError):
        await reading


async def test_a_big_dump_lets_other_tasks_run(scripted: Scripted) -> None:
    source = scripted([family()], dump([peer(i) for i in range(1, 2001)]))
    reading = asyncio.create_task(read(source))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 20


async def test_what_was_received_is_wiped(scripted: Scripted) -> None:
    source = scripted(dump(PEERS))
    with Conversation(source.connect) as conversation:
        received = await conversation.receive()
        assert any(received)
    assert not any(received)


async def test_this_machines_kernel_answers() -> None:
    """Whatever it has, an interface of that name it has not."""
    reader = await kernel.open("plexd-no-such")
    absent = reader if isinstance(reader, Absent) else await reader.read_device()
    assert isinstance(absent, Absent)
