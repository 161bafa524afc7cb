"""What a ping can end in, other than a round trip.

Exception
├── PingError              no round trip this time; the text says why
│   ├── NoAnswerError      the probe went out, and nothing came back within the timeout
│   ├── UndeliveredError   the kernel or a router on the way refused the probe
│   ├── UnknownPeerError   no address of this peer is known
│   ├── SocketError        neither kind of ICMP socket may be opened: the text says what to change
│   └── ClosedError        the pinger was closed
└── PacketError            bytes that are no packet of the kind they were read as
"""

from __future__ import annotations


class PingError(Exception):
    """No round trip this time.

    The text is ``<address or peer>: <reason>``, for example ``10.0.0.7: no answer within 2 s``.
    The operating system's error, if there was one, is chained.
    """

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(target, reason)
        self.target = target
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.target}: {self.reason}"


class NoAnswerError(PingError):
    """Nothing that counts as an answer came within the timeout."""


class UndeliveredError(PingError):
    """The kernel would not send the probe, or a router reported that it could not forward it."""


class UnknownPeerError(PingError):
    """The peer has no address, or its address is no IP address."""


class SocketError(PingError):
    """Neither a datagram nor a raw ICMP socket can be opened here; the text says what to change."""


class ClosedError(PingError):
    """The pinger was closed before the answer came, or before the probe went out."""


class PacketError(ValueError):
    """Bytes that are no packet of the expected kind; parsers raise nothing else."""
