"""A userspace WireGuard (wireguard-go and others) over the socket it serves for ``wg``."""

from __future__ import annotations

import asyncio
import socket
import stat
from contextlib import closing
from errno import ENOTCONN
from pathlib import Path
from typing import TYPE_CHECKING, Final

from plexd.clock import Clock, SystemClock
from plexd.wireguard.device import Absent, Device, DeviceSource, unusable_name
from plexd.wireguard.errors import WireGuardError
from plexd.wireguard.uapi import GET, is_whole, parse_answer

if TYPE_CHECKING:
    import os


DEADLINE_SECONDS: Final = 2.0
# wireguard-go and boringtun; amneziawg-go.
DIRECTORIES: Final = ("/var/run/wireguard", "/var/run/amneziawg")
# 10,000 peers with fifty networks each, twice over.
MAX_BYTES: Final = 32 * 1024 * 1024

_CHUNK_BYTES: Final = 256 * 1024


async def open(  # noqa: A001  # the module is the noun; awaited like the kernel's
    interface: str,
    *,
    directory: str | os.PathLike[str] = DIRECTORIES[0],
    clock: Clock | None = None,
    max_bytes: int = MAX_BYTES,
) -> UserspaceReader | Absent:
    """Return a reader of ``interface``, or why no daemon serves it, by ``directory``'s sockets."""
    if (unusable := unusable_name(interface)) is not None:
        return unusable
    path = Path(directory) / f"{interface}.sock"
    try:
        served = stat.S_ISSOCK(path.stat().st_mode)
    except OSError as err:
        return Absent(f"{path}: {err.strerror}")
    if not served:
        return Absent(f"{path}: not a socket")
    return UserspaceReader(interface, path, clock or SystemClock(), max_bytes)


class UserspaceReader:
    """Asks one daemon. Made by `open`; each reading has a connection of its own."""

    def __init__(self, interface: str, path: Path, clock: Clock, max_bytes: int) -> None:
        self._interface = interface
        self._path = path
        self._clock = clock
        self._max_bytes = max_bytes

    async def read_device(self) -> Device | Absent:
        """Return one reading, or why there is no daemon.

        The daemon writes its answer under its own lock, so that it is of one moment. Raises
        `WireGuardError` when the answer is not complete after `DEADLINE_SECONDS`, breaks off, has
        more than `MAX_BYTES`, or is none. May be cancelled.
        """
        text = bytearray()
        try:
            async with self._clock.timeout(DEADLINE_SECONDS):
                absent = await self._converse(text)
            return absent or self._parsed(text)
        except TimeoutError as err:
            raise self._error(f"no whole answer within {DEADLINE_SECONDS:g} s") from err
        finally:
            text[:] = bytes(len(text))  # it holds the interface's private key

    def _parsed(self, text: bytearray) -> Device:
        try:
            now_nano = int(self._clock.now().timestamp() * 1e9)
            return parse_answer(self._interface, text, now_nano=now_nano)
        except WireGuardError as err:
            raise self._error(str(err)) from err

    async def _converse(self, text: bytearray) -> Absent | None:
        """Fill ``text`` with a whole answer, or return why there is no daemon."""
        loop = asyncio.get_running_loop()
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
            connection.settimeout(0)
            try:
                await loop.sock_connect(connection, str(self._path))
                await loop.sock_sendall(connection, GET)
                await self._receive(connection, text)
            except (FileNotFoundError, ConnectionRefusedError, PermissionError) as err:
                return Absent(f"{self._path}: {err.strerror}")
            except OSError as err:
                # A full queue of connections looks like this: the socket seems to connect.
                connected = err.errno != ENOTCONN
                reason = (err.strerror or str(err)) if connected else "does not take connections"
                raise self._error(reason) from err
        return None

    async def _receive(self, connection: socket.socket, text: bytearray) -> None:
        loop = asyncio.get_running_loop()
        chunk, filled = bytearray(_CHUNK_BYTES), 0
        try:
            while not is_whole(text):
                size = await loop.sock_recv_into(connection, chunk)
                filled = max(filled, size)
                if size == 0:
                    raise self._error("the daemon closed the connection before the answer's end")
                if len(text) + size > self._max_bytes:
                    raise self._error(f"the answer has more than {self._max_bytes} bytes")
                text += memoryview(chunk)[:size]
                await asyncio.sleep(0)
        finally:
            chunk[:filled] = bytes(filled)  # no more: the rest is memory never touched

    def _error(self, reason: str) -> WireGuardError:
        return WireGuardError(f"{self._path}: {reason}")


if TYPE_CHECKING:
    _: type[DeviceSource] = UserspaceReader
