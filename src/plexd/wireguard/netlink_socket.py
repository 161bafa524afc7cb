"""One socket to the kernel, for one question and its answer."""

from __future__ import annotations

import asyncio
import socket
from errno import EAFNOSUPPORT, EAGAIN, ENOBUFS, EPROTONOSUPPORT
from typing import TYPE_CHECKING, Final, Self

from plexd.wireguard.errors import DumpError, RefusedError, WireGuardError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# The kernel never puts more than 32 KiB into one datagram of a dump (netlink_recvmsg), so a
# datagram that fills this was cut (MSG_TRUNC).
_BUFFER_BYTES: Final = 65536

_NETLINK_GENERIC: Final = 16  # linux/netlink.h; `socket` does not know it


def netlink_socket() -> socket.socket:
    """Return a socket that speaks generic netlink with the kernel only."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC)
    made.connect((0, 0))  # a connected netlink socket receives nothing from other programs
    return made


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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
    if err.errno in {ENOBUFS, EAGAIN}:
        return DumpError(f"netlink: {err.strerror}")
    if err.errno in {EAFNOSUPPORT, EPROTONOSUPPORT}:
        return RefusedError(err.errno)
    return WireGuardError(f"netlink: {err.strerror or err}")
