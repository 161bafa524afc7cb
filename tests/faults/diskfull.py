"""A disk that somebody else fills to the brim and empties again, over and over (C02, C12).

Run as a program in a mount namespace of its own (`fill_apart`): the disk is a small tmpfs.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import msgspec

from faults.apart import do, run_apart
from faults.bench import Node
from faults.forks import Forks
from faults.numbered import account
from support.oracle import ACCEPT, Answer, Oracle

__all__ = ["Filled", "fill_apart"]

_MEBIBYTES = 6
_SPOOL_BYTES = 4 * 2**20
# The spool looks at its disk again every 15 s, which at this hurry are 150 ms.
_HURRY = 100.0
_FULL_SECONDS = 0.4
_PATIENCE_SECONDS = 40
_MOST_TIMES = 40


class Orders(msgspec.Struct):
    """The disk is full so many ``times`` at least, and until that was noticed.

    ``refusing``: the control plane is away meanwhile.
    """

    times: int
    directory: str
    refusing: bool


class Filled(msgspec.Struct):
    """What it came to; ``log`` is the subject's."""

    promised: int
    lost: int
    doubled: int
    altered: int
    dropped: int
    log: str


class _Disk:
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        do("mount", "-t", "tmpfs", "-o", f"size={_MEBIBYTES}m", "tmpfs", str(root))

    def fill(self) -> None:
        """Leave not a byte."""
        with (self.root / "somebody-elses").open("ab", buffering=0) as other:
            for size in (65_536, 4096, 1):
                try:
                    while other.write(b"\0" * size):
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        (self.root / "somebody-elses").unlink()


def fill_and_free(orders: Orders) -> Filled:
    directory = Path(orders.directory)
    disk = _Disk(directory / "disk")
    oracle = Oracle()
    with oracle, Forks("faults.subject") as forks:
        node = Node("node-1", directory / "node", oracle.url, spool=disk.root / "spool")
        node.settings = {"max_bytes": _SPOOL_BYTES, "batch_size": 100}
        subject = node.start(forks, hurry=_HURRY, size=50)
        for number in range(_MOST_TIMES):
            # What is delivered leaves room in the spool's file, so a full disk may go unnoticed.
            if number >= orders.times and _degraded(node):
                break
            _wait_for_more(node)
            oracle.answers = (lambda _: Answer(503)) if orders.refusing else (lambda _: ACCEPT)
            disk.fill()
            time.sleep(_FULL_SECONDS)
            disk.free()
            oracle.answers = lambda _: ACCEPT
        _wait_for_more(node)
        subject.send(signal.SIGTERM)
        assert subject.wait(_PATIENCE_SECONDS) == 0, node.log.read_text()[-2000:]
        node.drain(forks)
        assert not oracle.contradictions, oracle.contradictions[:3]
        found = account(node.kept(), oracle.points(node.name))
        log = node.log.read_text()
        dropped = oracle.lost(node.name)
    return Filled(found.told, len(found.lost), len(found.doubled), len(found.altered), dropped, log)


def _degraded(node: Node) -> int:
    return node.log.read_text().count("spool degraded")


def _wait_for_more(node: Node) -> None:
    """Return once points are safe again; another process has nothing to wait on but its files."""
    before, give_up = len(node.told()), time.monotonic() + _PATIENCE_SECONDS
    while len(node.told()) <= before:
        assert time.monotonic() < give_up, node.log.read_text()[-2000:]
        time.sleep(0.005)


def fill_apart(times: int, directory: Path, *, refusing: bool) -> Filled:
    """Fill the disk ``times`` times under a running subject."""
    orders = Orders(times, str(directory), refusing)
    printed = run_apart("faults.diskfull", orders, seconds=2 * _PATIENCE_SECONDS)
    return msgspec.json.decode(printed, type=Filled)


if __name__ == "__main__":
    sys.stdout.write(
        msgspec.json.encode(fill_and_free(msgspec.json.decode(sys.argv[1], type=Orders))).decode()
    )
