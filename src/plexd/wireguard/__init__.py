"""This machine's tunnels, as the kernel or a userspace daemon has them, and their peers."""

from plexd.wireguard.device import Absent, Device, DevicePeer
from plexd.wireguard.errors import DumpError, PeerError, RefusedError, WireGuardError
from plexd.wireguard.peer_index import PeerIndex, PeerTable
from plexd.wireguard.stats_reader import WireGuardStatsReader

__all__ = [
    "Absent",
    "Device",
    "DevicePeer",
    "DumpError",
    "PeerError",
    "PeerIndex",
    "PeerTable",
    "RefusedError",
    "WireGuardError",
    "WireGuardStatsReader",
]
