"""This machine's own netlink, overrun on purpose; it needs no WireGuard for that."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from plexd.wireguard import DumpError, WireGuardError, kernel
from plexd.wireguard.kernel import DUMPS, Conversation, netlink_socket
from plexd.wireguard.netlink import encode_family_request

pytestmark = pytest.mark.usefixtures("nothing_leaks")

MORE_THAN_FITS = 100


def overrun() -> socket.socket:
    """A socket whose queue is so small that the kernel lost answers (``ENOBUFS``)."""
    made = netlink_socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for _ in range(MORE_THAN_FITS):
        made.send(encode_family_request("nlctrl"))
    return made


class Sockets:
    """Overrun ones first, good ones from then on."""

    def __init__(self, overruns: int) -> None:
        self._overruns = overruns
        self.made = 0

    def connect(self) -> socket.socket:
        self.made += 1
        return overrun() if self.made <= self._overruns else netlink_socket()


def test_the_kernel_reports_that_answers_were_lost() -> None:
    with closing(overrun()) as sock, pytest.raises(OSError, match="No buffer space available"):
        sock.recv(65536)


async def test_lost_answers_are_an_error_that_asks_for_another_dump() -> None:
    lost = pytest.raises(DumpError, match="No buffer space available")
    with Conversation(overrun) as conversation, lost:
        await conversation.receive()


async def test_a_reading_starts_over_on_a_socket_of_its_own() -> None:
    sockets = Sockets(overruns=3)
    await kernel.open("plexd-no-such", connect=sockets.connect)
    assert sockets.made == 4


async def test_a_socket_that_is_always_overrun_is_an_error_in_the_end() -> None:
    sockets = Sockets(overruns=1000)
    with pytest.raises(WireGuardError, match=f"asked {DUMPS} times in vain.*No buffer space"):
        await kernel.open("plexd-no-such", connect=sockets.connect)
    assert sockets.made == DUMPS
