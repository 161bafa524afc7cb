"""What opening a secret can end in.

Exception
└── DecryptError    this envelope is not for this key: fetch it again, never use a part of it
"""

from __future__ import annotations


class DecryptError(Exception):
    """An envelope that cannot be opened. Text, type and chain are the same for every reason."""

    def __init__(self, message: str = "nodeapi: decryption failed") -> None:
        super().__init__(message)
