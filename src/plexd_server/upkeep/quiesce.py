"""A backup asks the running server to write nothing to the points' file while it is copied.

It connects to a socket in the data directory, open to its owner only, and reads ``still`` and a
line end once the file is whole and not written to; any other line is the reason why not. The
pause ends with the connection, after ten minutes at most. The server accepts reports meanwhile, up
to what the store lets wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from plexd.background import in_background
from plexd_server.errors import StartError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from plexd.clock import Clock

_LOG = logging.getLogger(__name__)
_NAME: Final = "backup.sock"
_STILL: Final = b"still\n"
_HOLD_SECONDS: Final = 600.0
_LONGEST_ANSWER: Final = 1000
_ANSWER_SECONDS: Final = 120.0
_AGAIN_SECONDS: Final = 1.0


@asynccontextmanager
async def pausing_writes_on_request(
    hold: Callable[[Callable[[], None]], None], data_dir: Path, clock: Clock
) -> AsyncIterator[None]:
    """While the body runs, pause writes for one backup after the other that asks for it.

    ``hold`` pauses writes while it calls its argument; it blocks and raises `StoreError`.
    """
    with _listening(data_dir) as listening:
        async with in_background(_answer_all(hold, listening, clock)):
            yield


async def _answer_all(
    hold: Callable[[Callable[[], None]], None], listening: socket.socket, clock: Clock
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, _ = await loop.sock_accept(listening)
        except OSError as err:  # no descriptors are left
            _LOG.warning("backup not heard", extra={"error": str(err)})
            await clock.sleep(_AGAIN_SECONDS)
            continue
        connection.settimeout(_HOLD_SECONDS)
        try:
            await asyncio.to_thread(_pause, hold, connection)
        except asyncio.CancelledError:
            with suppress(OSError):  # the thread closes it
                connection.shutdown(socket.SHUT_RDWR)
            raise


def _pause(hold: Callable[[Callable[[], None]], None], connection: socket.socket) -> None:
    def wait() -> None:
        connection.sendall(_STILL)
        connection.recv(1)

    with connection, suppress(OSError):  # the backup went away, or took too long
        try:
            hold(wait)
        except StoreError as err:
            connection.sendall(f"{err}\n".encode())


@contextmanager
def writes_paused(data_dir: Path, *, answer_seconds: float = _ANSWER_SECONDS) -> Iterator[bool]:
    """While the body runs, no server writes to the points' file; false if no server runs.

    Raises `StartError` if a server runs and does not pause within ``answer_seconds``.
    """
    connection = _connect(data_dir)
    if connection is None:
        yield False
        return
    with connection:
        answer = _read_answer(connection, answer_seconds)
        if answer != _STILL:
            reason = answer.decode("utf-8", "replace").strip() or "it does not answer"
            raise StartError(f"the running server does not hold its points still: {reason}")
        yield True


def _read_answer(connection: socket.socket, seconds: float) -> bytes:
    """Return the server's line; empty if none came."""
    connection.settimeout(seconds)
    with suppress(OSError):
        return connection.makefile("rb").readline(_LONGEST_ANSWER)
    return b""


def _connect(data_dir: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        with _short(data_dir) as path:
            connection.connect(path)
    except (ConnectionRefusedError, FileNotFoundError):
        connection.close()
        return None
    except OSError as err:
        connection.close()
        reason = f"cannot ask the running server by {data_dir / _NAME}: {err.strerror}"
        raise StartError(reason) from err
    return connection


@contextmanager
def _listening(data_dir: Path) -> Iterator[socket.socket]:
    (data_dir / _NAME).unlink(missing_ok=True)  # a killed server's: this one has the store locked
    with socket.socket(socket.AF_UNIX) as listening, _short(data_dir) as path:
        listening.bind(path)
        (data_dir / _NAME).chmod(0o600)
        listening.listen()
        listening.setblocking(False)  # noqa: FBT003 -- the socket module's own name for it
        try:
            yield listening
        finally:
            (data_dir / _NAME).unlink(missing_ok=True)


@contextmanager
def _short(data_dir: Path) -> Iterator[str]:
    """Give the socket a path through a descriptor: an address has room for 107 bytes only."""
    descriptor = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)
