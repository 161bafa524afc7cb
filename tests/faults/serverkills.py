"""kill -9 of either process of the server at random moments, while agents send (H01, H15)."""

from __future__ import annotations

import os
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
    from collections.abc import Callable
    from pathlib import Path

    from faults.numbered import Meta

__all__ = ["ServerKills", "kill_servers", "kill_tables"]

# Servers that are killed all the time leave a backlog.
_DRAIN_SECONDS = 240.0
_LONGEST_LIFE = 1.5  # of which the start of both processes takes about half
_NODES = ("node-1", "node-2")


class ServerKills(NamedTuple):
    """What the kills came to.

    ``awake`` are those of servers that took connections by then.
    """

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

    def end(server: Server) -> bool:
        running = server.start()
        time.sleep(dice.uniform(0.02, _LONGEST_LIFE))
        was_awake = server.answers()
        running.send(number)
        server.running = None
        assert running.wait() in {-number, 0}, server.tail()
        return was_awake

    return _under_load(cycles, directory, end, forked=forked)


def kill_tables(cycles: int, directory: Path, seed: int) -> ServerKills:
    """Kill the process that has the tables, ``cycles`` times, while its front goes on."""
    dice = random.Random(seed)
    killed: list[int] = []

    def end(server: Server) -> bool:
        if server.running is None:
            server.start()
            server.wait_until_it_is_ready()
        killed.append(server.wait_for_tables(*killed[-1:]))
        time.sleep(dice.uniform(0.0, _LONGEST_LIFE))
        os.kill(killed[-1], signal.SIGKILL)
        return server.answers()

    return _under_load(cycles, directory, end, forked=True)


def _under_load(
    cycles: int, directory: Path, end: Callable[[Server], bool], *, forked: bool
) -> ServerKills:
    awake = 0
    with ExitStack() as stack:
        forks = stack.enter_context(Forks("faults.serving") if forked else nullcontext())
        server = stack.enter_context(Server(directory / "server", forks))
        subjects = stack.enter_context(Forks("faults.subject"))
        nodes = [_node(name, directory, server) for name in _NODES]
        sending = [node.start(subjects) for node in nodes]
        for _ in range(cycles):
            awake += end(server)
        if server.running is None:
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
