"""Power cuts: a file system that loses, at a random moment, whatever was not synced (C06, C07).

The spool lives on an ext4 of its own in a file. EXT4_IOC_SHUTDOWN without flushing the log ends
it as a cut ends a disk: nothing more reaches it, what only the kernel knew is gone, and the next
mount recovers from the journal. The subject's promises and the oracle are outside of it.

Run as a program in a mount namespace of its own (`cut_apart`), so that nothing stays mounted.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import struct
import sys
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from faults.apart import do, run_apart
from faults.bench import Node
from faults.forks import Forks
from faults.strace import Fault, injected
from support.oracle import ACCEPT, Answer, Oracle

if TYPE_CHECKING:
    from typing import Self

    from faults.forks import Started

__all__ = ["Cuts", "cut_apart"]

# linux/fs/ext4/ext4.h: _IOR('X', 125, __u32), EXT4_GOING_FLAGS_NOLOGFLUSH
_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_MEBIBYTES = 24
_LEAST_SECONDS, _MOST_SECONDS = 0.005, 0.080
# Opening a spool takes about as long; a cut within it strikes the recovery from the one before.
_RECOVERY_SECONDS = 0.015
_PATIENCE_SECONDS = 60
# strace makes the start slow, and what was not told cannot be lost.
_TRACED_SECONDS = 0.15
_POLL_SECONDS = 0.005
_NO_ANSWER = Answer(503, cut_at=0)
_LYING = Fault("fdatasync,fsync", "retval=0", "1+")


class Orders(msgspec.Struct):
    """``lying``: the disk says it has synced and has not, which must be found out."""

    cuts: int
    directory: str
    seed: int
    lying: bool = False


class Cuts(msgspec.Struct):
    """What the cuts came to; ``recoveries`` are those that struck while the spool was opened."""

    cuts: int
    recoveries: int
    told: int
    lost: int
    doubled: int
    altered: int
    shown: str


class Disk:
    """An ext4 in a file; a context manager, which leaves it unmounted."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "disk.img"
        self.root = directory / "disk"
        self.root.mkdir()
        with self._image.open("wb") as image:
            image.truncate(_MEBIBYTES * 1024 * 1024)
        do("mkfs.ext4", "-q", "-F", str(self._image))
        self._mounted = False

    def mount(self) -> None:
        do("mount", "-t", "ext4", "-o", "loop", str(self._image), str(self.root))
        self._mounted = True

    def cut(self) -> None:
        """From here on nothing reaches the disk, and all that uses it fails."""
        root = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(root, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(root)

    def unmount(self) -> None:
        if self._mounted:
            do("umount", str(self.root))
        self._mounted = False

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        self.unmount()


def cut_power(orders: Orders) -> Cuts:
    dice = random.Random(orders.seed)
    directory = Path(orders.directory)
    recoveries = 0
    with Oracle() as oracle, Disk(directory) as disk, Forks("faults.subject") as forks:
        node = Node("node-1", directory / "node", oracle.url, spool=disk.root / "spool")
        for number in range(orders.cuts):
            is_recovery = number % 3 == 2
            recoveries += is_recovery
            most = _RECOVERY_SECONDS if is_recovery else _MOST_SECONDS
            _cut_once(
                node, oracle, disk, forks, dice.uniform(_LEAST_SECONDS, most), lying=orders.lying
            )
        node.drain(forks)
        # A spool that was lost whole begins again after nothing.
        assert orders.lying or not oracle.contradictions, oracle.contradictions[:3]
        found = node.account(oracle)
        return Cuts(
            orders.cuts,
            recoveries,
            found.told,
            len(found.lost),
            len(found.doubled),
            len(found.altered),
            str(found),
        )


def _cut_once(
    node: Node, oracle: Oracle, disk: Disk, forks: Forks, seconds: float, *, lying: bool
) -> None:
    with ExitStack() as stack:
        subject = _start(node, forks, stack, lying=lying)
        time.sleep(seconds + (_TRACED_SECONDS if lying else 0.0))
        _wait_for_a_promise(node)
        # Nobody is told anything after a real cut, the control plane neither. After this one a sync
        # under way may still be reported as done, if the journal ends between its data and its turn
        # to wait for it, and a spool that finds no disk would go on in memory.
        with node.nothing_told_after():
            oracle.answers = lambda _: _NO_ANSWER
            disk.cut()
            assert subject.kill() == -signal.SIGKILL, node.log.read_text()[-2000:]
            oracle.answers = lambda _: ACCEPT
    disk.unmount()
    disk.mount()


def _wait_for_a_promise(node: Node) -> None:
    """Where nothing was told yet, as on a slow machine, a cut has nothing to lose."""
    deadline = time.monotonic() + _PATIENCE_SECONDS / 2
    while not node.told():
        assert time.monotonic() < deadline, node.log.read_text()[-2000:]
        time.sleep(_POLL_SECONDS)


def _start(node: Node, forks: Forks, stack: ExitStack, *, lying: bool) -> Started:
    subject = node.start(forks, held=lying)
    stack.enter_context(injected(_LYING, subject.pid) if lying else nullcontext())
    return subject


def cut_apart(cuts: int, directory: Path, seed: int, *, lying: bool = False) -> Cuts:
    """Cut the power ``cuts`` times in a mount namespace that ends with the process in it."""
    orders = Orders(cuts, str(directory), seed, lying)
    printed = run_apart("faults.powercut", orders, seconds=_PATIENCE_SECONDS + cuts)
    return msgspec.json.decode(printed, type=Cuts)


if __name__ == "__main__":
    made = cut_power(msgspec.json.decode(sys.argv[1], type=Orders))
    sys.stdout.write(msgspec.json.encode(made).decode())
