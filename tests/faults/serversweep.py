"""A fault at every call of the kernel in the server's life (H01, H08, H17).

Each position gets a data directory of its own: the server makes its tables there, takes in one
named batch and is stopped, and dies or fails somewhere on the way. Then it is started again as if
nothing had been, and the batch is sent again, as an agent would that got no answer; one that was
answered has to be known.
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
_NAME = "0123456789abcdef0123456789abcdef;first=1;points=5"
_NUMBERS = range(5)
_PATIENCE_SECONDS = 30.0


def sweep_server(
    call: str, directory: Path, *, effect: str = KILL, first: int = 1, step: int = 1
) -> Swept:
    """Let ``effect`` strike every ``step``-th ``call``, once."""
    wrong: list[str] = []
    positions = 0
    with Forks("faults.serving") as forks:
        for when in range(first, MOST_POSITIONS, step):
            fault = Fault(call, effect, str(when))
            with Server(directory / f"{call}-{when}", forks) as server:
                server.create_node(_NODE)
                struck, was_answered = _strike(fault, server)
                if not struck:
                    break
                positions += 1
                if found := _send_again(server, was_answered=was_answered):
                    wrong.append(f"{fault}: {found}")
    return Swept(call, effect, positions, wrong)


def _strike(fault: Fault, server: Server) -> tuple[bool, bool]:
    """Whether there was a call to strike, and whether the batch was answered."""
    running = server.start(held=True)
    assert isinstance(running, Started)
    with injected(fault, running.pid) as injection:
        _wait_until_it_answers_or_dies(server, running)
        answer = server.post(_NODE, _NAME, _NUMBERS)
        status = _stop(running)
        server.running = None
    tail = server.tail()
    assert status in _expected(fault, tail), f"{status}: {tail}"
    return injection.struck, answer is not None


def _expected(fault: Fault, log: str) -> set[int]:
    """The wait statuses that are right: what fails while it starts is told, with status 1."""
    if fault.effect != KILL:
        # One that failed as it announced itself may be about to end when it is told to.
        return {0, 1} if "msg=started" in log else {0, 1, -signal.SIGTERM}
    # strace strikes each process that has the tables at the same call, also the second one.
    is_told = "plexd-server: the process of the tables was ended by signal 9" in log
    return {-signal.SIGKILL, 0} | ({1} if is_told else set())


def _stop(running: Started) -> int:
    """SIGTERM, and the wait status.

    Told again once a second: the call that was struck may be the one by which Python's handler
    wakes the event loop, on a pair of sockets that no disk is behind.
    """
    give_up = time.monotonic() + _PATIENCE_SECONDS
    told = float("-inf")
    while running.is_alive() and time.monotonic() < give_up:
        if time.monotonic() - told >= 1:
            running.send(signal.SIGTERM)
            told = time.monotonic()
        time.sleep(0.005)
    return running.wait(_PATIENCE_SECONDS)


def _wait_until_it_answers_or_dies(server: Server, running: Started) -> None:
    """Another process has nothing to wait on but what it shows."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while running.is_alive() and not server.answers():
        assert time.monotonic() < give_up, server.tail()
        time.sleep(0.005)


def _send_again(server: Server, *, was_answered: bool) -> str:
    """What is wrong once the batch was sent again; empty when nothing is."""
    server.start()
    server.wait_until_it_answers()
    answer = server.post(_NODE, _NAME, _NUMBERS)
    if answer is None:
        return f"refused: {server.tail()}"
    if was_answered and not answer["duplicate"]:
        return "answered and lost"
    server.stop()
    found = account(_NUMBERS, server.stored(_NODE))
    return "" if found.is_exact else str(found)
