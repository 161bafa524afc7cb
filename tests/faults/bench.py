"""What every fault is tried on: one node's spool, its promises, and runs of the subject on it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from faults.numbered import account
from faults.subject import Orders, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.forks import Forks, Started
    from faults.numbered import Meta
    from support.oracle import Oracle

__all__ = ["Node"]


@dataclass
class Node:
    """One node; ``directory`` holds everything of it but, where ``spool`` is given, its spool."""

    name: str
    directory: Path
    url: str
    spool: Path | None = None
    runs: int = 0
    settings: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def orders(self, **more: object) -> Orders:
        """Orders for the next run, which goes on where the others were killed."""
        orders = {
            "url": self.url,
            "node": self.name,
            "directory": str(self.spool or self.directory / "spool"),
            "told": str(self.directory / "told"),
            "log": str(self.log),
            "run": self.runs,
            **self.settings,
            **more,
        }
        self.runs += 1
        return msgspec.convert(orders, Orders)

    def start(self, forks: Forks, *, held: bool = False, **more: object) -> Started:
        return forks.start(self.orders(**more), self.log, held=held)

    def drain(self, forks: Forks, seconds: float = 60.0) -> None:
        """A run that collects nothing and ends once everything is delivered."""
        status = self.start(forks, cycles=0).wait(seconds)
        assert status == 0, self.log.read_text()[-2000:]

    def told(self) -> list[int]:
        return told(self.directory / "told")

    @contextmanager
    def nothing_told_after(self) -> Iterator[None]:
        """What is told from now on until the end of the block is not held against the subject."""
        path = self.directory / "told"
        length = path.stat().st_size if path.exists() else 0
        yield
        if path.exists():
            os.truncate(path, length)

    def kept(self) -> list[int]:
        """What was taken in, on the disk or not: owed by a run that was not killed."""
        return told(self.directory / "told.kept")

    def account(self, oracle: Oracle) -> Meta:
        return account(self.told(), oracle.points(self.name))
