"""``wg show INTERFACE dump``, in the form of the reader's result.

Tabs separate the fields; the first line is the interface's own, then each peer has one::

    public-key  preshared-key  endpoint  allowed-ips  latest-handshake  rx  tx  keepalive

A missing key or endpoint is ``(none)``; handshakes are whole seconds since 1970.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from plexd.wireguard import Device

__all__ = ["NONE", "Seen", "peers_read", "peers_shown", "secret_keys"]

NONE = "(none)"


class Seen(NamedTuple):
    """What both ``wg`` and the reader know about a peer."""

    public_key: str
    endpoint: str | None
    handshake_seconds: int
    rx_bytes: int
    tx_bytes: int


def peers_shown(text: str) -> list[Seen]:
    """Parse the peers that ``wg`` printed."""
    seen = []
    for line in text.splitlines()[1:]:
        key, _, endpoint, _, handshake, received, sent, _ = line.split("\t")
        where = None if endpoint == NONE else endpoint
        seen.append(Seen(key, where, int(handshake), int(received), int(sent)))
    return seen


def peers_read(device: Device) -> list[Seen]:
    """Convert the peers of the reader."""
    return [
        Seen(
            peer.public_key,
            peer.endpoint,
            peer.last_handshake_nano // 10**9,
            peer.rx_bytes,
            peer.tx_bytes,
        )
        for peer in device.peers
    ]


def secret_keys(text: str) -> set[str]:
    """Find the interface's private key and the preshared keys."""
    own, *peers = (line.split("\t") for line in text.splitlines())
    return {own[0], *(peer[1] for peer in peers)} - {NONE}
