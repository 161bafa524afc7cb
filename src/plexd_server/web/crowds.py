"""Memory that a crowd of connections leaves behind, and its way back to the system.

What a crowd used is free for the next one, but glibc gives it back only from the end of its heap,
where something else usually lies.
"""

from __future__ import annotations

import asyncio
import ctypes
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from plexd.clock import Clock

_CROWD: Final = 256
_LEFT: Final = 4  # a crowd is gone when a fourth of it is left
_EVERY_SECONDS: Final = 5.0


async def giving_memory_back(
    connections: Callable[[], int], clock: Clock, trim: Callable[[], None] | None = None
) -> None:
    """Have free memory given back whenever a crowd has gone; never returns.

    ``connections`` says how many are open.
    """
    most = 0
    while True:
        await clock.sleep(_EVERY_SECONDS)
        most = max(most, connections())
        if most >= _CROWD and connections() <= most // _LEFT:
            most = connections()
            await asyncio.to_thread(trim or trim_heap)


def trim_heap() -> None:
    """Give whole free pages of the heap back to the system, where the C library can (glibc)."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
