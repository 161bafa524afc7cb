"""Round trips to the peers of a mesh: ICMP echo over one socket per address family."""

from plexd.icmp.counters import Statistics
from plexd.icmp.errors import (
    ClosedError,
    NoAnswerError,
    PacketError,
    PingError,
    SocketError,
    UndeliveredError,
    UnknownPeerError,
)
from plexd.icmp.pinger import ICMPPinger

__all__ = [
    "ClosedError",
    "ICMPPinger",
    "NoAnswerError",
    "PacketError",
    "PingError",
    "SocketError",
    "Statistics",
    "UndeliveredError",
    "UnknownPeerError",
]
