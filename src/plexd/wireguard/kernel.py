"""The kernel's WireGuard over generic netlink.

Each reading has a socket of its own and asks for the family's number again. So nothing of an
earlier dump can mix with this one, a module loaded or an interface made since is found, and nothing
is left to close. Both cost less than the dump of a single peer.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Final, Self, TypeVar

from plexd.clock import Clock, SystemClock
from plexd.wireguard.device import Absent, Device, DeviceSource, unusable_name
from plexd.wireguard.dump import DumpParser, encode_dump_request, parse_public_key
from plexd.wireguard.errors import DumpError, RefusedError, WireGuardError
from plexd.wireguard.netlink import encode_family_request, parse_family

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


DEADLINE_SECONDS: Final = 2.0
# An interface that changes during every one of so many dumps is being set up: the next reading
# finds it finished.
DUMPS: Final = 8
# The kernel never puts more than 32 KiB into one datagram of a dump (netlink_recvmsg), so a
# datagram that fills this was cut (MSG_TRUNC).
_BUFFER_BYTES: Final = 65536

_NETLINK_GENERIC: Final = 16  # linux/netlink.h; `socket` does not know it

_T = TypeVar("_T")

_NO_FAMILY: Final = "the kernel has no WireGuard (modprobe wireguard)"
_REASONS: Final = {
    errno.EPERM: (
        "no right to read tunnels: run as root, or give the service CAP_NET_ADMIN "
        "(systemd: AmbientCapabilities= and CapabilityBoundingSet=)"
    ),
    errno.ENODEV: "no such interface",
    errno.EOPNOTSUPP: "the interface is not one of the kernel's WireGuard",
    errno.ENOENT: _NO_FAMILY,
    errno.EAFNOSUPPORT: "no netlink (systemd: RestrictAddressFamilies= has to name AF_NETLINK)",
    errno.EPROTONOSUPPORT: "the kernel has no generic netlink",
    errno.EINVAL: "no such interface",
    errno.ERANGE: "no such interface",
}


def netlink_socket() -> socket.socket:
    """Return a socket that speaks generic netlink with the kernel only."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC)
    made.connect((0, 0))  # a connected netlink socket receives nothing from other programs
    return made


async def open(  # noqa: A001  # the module is the noun: kernel.open()
    interface: str,
    *,
    clock: Clock | None = None,
    connect: Callable[[], socket.socket] = netlink_socket,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> KernelReader | Absent:
    """Return a reader of ``interface``, or why this kernel cannot have one.

    Whether the interface exists is only known when it is read. ``connect`` makes the socket of
    one conversation. Raises `WireGuardError` when there is no valid answer.
    """
    if (unusable := unusable_name(interface)) is not None:
        return unusable
    reader = KernelReader(interface, 0, clock or SystemClock(), connect, deadline_seconds)
    family = await reader.find_family()
    if isinstance(family, Absent):
        return family
    reader.family = family
    return reader


class KernelReader:
    """Reads one interface of the kernel's. Made by `open`; holds nothing that has to be closed."""

    def __init__(
        self,
        interface: str,
        family: int,
        clock: Clock,
        connect: Callable[[], socket.socket],
        deadline_seconds: float,
    ) -> None:
        self.family = family
        self._interface = os.fsencode(interface)
        self._clock = clock
        self._connect = connect
        self._deadline_seconds = deadline_seconds

    async def read_device(self) -> Device | Absent:
        """Return one consistent reading, or why there is nothing to read.

        A dump that was interrupted, overrun (``ENOBUFS``), cut short or damaged is discarded and
        asked for again, `DUMPS` times within `DEADLINE_SECONDS`. Raises `WireGuardError` when
        none of them was whole, and for unexpected errors. Other tasks have their turn after
        every datagram. May be cancelled.
        """
        return await self._ask(self._dump)

    async def read_public_key(self) -> str | Absent:
        """Return the interface's key as ``wg`` prints it, or why it has none. Raises as above."""
        return await self._ask(self._first_of_dump)

    async def find_family(self) -> int | Absent:
        """Return the number of the family ``wireguard``, or why there is none. Raises as above."""
        return await self._ask(self._ask_family)

    async def _ask(self, question: Callable[[Conversation], Awaitable[_T]]) -> _T | Absent:
        try:
            async with self._clock.timeout(self._deadline_seconds):
                return await self._ask_again(question)
        except TimeoutError as err:
            seconds = self._deadline_seconds
            raise WireGuardError(f"netlink: no answer within {seconds:g} s") from err

    async def _ask_again(self, question: Callable[[Conversation], Awaitable[_T]]) -> _T | Absent:
        failure = DumpError("not asked")
        for _ in range(DUMPS):
            try:
                with Conversation(self._connect) as conversation:
                    return await question(conversation)
            except RefusedError as err:
                if err.errno not in _REASONS:
                    raise
                return Absent(_REASONS[err.errno])
            except DumpError as err:
                failure = err
        raise WireGuardError(f"netlink: asked {DUMPS} times in vain: {failure}") from failure

    @staticmethod
    async def _ask_family(conversation: Conversation) -> int:
        conversation.send(encode_family_request("wireguard"))
        return parse_family(await conversation.receive())

    async def _first_of_dump(self, conversation: Conversation) -> str | Absent:
        conversation.send(encode_dump_request(self.family, self._interface))
        key = parse_public_key(await conversation.receive())
        return Absent("the interface has no key yet") if key is None else key

    async def _dump(self, conversation: Conversation) -> Device:
        conversation.send(encode_dump_request(self.family, self._interface))
        parser = DumpParser()
        while not parser.done:
            parser.feed(await conversation.receive())
            await asyncio.sleep(0)
        return parser.device()


class Conversation:
    """A context manager that wipes what was received at its end: dumps carry secret keys."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        try:
            self._socket = connect()
        except OSError as err:
            raise _translated(err) from err
        self._socket.settimeout(0)
        self._buffer = bytearray(_BUFFER_BYTES)
        self._filled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._buffer[: self._filled] = bytes(self._filled)

    def send(self, request: bytes) -> None:
        """Send a request, which the kernel accepts at once or not at all."""
        try:
            self._socket.send(request)
        except OSError as err:
            raise _translated(err) from err

    async def receive(self) -> memoryview:
        """Return one datagram, valid until the next call. Raises `DumpError` if one was lost."""
        loop = asyncio.get_running_loop()
        try:
            size = await loop.sock_recv_into(self._socket, self._buffer)
        except OSError as err:
            raise _translated(err) from err
        self._filled = max(self._filled, size)
        if size in {0, _BUFFER_BYTES}:
            raise DumpError("a netlink datagram is empty or was cut")
        return memoryview(self._buffer)[:size]


def _translated(err: OSError) -> WireGuardError:
    if err.errno in {errno.ENOBUFS, errno.EAGAIN}:
        return DumpError(f"netlink: {err.strerror}")
    if err.errno in {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}:
        return RefusedError(err.errno)
    return WireGuardError(f"netlink: {err.strerror or err}")


if TYPE_CHECKING:
    _: type[DeviceSource] = KernelReader
