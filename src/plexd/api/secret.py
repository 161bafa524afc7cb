"""Text that must not end up in a log."""

from __future__ import annotations

from typing import NoReturn, Self

_REDACTED = "[redacted]"


class Secret(str):
    """Text that is ``[redacted]`` wherever it is printed, joined, encoded or dumped.

    As a `str` it *is* the redaction, so that no serialiser reveals it; it compares and hashes as
    the text it holds, which only `reveal` returns. An empty secret is an empty string, so that a
    dump distinguishes "not set" from "set".
    """

    __slots__ = ("_text",)

    _text: str

    def __new__(cls, text: str = "") -> Self:
        """Keep ``text`` secret; a secret made of a secret holds the same text."""
        text = text.reveal() if isinstance(text, Secret) else text
        made = super().__new__(cls, _REDACTED if text else "")
        made._text = text
        return made

    def reveal(self) -> str:
        """Return the text itself, as a plain `str`."""
        return self._text

    def __eq__(self, other: object) -> bool:
        text = other.reveal() if isinstance(other, Secret) else other
        return self._text == text

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not to be pickled")


def check_bearer(name: str, token: Secret) -> None:
    """Raise `ValueError` unless ``token`` is empty or fits into an ``Authorization`` header.

    Spaces and line ends, such as a file's last one, are refused: no token has them.
    """
    text = token.reveal()
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError(f"{name} is not a bearer token: it must be printable ASCII")
