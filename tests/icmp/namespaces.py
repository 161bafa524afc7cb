"""Networks of a test's own: namespaces joined by a cable, gone with the test."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ROOT", "Namespace", "as_nobody", "cable"]

ROOT = (
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 and "CI" not in os.environ,
        reason="opens raw sockets and network namespaces: needs root",
    ),
)

_CLONE_NEWNET = 0x40000000
_NOBODY = 65534
_numbers = itertools.count()


class Namespace:
    """A network namespace with loopback up; a context manager."""

    def __init__(self) -> None:
        self.name = f"plexd-{os.getpid()}-{next(_numbers)}"

    def __enter__(self) -> Self:
        _run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        _run("ip", "netns", "delete", self.name)

    def run(self, *command: str) -> None:
        """Run ``command`` in it."""
        _run("ip", "netns", "exec", self.name, *command)

    def rules(self, hook: str, *rules: str) -> None:
        """Install nftables rules at ``hook``."""
        lines = "\n".join(rules)
        self.run(
            "nft",
            "table inet filter { chain "
            f"c {{ type filter hook {hook} priority 0; policy accept;\n{lines}\n}}; }}",
        )

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets this thread opens in the body belong to the namespace."""
        with (
            Path("/proc/thread-self/ns/net").open("rb") as home,
            (Path("/run/netns") / self.name).open("rb") as here,
        ):
            _enter(here.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())


def cable(
    near: Namespace, far: Namespace, near_addresses: Sequence[str], far_addresses: Sequence[str]
) -> None:
    """Join two namespaces by a veth pair, ``eth0`` in each end that has none yet."""
    number = next(_numbers)
    ends = (f"v{number}a", f"v{number}b")
    _run(
        "ip",
        "-n",
        near.name,
        "link",
        "add",
        ends[0],
        "type",
        "veth",
        "peer",
        ends[1],
        "netns",
        far.name,
    )
    for place, end, addresses in ((near, ends[0], near_addresses), (far, ends[1], far_addresses)):
        for address in addresses:
            flags = ["nodad"] if ":" in address else []
            _run("ip", "-n", place.name, "address", "add", address, "dev", end, *flags)
        _run("ip", "-n", place.name, "link", "set", end, "up")


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """The body runs without root's rights, in the group of nobody."""
    os.setegid(_NOBODY)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
