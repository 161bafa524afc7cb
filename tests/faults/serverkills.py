"""kill -9 of the server at random moments while agents go on sending (H01, H15)."""

from __future__ import annotations

import random
import signal
import time
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, NamedTuple

from faults.bench import Node
from faults.forks import Forks
from faults.numbered import account
from faults.serving import Server

if TYPE_CHECKING:
    from pathlib import Path

    from faults.numbered import Meta

__all__ = ["ServerKills", "kill_servers"]

# Servers that are killed all the time leave a backlog.
_DRAIN_SECONDS = 240.0
_NODES = ("node-1", "node-2")


class ServerKills(NamedTuple):
    """What the kills came to; ``awake`` are those of servers that took connections by then."""

    kills: int
    awake: int
    accounts: list[Meta]
    ledgers: list[dict[str, object]]


def kill_servers(
    cycles: int,
    directory: Path,
    seed: int,
    *,
    forked: bool,
    number: signal.Signals = signal.SIGKILL,
) -> ServerKills:
    """Start the server and end it, ``cycles`` times; then let the agents deliver what is left."""
    dice = random.Random(seed)
    longest = 0.25 if forked else 1.5
    awake = 0
    with ExitStack() as stack:
        forks = stack.enter_context(Forks("faults.serving") if forked else nullcontext())
        server = stack.enter_context(Server(directory / "server", forks))
        subjects = stack.enter_context(Forks("faults.subject"))
        nodes = [_node(name, directory, server) for name in _NODES]
        sending = [node.start(subjects) for node in nodes]
        for _ in range(cycles):
            running = server.start()
            time.sleep(dice.uniform(0.02, longest))
            awake += server.answers()
            running.send(number)
            server.running = None
            assert running.wait() in {-number, 0}, server.tail()
        server.start()
        server.wait_until_it_answers()
        for subject in sending:
            subject.send(signal.SIGTERM)
            assert subject.wait() == 0
        for node in nodes:
            node.drain(subjects, _DRAIN_SECONDS)
        ledgers = [server.ledger(node.name) for node in nodes]
        server.stop()
        accounts = [account(node.told(), server.stored(node.name)) for node in nodes]
        return ServerKills(cycles, awake, accounts, ledgers)


def _node(name: str, directory: Path, server: Server) -> Node:
    settings = {"token": server.create_node(name), "batch_size": 100, "hurry": 200.0}
    return Node(name, directory / name, server.url, settings=settings)
