"""A fault at every call of the kernel in one collect-seal-post-acknowledge cycle (A02, C02-C05).

Each position gets a node and a spool of its own, so that every run makes the same calls: it opens
a new spool, collects twice, delivers, and ends. A run that ends by itself without having been
struck is past the last position. Whatever happened, a second run then delivers what is left.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from faults.bench import Node
from faults.forks import Forks
from faults.numbered import account
from faults.strace import Fault, injected
from support.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["KILL", "MOST_POSITIONS", "Swept", "sweep", "sweep_lasting", "sweep_recovery"]

KILL = "signal=KILL"
MOST_POSITIONS = 2000
_CYCLES = 2
# Long enough to leave a backlog, and a log that has to be carried over.
_BEFORE_SECONDS = 0.06
# A fault that lasts is over after a while; the spool looks at its disk again every 150 ms.
_LASTING_SECONDS, _LASTING_CYCLES, _LASTING_HURRY = 0.4, 15, 100.0


class Swept(NamedTuple):
    """``positions`` at which ``effect`` struck ``call``, and what was wrong after which of them."""

    call: str
    effect: str
    positions: int
    wrong: list[str]


def sweep(
    call: str,
    effect: str,
    directory: Path,
    *,
    first: int = 1,
    step: int = 1,
    in_main: bool = False,
) -> Swept:
    """Let ``effect`` strike every ``step``-th ``call``, once; or those of the main thread only."""
    positions = range(first, MOST_POSITIONS, step)
    done = _sweep(call, effect, directory, positions, _strike_main if in_main else _strike)
    return done._replace(call=f"{call} in the main thread") if in_main else done


def sweep_recovery(call: str, directory: Path, *, first: int = 1, step: int = 1) -> Swept:
    """Kill at every ``step``-th ``call`` of a run that finds what a killed one left."""
    done = _sweep(call, KILL, directory, range(first, MOST_POSITIONS, step), _strike_recovery)
    return done._replace(effect=f"{KILL} in recovery")


def sweep_lasting(
    call: str, effect: str, directory: Path, *, first: int = 1, step: int = 1
) -> Swept:
    """Let ``effect`` strike all calls from every ``step``-th on, for 0.4 s."""
    done = _sweep(call, effect, directory, range(first, MOST_POSITIONS, step), _outlast)
    return done._replace(effect=f"{effect} lasting")


def _sweep(
    call: str,
    effect: str,
    directory: Path,
    positions: range,
    strike: Callable[[Fault, Node, Forks], bool],
) -> Swept:
    wrong: list[str] = []
    struck = 0
    with Oracle() as oracle, Forks("faults.subject") as forks:
        for when in positions:
            fault = Fault(call, effect, str(when))
            node = Node(f"{call}-{when}", directory / f"{call}-{when}", oracle.url)
            if not strike(fault, node, forks):
                break
            struck += 1
            node.drain(forks)
            if found := _wrong(fault, node, oracle):
                wrong.append(f"{fault}: {found}")
        wrong += oracle.contradictions
    return Swept(call, effect, struck, wrong)


def _strike(fault: Fault, node: Node, forks: Forks) -> bool:
    """Run once under ``fault``; whether there was a call for it to strike."""
    subject = node.start(forks, held=True, cycles=_CYCLES)
    with injected(fault, subject.pid) as injection:
        status = subject.wait()
    assert status in ({-signal.SIGKILL, 0} if fault.effect == KILL else {0}), (
        f"{fault}: {status}\n{node.log.read_text()[-2000:]}"
    )
    return injection.struck


def _strike_main(fault: Fault, node: Node, forks: Forks) -> bool:
    return _strike(fault._replace(follows=False), node, forks)


def _strike_recovery(fault: Fault, node: Node, forks: Forks) -> bool:
    subject = node.start(forks)
    time.sleep(_BEFORE_SECONDS)
    assert subject.kill() == -signal.SIGKILL, node.log.read_text()[-2000:]
    return _strike(fault, node, forks)


def _outlast(fault: Fault, node: Node, forks: Forks) -> bool:
    """The same, but the fault ends before the run does."""
    subject = node.start(
        forks, held=True, cycles=_LASTING_CYCLES, hurry=_LASTING_HURRY, batch_size=20
    )
    lasting = fault._replace(when=f"{fault.when}+")
    with injected(lasting, subject.pid, lasts=True) as injection:
        time.sleep(_LASTING_SECONDS)
    assert subject.wait() == 0, f"{fault}\n{node.log.read_text()[-2000:]}"
    return injection.struck


def _wrong(fault: Fault, node: Node, oracle: Oracle) -> str:
    """Who was killed promised only what was told; who lived owes all that was taken in."""
    promised = node.told() if fault.effect == KILL else node.kept()
    found = account(promised, oracle.points(node.name))
    return "" if found.is_exact else str(found)
