"""Thousands of sockets that begin a TLS handshake and stop, and what they cost a real server.

Sockets of one kind are opened, held until the server has closed them, and watched from outside: the
server's resident memory, its descriptors, and how long another client waits for an answer over a
connection of its own, from another address.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from server.running import running
from support.tls import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from server.running import Running

__all__ = ["KINDS", "Cost", "Watched", "crowd", "secure_server", "stop_handshakes"]

_PATIENCE_SECONDS = 90.0
_CALM_SECONDS = 7.0
_PAUSE_SECONDS = 0.05
_CROWD = "127.0.0.2"
_OTHER = "127.0.0.3"


class Cost(NamedTuple):
    """What sockets of one kind cost the server, in KiB and seconds."""

    kind: str
    sockets: int
    before: int
    most: int
    after: int
    longest_wait: float
    closed_after: float


def _client_hello() -> bytes:
    to_server = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), to_server, server_hostname="plane.example")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return to_server.read()


_HELLO = _client_hello()
KINDS = {
    "silent": b"",
    "half a first message": _HELLO[: len(_HELLO) // 2],
    "16 KiB of a first message": b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + bytes(16_000),
    "a whole first message, then nothing": _HELLO,
    "a first message in two records": _HELLO[:3] + b"\x00\x20" + _HELLO[5:37],
    "a first message that is garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + b"\x01" * 508,
    "a first message that says it has 128 KiB": b"\x16\x03\x01\x02\x00\x01\x02\x00\x00"
    + bytes(508),
}
DONE = "a whole handshake, then nothing"


class Watched:
    """A server's process from outside."""

    def __init__(self, server: Running) -> None:
        self._proc = Path(f"/proc/{server.process.pid}")
        self.port = server.port

    def resident_kib(self) -> int:
        status = (self._proc / "status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def descriptors(self) -> int:
        return len([*(self._proc / "fd").iterdir()])


@contextmanager
def secure_server(directory: Path) -> Iterator[tuple[Watched, ssl.SSLContext]]:
    """A server with TLS in a process of its own, and what a client of it trusts."""
    authority = Authority.make(directory)
    chain, key = directory / "chain.pem", directory / "key.pem"
    issued = authority.ca.issue_cert("127.0.0.1")
    chain.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    key.chmod(0o600)
    trusted = ssl.create_default_context(cafile=str(authority.ca_file))
    with running(directory / "data", "--tls-cert", chain, "--tls-key", key) as server:
        yield Watched(server), trusted


def crowd(
    stack: ExitStack,
    port: int,
    sockets: int,
    beginning: bytes,
    secure: ssl.SSLContext | None = None,
) -> list[socket.socket]:
    """Open so many sockets, each with this beginning, or each with a whole handshake."""
    made = []
    for _ in range(sockets):
        one = stack.enter_context(_connected(port, _CROWD))
        with suppress(OSError):  # it was cut off already
            one.sendall(beginning)
            if secure is not None:
                one = stack.enter_context(secure.wrap_socket(one, server_hostname="127.0.0.1"))
        made.append(one)
    return made


def stop_handshakes(directory: Path, sockets: int) -> Iterator[Cost]:
    """Open so many sockets of each kind, each kind on a server of its own."""
    for number, kind in enumerate([*KINDS, DONE]):
        place = directory / str(number)
        place.mkdir()
        with secure_server(place) as (server, trusted):
            _ask(server.port, trusted)
            secure = trusted if kind == DONE else None
            yield _measure(kind, server, trusted, sockets, KINDS.get(kind, b""), secure)


def _measure(
    kind: str,
    server: Watched,
    trusted: ssl.SSLContext,
    sockets: int,
    beginning: bytes,
    secure: ssl.SSLContext | None,
) -> Cost:
    before, calm = server.resident_kib(), server.descriptors()
    with _Other(server, trusted) as other, ExitStack() as stack:
        held = crowd(stack, server.port, sockets, beginning, secure)
        opened = time.monotonic()
        _wait_until_all_are_closed(held)
        closed_after = time.monotonic() - opened
    _wait_until(lambda: server.descriptors() <= calm)
    time.sleep(_CALM_SECONDS)
    after = server.resident_kib()
    return Cost(kind, sockets, before, other.most_kib, after, other.longest_wait, closed_after)


class _Other:
    """A client that asks again and again over connections of its own; notes memory and waits."""

    def __init__(self, server: Watched, trusted: ssl.SSLContext) -> None:
        self._server = server
        self._trusted = trusted
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._watch, self._ask)]
        self.most_kib = 0
        self.longest_wait = 0.0

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for each in self._threads:
            each.join()

    def _watch(self) -> None:
        while not self._is_over.wait(_PAUSE_SECONDS):
            self.most_kib = max(self.most_kib, self._server.resident_kib())

    def _ask(self) -> None:
        while not self._is_over.wait(_PAUSE_SECONDS):
            began = time.monotonic()
            _ask(self._server.port, self._trusted)
            self.longest_wait = max(self.longest_wait, time.monotonic() - began)


def _ask(port: int, trusted: ssl.SSLContext) -> None:
    with (
        _connected(port, _OTHER) as plain,
        trusted.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert secure.recv(1000).startswith(b"HTTP/1.1 200")


def _connected(port: int, source: str) -> socket.socket:
    address = ("127.0.0.1", port)
    return socket.create_connection(address, _PATIENCE_SECONDS, source_address=(source, 0))


def _wait_until_all_are_closed(held: list[socket.socket]) -> None:
    poll = select.poll()
    for one in held:
        poll.register(one, select.POLLRDHUP)
    left, give_up = len(held), time.monotonic() + _PATIENCE_SECONDS
    while left:
        assert time.monotonic() < give_up, f"{left} connections are still open"
        for descriptor, _ in poll.poll(1000):
            poll.unregister(descriptor)
            left -= 1


def _wait_until(is_true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while not is_true():
        assert time.monotonic() < give_up
        time.sleep(_PAUSE_SECONDS)
