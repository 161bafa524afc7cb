"""What a source reports about one interface, without any secret key."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from msgspec import Struct

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)
_LATEST_NANO: Final = (_LATEST - _EPOCH) // timedelta(microseconds=1) * 1000
_NAME_BYTES: Final = 15  # IFNAMSIZ less the closing NUL


class DevicePeer(Struct, frozen=True, gc=False):
    """One peer of an interface; ``public_key`` is base64 as ``wg`` prints it.

    ``endpoint`` is ``address:port`` as ``wg`` prints it, None until one is known.
    ``last_handshake_nano`` counts from 1970 on the wall clock; 0 or less: never.
    """

    public_key: str
    endpoint: str | None
    last_handshake_nano: int
    rx_bytes: int
    tx_bytes: int

    @property
    def last_handshake(self) -> datetime | None:
        """The latest handshake cut to microseconds, None if there was none.

        A time beyond the year 9999 is the end of that year.
        """
        if self.last_handshake_nano <= 0:
            return None
        return _EPOCH + timedelta(0, 0, min(self.last_handshake_nano, _LATEST_NANO) // 1000)


class OddPeer(Struct, frozen=True):
    """A peer that the source reports in a way nobody can read; ``public_key`` may be empty."""

    public_key: str
    reason: str


class Device(Struct, frozen=True):
    """One interface and all its peers at one moment, in the source's order.

    ``odd`` are those that could not be read; they are not among ``peers``.
    """

    interface: str
    peers: tuple[DevicePeer, ...] = ()
    odd: tuple[OddPeer, ...] = ()


class Absent(Struct, frozen=True):
    """There is nothing to read; ``reason`` says what is missing, for the operator."""

    reason: str


class DeviceSource(Protocol):
    """Where an interface can be read."""

    async def read_device(self) -> Device | Absent:
        """Return one reading, or why there is none. Raises `WireGuardError` on failure."""
        ...


def unusable_name(interface: str) -> Absent | None:
    """Return why no interface can have this name (``dev_valid_name``); None if one can."""
    raw = os.fsencode(interface)
    if raw in {b"", b".", b".."} or len(raw) > _NAME_BYTES:
        return Absent(f"no interface can be called {interface!r}: 1 to {_NAME_BYTES} bytes")
    if any(byte in b"/:\0" or bytes([byte]).isspace() for byte in raw):
        return Absent(f"no interface can be called {interface!r}: no '/', ':' or spaces")
    return None
