"""Tasks that live as long as a block, and ways to end a task."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from plexd.clock import Clock

# How long `cut` waits for a cancelled task to end.
_LONGEST_WAIT_SECONDS = 1.0


@asynccontextmanager
async def in_background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``works`` while the body runs, and cancel them at its end.

    A work that fails cancels the body, and its error is raised in place of the cancellation.
    """
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as failed:
        failure = failed.exceptions[0] if len(failed.exceptions) == 1 else failed
    if failure is not None:  # out here, where its cause is not replaced by the group
        raise failure


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel ``tasks`` and return once all have ended; their outcomes are ignored."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def cut(task: asyncio.Task[Any], clock: Clock) -> None:
    """Cancel ``task`` and wait for its end, for a second at most.

    A task that ignores its cancellation is left running, and its outcome is ignored.
    """
    try:
        async with clock.timeout(_LONGEST_WAIT_SECONDS):
            await cancel(task)
    except TimeoutError:
        task.add_done_callback(_discard_outcome)


def _discard_outcome(task: asyncio.Task[Any]) -> None:
    """Retrieve the outcome, or asyncio would log that it was never retrieved."""
    if not task.cancelled():
        task.exception()
