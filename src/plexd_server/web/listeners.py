"""Listening sockets: by TCP, at a path (Unix), or handed over by a service manager.

Opening them here rather than in uvicorn gives the real port before anything is served, errors with
an errno, and connections that wait in the kernel until the first request can be answered.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from plexd_server.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

_BACKLOG = 4096  # the kernel's own default limit
_SEND_BUFFER_BYTES = 256 * 1024
_SOCKET_MODE = 0o660  # the proxy connects as a member of the group
_FIRST_INHERITED = 3  # sd_listen_fds(3)
_REMEDIES: Final = {
    errno.EADDRINUSE: "address already in use; choose another",
    errno.EACCES: "permission denied; choose a port above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another",
}


class Address(NamedTuple):
    """A host and a port; the host of an IPv6 address is without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether this is every address of the machine."""
        parsed = self._parsed()
        return not self.host or (parsed is not None and parsed.is_unspecified)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        parsed = self._parsed()
        return self.host == "localhost" or (parsed is not None and parsed.is_loopback)

    def _parsed(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


class UnixPath(NamedTuple):
    """The path of a Unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


def address_of_listener(listening: socket.socket) -> Address | UnixPath:
    """Return where a socket listens."""
    name = listening.getsockname()
    return Address(*name[:2]) if isinstance(name, tuple) else UnixPath(Path(os.fsdecode(name)))


def address_to_reach(listening: socket.socket) -> Address | UnixPath:
    """Return an address at which a program on this machine reaches the socket."""
    address = address_of_listener(listening)
    if isinstance(address, UnixPath) or not address.is_wildcard:
        return address
    only_ipv6 = listening.family == socket.AF_INET6 and listening.getsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    )
    return Address("::1" if only_ipv6 else "127.0.0.1", address.port)


def bind(address: Address | UnixPath) -> socket.socket:
    """Open a listening socket. Raises `StartError` with what to do about it.

    ``[::]`` listens to IPv4 as well. The socket of a server that is gone is removed from its path,
    and the new one is for the owner and the group.
    """
    try:
        made = _bind_path(address) if isinstance(address, UnixPath) else _bind_tcp(address)
    except (OSError, UnicodeError) as err:
        raise StartError(f"cannot listen on {address}: {_reason(err, address)}") from err
    return _prepared(made)


@contextmanager
def listening_on(
    address: Address | UnixPath, environment: MutableMapping[str, str]
) -> Iterator[list[socket.socket]]:
    """Provide the sockets that the environment says were handed over, else one at ``address``.

    They are closed at the end, and a path that was made here is removed. Raises `StartError`.
    """
    listeners = inherited(environment) or [bind(address)]
    own = _inode(address.path) if isinstance(address, UnixPath) else None
    try:
        yield listeners
    finally:
        for each in listeners:
            each.close()
        if isinstance(address, UnixPath) and own is not None and _inode(address.path) == own:
            address.path.unlink(missing_ok=True)


def inherited(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that a service manager handed over (sd_listen_fds(3)).

    The variables that say so are removed: they are not for the programs that this one starts.
    Raises `StartError` if one of the descriptors is no listening socket.
    """
    process, count = (environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS"))
    environment.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not count.isdecimal():
        return []
    numbers = range(_FIRST_INHERITED, _FIRST_INHERITED + int(count))
    return [_prepared(_adopt(number)) for number in numbers]


def _adopt(number: int) -> socket.socket:
    try:
        adopted = socket.socket(fileno=number)
    except OSError as err:
        raise StartError(f"descriptor {number} of LISTEN_FDS is no socket: {err.strerror}") from err
    is_stream = adopted.type == socket.SOCK_STREAM
    if not is_stream or not adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise StartError(
            f"descriptor {number} of LISTEN_FDS is no listening stream socket; "
            "use ListenStream= and Accept=no"
        )
    adopted.set_inheritable(False)
    return adopted


def _bind_tcp(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    both = family == socket.AF_INET6 and address.is_wildcard and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)


def _bind_path(address: UnixPath) -> socket.socket:
    _remove_stale(address.path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(os.fspath(address.path))
        address.path.chmod(_SOCKET_MODE)
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _remove_stale(path: Path) -> None:
    """Remove the socket of a server that is gone; anything else stays."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode) and not _is_served(path):
            path.unlink()


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 -- the socket module's own name for it
        return probe.connect_ex(os.fspath(path)) != errno.ECONNREFUSED


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _prepared(listening: socket.socket) -> socket.socket:
    """Set what connections inherit."""
    # The kernel would take megabytes of an answer that nobody reads.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if listening.family != socket.AF_UNIX:
        # Without it an answer's body waits up to 40 ms for the client to acknowledge its head.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setblocking(False)  # noqa: FBT003 -- the socket module's own name for it
    return listening


def _reason(err: OSError | UnicodeError, address: Address | UnixPath) -> str:
    if isinstance(address, UnixPath):
        return f"{getattr(err, 'strerror', None) or err}; choose another path with --listen"
    if isinstance(err, UnicodeError) or (err.errno or 0) < 0:  # a resolver's number
        return "no such host; give an address of this machine with --listen"
    other = f"{os.strerror(err.errno or errno.EINVAL)}; choose another address"
    return f"{_REMEDIES.get(err.errno or 0, other)} with --listen"
