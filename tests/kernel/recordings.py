"""Dumps of a real kernel, kept as text in ``tests/golden/netlink/NAME``.

``family`` is the controller's answer, ``dump`` the datagrams of the dump as the reader received
them, in base64, one a line. ``shown`` is what ``wg show INTERFACE dump`` printed meanwhile; there
is none if the dump was not complete.

A kernel's dump holds the private key of the interface and the preshared keys. They were made inside
the machine, which no longer exists. Still, each key is replaced by as many zeros in the datagrams,
and by ``(none)`` in what ``wg`` printed.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path
from typing import NamedTuple

from kernel.shown import NONE, secret_keys

__all__ = ["Recording", "load", "save", "without_secrets"]

_RECORDINGS = Path(__file__).parents[1] / "golden/netlink"


class Recording(NamedTuple):
    """One dump."""

    family: bytes
    dump: list[bytes]
    shown: str = ""


def load(name: str) -> Recording:
    """Load the recording called ``name``."""
    tree = _RECORDINGS / name
    (family,), dump = (
        [b64decode(line) for line in (tree / part).read_text().splitlines()]
        for part in ("family", "dump")
    )
    shown = tree / "shown"
    return Recording(family, dump, shown.read_text() if shown.exists() else "")


def save(name: str, recording: Recording) -> None:
    """Keep the recording under ``name``."""
    tree = _RECORDINGS / name
    tree.mkdir(parents=True, exist_ok=True)
    for part, datagrams in (("family", [recording.family]), ("dump", recording.dump)):
        lines = (f"{b64encode(datagram).decode()}\n" for datagram in datagrams)
        (tree / part).write_text("".join(lines))
    if recording.shown:
        (tree / "shown").write_text(recording.shown)


def without_secrets(recording: Recording) -> Recording:
    """Replace the keys by zeros. Needs ``shown``, which names the keys."""
    family, dump, shown = recording
    for key in secret_keys(shown):
        raw = b64decode(key)
        dump = [datagram.replace(raw, bytes(len(raw))) for datagram in dump]
        shown = shown.replace(key, NONE)
    return Recording(family, dump, shown)
