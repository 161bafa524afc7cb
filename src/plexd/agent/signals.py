"""SIGTERM, SIGINT and SIGHUP as the ordinary way to end."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["until_stopped"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def until_stopped(work: Coroutine[object, object, None]) -> None:
    """Await ``work``; the first signal cancels it, those after are ignored for good.

    ``work`` bounds how long its clean-up takes. Its own failures are raised.
    """
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        if not stopping.is_set():
            stopping.set()
            task.cancel()

    numbers = [number for number in _SIGNALS if not _is_left_alone(number)]
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise
    finally:
        _ignore_signals(loop, numbers)


def _is_left_alone(number: signal.Signals) -> bool:
    """Whether whoever started this wants it to outlive its terminal, as nohup(1) does."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def _ignore_signals(loop: asyncio.AbstractEventLoop, numbers: list[signal.Signals]) -> None:
    # Closing the loop would bring the default handlers back, and with them a traceback for
    # whoever presses Ctrl-C once more.
    for number in numbers:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
