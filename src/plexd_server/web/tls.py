"""The server's certificate: two PEM files, loaded again when they change, or on request.

A change affects new connections only; existing ones keep the certificate they began with.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import stat
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from plexd.background import in_background
from plexd.durable import open_to_read
from plexd_server.errors import StartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from plexd.clock import Clock

_LOG = logging.getLogger(__name__)
_EVERY_SECONDS: Final = 5.0
_MAX_BYTES: Final = 1024 * 1024

Stamp = list[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Certificate:
    """The paths of the chain and its key; both files may be replaced while the server runs."""

    chain: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Make a context with the current certificate. Raises `StartError` with what to do."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load_into(context)
        return context

    async def watch(
        self, context: ssl.SSLContext, seen: Stamp | None, clock: Clock, hangup: asyncio.Event
    ) -> None:
        """Check the files until cancelled, and load into ``context`` what is new and valid.

        ``seen`` is the stamp of the files in ``context``. After ``hangup`` they are loaded at once,
        changed or not.
        """
        logged = ""
        while True:
            is_asked = await _is_asked(hangup, clock)
            stamp = self.stamp()
            if not is_asked and (stamp is None or stamp == seen):
                continue
            try:
                await asyncio.to_thread(self._load_into, context)
            except (StartError, OSError) as err:  # the latter without descriptors
                if is_asked or str(err) != logged:  # it is tried again at the next check
                    _LOG.warning("certificate not taken", extra={"error": str(err)})
                logged = str(err)
            else:
                seen, logged = stamp, ""
                _LOG.info("certificate renewed", extra={"file": str(self.chain)})

    def _load_into(self, context: ssl.SSLContext) -> None:
        """Load the files, first into a trial context: a failed load would leave a mixture."""
        _refuse_open(self.key)
        with ExitStack() as stack:
            chain, key = [
                stack.enter_context(_snapshot(_read(path))) for path in (self.chain, self.key)
            ]
            try:
                for target in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
                    # A wrong password prevents a prompt at the terminal.
                    target.load_cert_chain(chain, key, password="")
            except (OSError, ValueError) as err:  # an SSLError is an OSError
                reason = getattr(err, "reason", None) or err
                raise StartError(
                    f"{self.chain} and {self.key} are no certificate chain and its key (PEM, "
                    f"without a password): {reason}"
                ) from err

    def stamp(self) -> Stamp | None:
        """Return a value that changes with the files; None while one of them is missing."""
        try:
            found = [path.stat() for path in (self.chain, self.key)]
        except OSError:
            return None
        return [(of.st_ino, of.st_size, of.st_mtime_ns) for of in found]


async def _is_asked(hangup: asyncio.Event, clock: Clock) -> bool:
    """Wait for the next check; whether somebody asked for it."""
    try:
        async with clock.timeout(_EVERY_SECONDS):
            await hangup.wait()
    except TimeoutError:
        return False
    hangup.clear()
    return True


@asynccontextmanager
async def served_certificate(
    certificate: Certificate | None, clock: Clock, hangup: asyncio.Event
) -> AsyncIterator[ssl.SSLContext | None]:
    """Provide a context that always has the current certificate; None without a certificate.

    Setting ``hangup`` loads the files at once. Raises `StartError` if they are no certificate at
    the start.
    """
    if certificate is None:
        yield None
        return
    seen = certificate.stamp()  # first, so that a change during the load is noticed
    context = await asyncio.to_thread(certificate.context)
    async with in_background(certificate.watch(context, seen, clock, hangup)):
        yield context


def _refuse_open(key: Path) -> None:
    try:
        mode = key.stat().st_mode
    except OSError as err:
        raise StartError(f"cannot read {key}: {err.strerror}") from err
    if mode & stat.S_IRWXO:  # a group may read it, such as Debian's ssl-cert
        raise StartError(f"everybody can read the key {key}; run: chmod o= {key}")


def _read(path: Path) -> bytes:
    try:
        with open_to_read(path) as opened:
            return opened.read(_MAX_BYTES)
    except OSError as err:
        raise StartError(f"cannot read {path}: {err.strerror}") from err


@contextmanager
def _snapshot(content: bytes) -> Iterator[str]:
    """Provide a path to these bytes in memory, for a library that accepts paths only."""
    descriptor = os.memfd_create("plexd-server", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
