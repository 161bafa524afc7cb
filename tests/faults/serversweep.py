"""kill -9 of the server at every call of the kernel in its life (H01, H17).

Each position gets a data directory of its own: the server makes its tables there, takes in one
named batch and is stopped, and dies somewhere on the way. Then it is started again as if nothing
had been, and the batch is sent again, as an agent would that got no answer.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from faults.forks import Forks, Started
from faults.numbered import account
from faults.serving import Server
from faults.strace import Fault, injected
from faults.sweep import KILL, MOST_POSITIONS, Swept

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["sweep_server"]

_NODE = "node-1"
_NAME = "0123456789abcdef0123456789abcdef;seq=1;offset=0;of=5"
_NUMBERS = range(5)
_PATIENCE_SECONDS = 30.0


def sweep_server(call: str, directory: Path, *, first: int = 1, step: int = 1) -> Swept:
    """Kill it at every ``step``-th ``call``."""
    wrong: list[str] = []
    positions = 0
    with Forks("faults.serving") as forks:
        for when in range(first, MOST_POSITIONS, step):
            fault = Fault(call, KILL, str(when))
            with Server(directory / f"{call}-{when}", forks) as server:
                server.create_node(_NODE)
                if not _strike(fault, server):
                    break
                positions += 1
                if found := _send_again(server):
                    wrong.append(f"{fault}: {found}")
    return Swept(call, KILL, positions, wrong)


def _strike(fault: Fault, server: Server) -> bool:
    running = server.start(held=True)
    assert isinstance(running, Started)
    with injected(fault, running.pid) as injection:
        _wait_until_it_answers_or_dies(server, running)
        server.post(_NODE, _NAME, _NUMBERS)
        running.send(signal.SIGTERM)
        status = running.wait(_PATIENCE_SECONDS)
        server.running = None
    assert status in {-signal.SIGKILL, 0}, server.tail()
    return injection.struck


def _wait_until_it_answers_or_dies(server: Server, running: Started) -> None:
    """Another process has nothing to wait on but what it shows."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while running.is_alive() and not server.answers():
        assert time.monotonic() < give_up, server.tail()
        time.sleep(0.005)


def _send_again(server: Server) -> str:
    """What is wrong once the batch was sent again; empty when nothing is."""
    server.start()
    server.wait_until_it_answers()
    answer = server.post(_NODE, _NAME, _NUMBERS)
    if answer is None:
        return f"refused: {server.tail()}"
    server.stop()
    found = account(_NUMBERS, server.stored(_NODE))
    return "" if found.is_exact else str(found)
