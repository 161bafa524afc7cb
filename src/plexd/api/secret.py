"""Text that must not end up in a log."""

from __future__ import annotations

__all__ = ["Secret"]

_REDACTED = "[redacted]"


class Secret(str):
    """A `str` that shows ``[redacted]`` wherever it is printed, formatted or dumped.

    It compares, hashes and measures as the text it holds; `reveal` is the one way to the text.
    An empty secret shows as empty, so that a dump tells "not set" from "set".
    """

    __slots__ = ()

    def reveal(self) -> str:
        """The text itself, as a plain `str`."""
        return str.__str__(self)

    def __str__(self) -> str:
        return _REDACTED if self else ""

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)
