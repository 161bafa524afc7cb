"""Dumps of a real kernel, kept as text in ``tests/golden/netlink/NAME``.

``family`` is the controller's answer, ``dump`` the datagrams of the dump as the reader received
them, base64, one in a line; ``shown`` is what ``wg show INTERFACE dump`` printed meanwhile, left
out where the dump was not whole.

A kernel's dump holds the private key of the interface and the preshared ones. They were made
inside the machine and are gone with it; still every one is replaced by as many zeros in the
datagrams, and by ``(none)`` in what ``wg`` printed.
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
    """The recording called ``name``."""
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
    """The same with zeros for keys. Needs ``shown``, which tells the keys."""
    family, dump, shown = recording
    for key in secret_keys(shown):
        raw = b64decode(key)
        dump = [datagram.replace(raw, bytes(len(raw))) for datagram in dump]
        shown = shown.replace(key, NONE)
    return Recording(family, dump, shown)
