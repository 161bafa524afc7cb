"""The operator's login token: made at each start, or kept in a file."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from plexd.durable import open_to_read
from plexd_server.errors import StartError
from plexd_server.registry import hash_token

if TYPE_CHECKING:
    from pathlib import Path

_MIN_LENGTH: Final = 16
_MAX_BYTES: Final = 4096
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(slots=True)
class OperatorKey:
    """What is kept of the operator's token: its hash.

    It is replaced in place when the token's file is read again.
    """

    token_hash: bytes

    @classmethod
    def of(cls, token: str) -> OperatorKey:
        """Hash a token."""
        return cls(hash_token(token))

    def replace(self, token: str) -> None:
        """Keep another token from now on."""
        self.token_hash = hash_token(token)

    def matches_token(self, token_hash: bytes) -> bool:
        """Whether this is the token's hash. Takes the same time either way."""
        return hmac.compare_digest(token_hash, self.token_hash)


def new_operator_token() -> str:
    """Make a new login token."""
    return secrets.token_urlsafe(32)


def read_operator_token(path: Path) -> str:
    """Read the login token from a file. Raises `StartError` with what to do about it."""
    try:
        with open_to_read(path) as opened:
            mode = os.fstat(opened.fileno()).st_mode
            token = opened.read(_MAX_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or "it holds more than ASCII"
        raise StartError(f"cannot read the operator token from {path}: {reason}") from err
    if mode & _OTHERS:
        raise StartError(f"others can read the operator token in {path}; run: chmod 600 {path}")
    if len(token) < _MIN_LENGTH or not token.replace("-", "").replace("_", "").isalnum():
        raise StartError(
            f"the operator token in {path} must be at least {_MIN_LENGTH} letters, "
            "digits, '-' or '_'; make one with: openssl rand -hex 32"
        )
    return token
