"""SIGTERM, SIGINT and SIGHUP end the program in the ordinary way."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def until_stopped(work: Coroutine[object, object, None]) -> None:
    """Await ``work``; the first signal cancels it, later ones are ignored for good.

    ``work`` must bound the time of its clean-up. Its own failures are raised.
    """
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        if not stopping.is_set():
            stopping.set()
            task.cancel()

    numbers = [number for number in _SIGNALS if not _is_ignored(number)]
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise
    finally:
        _ignore_signals(loop, numbers)


def _is_ignored(number: signal.Signals) -> bool:
    """Whether the caller wants the program to outlive its terminal, as nohup(1) does."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def _ignore_signals(loop: asyncio.AbstractEventLoop, numbers: list[signal.Signals]) -> None:
    # Closing the loop would bring the default handlers back, and a second Ctrl-C would print a
    # traceback.
    for number in numbers:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
