"""Kernels and sandboxes that lack what others have."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from plexd.icmp import ICMPPinger
from plexd.icmp.errors import SocketError
from plexd.icmp.sockets import EchoSocket, open_socket


def refusing(*errors: int) -> type[socket.socket]:
    """Return a socket type of which the first ones fail with ``errors``."""
    left = list(errors)

    class RefusedSocket(socket.socket):
        def __init__(self, *args: int, **options: int) -> None:
            if left:
                number = left.pop(0)
                raise OSError(number, os.strerror(number))
            super().__init__(*args, **options)

    return RefusedSocket


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets need root")
def test_any_failure_of_the_datagram_socket_leads_to_the_raw_one(
    monkeypatch: pytest.MonkeyPatch, number: int, family: socket.AddressFamily
) -> None:
    monkeypatch.setattr(socket, "socket", refusing(number))
    echo = open_socket(family)
    assert echo.is_raw
    echo.sock.close()


def test_the_failure_of_the_last_try_is_the_one_that_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "socket", refusing(errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT))
    with pytest.raises(SocketError, match="IPv6 echo: Address family not supported"):
        open_socket(socket.AF_INET6)
    monkeypatch.setattr(socket, "socket", refusing(errno.EPROTONOSUPPORT, errno.EPERM))
    with pytest.raises(SocketError, match="IPv4 echo: no permission to open a socket: allow"):
        open_socket(socket.AF_INET)


class BareSocket(socket.socket):
    """A socket of a sandbox that knows no options."""

    def setsockopt(self, *_: object) -> None:
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))


@pytest.mark.parametrize("is_raw", [False, True])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets need root")
async def test_a_sandbox_without_any_socket_options_is_no_hindrance(
    monkeypatch: pytest.MonkeyPatch, address: str, *, is_raw: bool
) -> None:
    class OneKindSocket(BareSocket):
        def __init__(self, family: int = -1, kind: int = -1, *rest: int, **more: int) -> None:
            if is_raw and kind & ~socket.SOCK_NONBLOCK == socket.SOCK_DGRAM:
                raise OSError(errno.EPROTONOSUPPORT, "no datagrams")
            super().__init__(family, kind, *rest, **more)

    async with ICMPPinger(lambda peer: peer) as pinger:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", OneKindSocket)
            assert await pinger.ping(address) > 0
        assert await pinger.ping(address) > 0
        assert pinger.statistics().lost == 0


def test_a_kernel_that_does_not_count_drops_has_dropped_none() -> None:
    sock = socket.socket()
    sock.close()  # every question to it is an error
    assert EchoSocket(sock, 1, b"", is_raw=True, has_header=True, request=8, reply=0).drops() == 0
