"""What reading tunnels can end in.

Exception
└── WireGuardError      no reading this time: log it and try again at the next cycle
    ├── DumpError       the answer is damaged, or the interface changed meanwhile: ask again
    ├── RefusedError    the kernel answered with an error number
    └── PeerError       a list of peers that contradicts itself, or an unknown peer: correct it
"""

from __future__ import annotations

import os


class WireGuardError(Exception):
    """The tunnels could not be read; the text says which source failed, and why."""


class DumpError(WireGuardError):
    """One dump cannot be trusted. `plexd.wireguard.kernel` asks again a bounded number of times."""


class RefusedError(WireGuardError):
    """The kernel refused a netlink request; ``errno`` is positive, as in `errno`."""

    def __init__(self, errno: int) -> None:
        super().__init__(f"netlink: {os.strerror(errno)}")
        self.errno = errno


class PeerError(WireGuardError):
    """An unknown peer, an invalid key, or two peers with the same id, key or address."""
