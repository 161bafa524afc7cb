"""Text that must not end up in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Secret", "check_bearer"]

_REDACTED = "[redacted]"


class Secret(str):
    """A `str` that shows ``[redacted]`` wherever it is printed, formatted or dumped.

    It compares, hashes and measures as the text it holds; `reveal` is the one way to the text.
    An empty secret shows as empty, so that a dump tells "not set" from "set".
    """

    __slots__ = ()

    def __new__(cls, text: str = "") -> Self:
        """``text`` kept secret; a secret made of a secret is the same text, not its redaction."""
        return super().__new__(cls, str.__str__(text))

    def reveal(self) -> str:
        """The text itself, as a plain `str`."""
        return str.__str__(self)

    def __str__(self) -> str:
        return _REDACTED if self else ""

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


def check_bearer(name: str, token: Secret) -> None:
    """Raise `ValueError` unless ``token`` is empty or can stand in an ``Authorization`` header.

    Spaces and line ends, such as a file's last one, are refused: no server means them.
    """
    text = token.reveal()
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError(f"{name} is not a bearer token: it must be printable ASCII")
