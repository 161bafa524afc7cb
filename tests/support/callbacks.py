"""How long the callbacks of an event loop take."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["MOST_SECONDS", "longest_callback"]

# A tracer that counts covered lines makes each of them several times as dear.
MOST_SECONDS: Final = 0.02 if sys.gettrace() is None else 0.2
_ATTEMPTS: Final = 8  # others may have the processor's caches meanwhile


async def longest_callback(
    work: Callable[[], Awaitable[None]], thread: str = "MainThread"
) -> float:
    """Return the seconds of the longest callback of ``work``; its best attempt counts."""
    least = float("inf")
    for _ in range(_ATTEMPTS):
        with _watched_callbacks(thread) as taken:
            await work()
        least = min(least, max(taken))
        if least < MOST_SECONDS / 2:
            break
    return least


@contextmanager
def _watched_callbacks(thread: str) -> Iterator[list[float]]:
    """Note the processor time of the loop's own thread that each callback takes.

    Only callbacks on threads whose name begins with ``thread`` count. What the test run has in
    memory is kept from the garbage collector meanwhile.
    """
    taken: list[float] = []
    gc.collect()
    gc.freeze()
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        if threading.current_thread().name.startswith(thread):
            taken.append(time.thread_time() - began)

    asyncio.Handle._run = timed  # type: ignore[assignment,method-assign]
    try:
        yield taken
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.unfreeze()
