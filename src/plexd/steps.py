"""Work in steps, between which an event loop does other things."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

    from plexd.clock import Clock

T = TypeVar("T")


def finish(steps: Generator[None, None, T]) -> T:
    """Take all steps at once, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


async def in_steps(steps: Generator[None, None, T], clock: Clock) -> T:
    """Take the steps, with a turn for all others after each, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        await clock.sleep(0)
