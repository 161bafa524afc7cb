"""The reader's sockets, which keep what the kernel sent."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from plexd.wireguard.kernel import netlink_socket

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Recorder"]


class RecordingSocket(socket.socket):
    """Keeps what is received; ``after_first`` is called once, after the first datagram."""

    datagrams: list[bytes]
    after_first: Callable[[], object] | None = None

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        size = super().recv_into(buffer, nbytes, flags)
        self.datagrams.append(bytes(memoryview(buffer)[:size]))
        if self.after_first is not None and len(self.datagrams) == 1:
            self.after_first()
        return size


class Recorder:
    """Makes the reader's sockets; ``interrupt`` interrupts the second of them."""

    def __init__(self, interrupt: Callable[[], object] | None = None) -> None:
        self.conversations: list[list[bytes]] = []
        self._interrupt = interrupt

    def connect(self) -> socket.socket:
        made = RecordingSocket(fileno=netlink_socket().detach())
        made.datagrams = []
        if len(self.conversations) == 1:
            made.after_first = self._interrupt
        self.conversations.append(made.datagrams)
        return made
