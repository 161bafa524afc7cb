"""A base for what holds connections or files: an async context manager that ends in ``aclose``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class AsyncClosing:
    """Gives a class with an idempotent ``aclose`` its ``async with``; it hides no errors."""

    async def aclose(self) -> None:
        """Close everything that is open; a second call does nothing."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
