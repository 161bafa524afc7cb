"""The results of the machine: written by `kernel.guest`, read by the tests."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  # msgspec reads it

from msgspec import Struct

from plexd.api import TunnelStats  # noqa: TC001  # the same
from plexd.wireguard import Device  # noqa: TC001  # the same

__all__ = ["Absences", "Reading", "Results"]


class Reading(Struct, frozen=True):
    """One reading of one interface beside what ``wg show INTERFACE dump`` printed.

    ``wg`` ran before and after, until both outputs were the same. ``conversations`` are the
    datagrams that the reader received, for each socket it opened. ``shown`` and ``conversations``
    hold the interface's secret keys.
    """

    shown: str
    device: Device
    conversations: tuple[tuple[bytes, ...], ...]


class Absences(Struct, frozen=True):
    """Why there was nothing to read."""

    no_module: str
    no_interface: str
    not_wireguard: str
    no_right: str
    removed: str


class Results(Struct, frozen=True):
    """Everything of one run.

    ``pair`` has two peers with a handshake between ``began`` and ``ended``, ``thousand`` has a
    thousand peers without one.
    """

    kernel: str
    began: datetime
    ended: datetime
    booted_seconds: float
    done_seconds: float
    absences: Absences
    pair: Reading
    stats: tuple[TunnelStats, ...]
    thousand: Reading
    interrupted: Reading
    returned: Device
