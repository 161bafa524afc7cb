"""Kernels and sandboxes that lack what others have."""

from __future__ import annotations

import errno
import os
import socket

import pytest

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


def test_a_kernel_that_does_not_count_drops_has_dropped_none() -> None:
    sock = socket.socket()
    sock.close()  # every question to it is an error
    assert EchoSocket(sock, 1, b"", is_raw=True, has_header=True, request=8, reply=0).drops() == 0
