"""Ending a task that may not want to end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plexd.clock import Clock

__all__ = ["cut"]

# How long a cancelled task may take to end before it is left to itself.
_PATIENCE_SECONDS = 1.0


async def cut(task: asyncio.Task[Any], clock: Clock) -> None:
    """Cancel ``task`` and wait for its end, but for a second at most.

    A task that ignores its cancellation is left running; its outcome, whenever, is not looked at.
    """
    task.cancel()
    try:
        async with clock.timeout(_PATIENCE_SECONDS):
            await asyncio.wait([task])
    except TimeoutError:
        task.add_done_callback(_look_away)


def _look_away(task: asyncio.Task[Any]) -> None:
    """Retrieve the outcome, or asyncio would log that nobody did."""
    if not task.cancelled():
        task.exception()
