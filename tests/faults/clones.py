"""Machines that are cloned, and machines that are put back, over and over under one identity.

Real agents' pipelines with their spools, and a real server. What is copied or put back is the
spool's directory: after a clean end, after a kill, or under a running process, which makes a torn
copy.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from faults.bench import Node
from faults.forks import Forks
from faults.numbered import account
from faults.serving import Server

if TYPE_CHECKING:
    from pathlib import Path

    from faults.forks import Started
    from faults.numbered import Meta

__all__ = ["Clones", "clone_and_put_back"]

_NODE = "node-1"
_LEAST_SECONDS, _MOST_SECONDS = 0.02, 0.15
# More runs than the first machine and a twin have, so that no two use one number. A run's numbers
# are also its points' stamps, and must not lie in the future.
_RUNS_OF_THE_FIRST, _RUNS_OF_A_TWIN = 4000, 10


class Clones(NamedTuple):
    """What the rounds came to.

    Attributes:
        copies: data directories that were copied at rest, and under a running process.
        put_back: machines that were put back.
        account: of all points that were promised, but for those that only an abandoned timeline
            had: they are on no disk any more.
        abandoned: points of abandoned timelines that did not arrive.
        ledger: the node's, as the server has it at the end.
    """

    copies: int
    put_back: int
    account: Meta
    abandoned: int
    ledger: dict[str, object]


@dataclass
class _Bench:
    directory: Path
    server: Server
    subjects: Forks
    dice: random.Random
    token: str
    machines: int = 0

    def machine(self) -> Node:
        settings = {"token": self.token, "batch_size": 20, "hurry": 200.0}
        place = self.directory / f"machine-{self.machines}"
        runs = 0 if not self.machines else _RUNS_OF_THE_FIRST + _RUNS_OF_A_TWIN * self.machines
        self.machines += 1
        return Node(_NODE, place, self.server.url, runs=runs, settings=settings)

    def run(self, *machines: Node) -> None:
        """Let the machines run side by side for a moment; each ends or is killed."""
        running = [machine.start(self.subjects) for machine in machines]
        self.wait()
        for subject, machine in zip(running, machines, strict=True):
            self.end(subject, machine)

    def wait(self) -> None:
        time.sleep(self.dice.uniform(_LEAST_SECONDS, _MOST_SECONDS))

    def end(self, subject: Started, machine: Node) -> None:
        if self.dice.random() < 0.5:
            assert subject.kill() == -signal.SIGKILL, machine.log.read_text()[-2000:]
        else:
            subject.send(signal.SIGTERM)
            # The signal may come before the program is ready for it.
            ended = {0, -signal.SIGTERM}
            assert subject.wait() in ended, machine.log.read_text()[-2000:]

    def clone(self, machine: Node, *, running: bool) -> Node:
        """Copy a machine's spool to another one, and let both run."""
        twin = self.machine()
        if running:
            subject = machine.start(self.subjects)
            self.wait()
            _copy(machine, twin)
            self.end(subject, machine)
        else:
            self.run(machine)
            _copy(machine, twin)
        self.run(machine, twin)
        return twin

    def put_back(self, machine: Node) -> set[int]:
        """Put a machine back to an earlier state; return what was promised meanwhile."""
        self.run(machine)
        kept = machine.directory / "snapshot"
        shutil.copytree(_spool(machine), kept)
        before = set(machine.told())
        self.run(machine)
        shutil.rmtree(_spool(machine))
        kept.rename(_spool(machine))
        abandoned = set(machine.told()) - before
        self.run(machine)
        return abandoned


def _spool(machine: Node) -> Path:
    return machine.directory / "spool"


def _copy(machine: Node, twin: Node) -> None:
    shutil.copytree(_spool(machine), _spool(twin), dirs_exist_ok=True, copy_function=_copy_file)


def _copy_file(source: str, target: str) -> None:
    with suppress(FileNotFoundError):  # SQLite deleted its log meanwhile
        shutil.copy2(source, target)


def clone_and_put_back(rounds: int, directory: Path, seed: int) -> Clones:
    """Clone a machine or put it back, ``rounds`` times, and deliver what each still has."""
    dice = random.Random(seed)
    copies = put_back = 0
    told: set[int] = set()
    abandoned: set[int] = set()
    with ExitStack() as stack:
        servers = stack.enter_context(Forks("faults.serving"))
        server = stack.enter_context(Server(directory / "server", servers))
        subjects = stack.enter_context(Forks("faults.subject"))
        bench = _Bench(directory, server, subjects, dice, server.create_node(_NODE))
        server.start()
        server.wait_until_it_answers()
        machine = bench.machine()
        machine.drain(subjects)  # a run may be killed before it makes its spool
        for _ in range(rounds):
            twins = []
            if dice.random() < 0.6:
                copies += 1
                twins.append(bench.clone(machine, running=dice.random() < 0.5))
            else:
                put_back += 1
                abandoned |= bench.put_back(machine)
            for each in (machine, *twins):
                each.drain(subjects)
                told |= set(each.told())
        ledger = server.ledger(_NODE)
        server.stop()
        stored = server.stored(_NODE)
    gone = set(account(told, stored).lost) & abandoned
    return Clones(copies, put_back, account(told - gone, stored), len(gone), ledger)
