"""A real wireguard-go with any number of peers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

from plexd.api import Peer
from plexd.wireguard.userspace import DIRECTORIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["loopback_peers", "public_key", "raw_key", "what_is_missing", "wireguard_go"]


def raw_key(number: int) -> bytes:
    """Make the public key of peer ``number``; it has no private key, so there are no handshakes."""
    return number.to_bytes(32, "big")


def public_key(number: int) -> str:
    """Return the same key as ``wg`` prints it."""
    return b64encode(raw_key(number)).decode()


def loopback_peers(count: int) -> tuple[Peer, ...]:
    """Return peers whose addresses answer on this machine."""
    return tuple(
        Peer(f"peer-{i}", public_key(i), f"127.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}")
        for i in range(1, count + 1)
    )


def what_is_missing() -> str:
    """Say why no daemon can be started here; empty if one can."""
    if os.geteuid() != 0 or not shutil.which("wireguard-go") or not shutil.which("wg"):
        return "needs root, wireguard-go and wireguard-tools"
    return ""


@contextlib.contextmanager
def wireguard_go(peers: Sequence[Peer]) -> Iterator[str]:
    """Yield the name of an interface with ``peers``, in its own namespace."""
    name = f"pxbench{os.getpid() % 10**6}"
    path = Path(DIRECTORIES[0]) / f"{name}.sock"
    _run("ip", "netns", "add", name)
    command = ["ip", "netns", "exec", name, "wireguard-go", "-f", name]
    try:
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
            try:
                _wait_for(path)
                _run("wg", "setconf", name, "/dev/stdin", given="".join(_sections(peers)))
                yield name
            finally:
                daemon.kill()
    finally:
        path.unlink(missing_ok=True)
        _run("ip", "netns", "delete", name)


def _run(*command: str, given: str = "") -> None:
    subprocess.run(command, check=True, input=given, text=True)


def _wait_for(path: Path) -> None:
    for _ in range(500):
        if path.exists():
            return
        time.sleep(0.01)
    raise SystemExit(f"{path} did not appear")


def _sections(peers: Sequence[Peer]) -> Iterator[str]:
    private = b64encode(b"plexd benchmark, not secret at all"[:32]).decode()
    yield f"[Interface]\nPrivateKey={private}\n"
    for peer in peers:
        endpoint = "Endpoint=127.0.0.1:9"
        yield f"[Peer]\nPublicKey={peer.public_key}\nAllowedIPs={peer.mesh_ip}/32\n{endpoint}\n"
