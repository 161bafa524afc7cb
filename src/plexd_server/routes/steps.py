"""Work in steps, between which the event loop does other things."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

    from plexd.clock import Clock

T = TypeVar("T")


async def in_steps(steps: Generator[None, None, T], clock: Clock) -> T:
    """Take the steps, with a turn for all others after each, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        await clock.sleep(0)
