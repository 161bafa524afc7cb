"""The operator's login token, and the cookie that a browser keeps in its place."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from plexd_server.errors import StartError
from plexd_server.registry import hash_token

if TYPE_CHECKING:
    from pathlib import Path

_MIN_LENGTH: Final = 16
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(slots=True)
class OperatorKey:
    """What is kept of the operator's token: its hash, and the hash of its cookie.

    It is replaced in place when the token's file is read again.

    The cookie is derived from the token, so it outlives a restart with the same token without
    containing the token.
    """

    token_hash: bytes
    cookie_hash: bytes

    @classmethod
    def of(cls, token: str) -> OperatorKey:
        """Hash a token and its cookie."""
        return cls(hash_token(token), hash_token(cookie_value(token)))

    def replace(self, token: str) -> None:
        """Keep another token from now on."""
        other = OperatorKey.of(token)
        self.token_hash, self.cookie_hash = other.token_hash, other.cookie_hash

    def matches_token(self, token_hash: bytes) -> bool:
        """Whether this is the token's hash. Takes the same time either way."""
        return hmac.compare_digest(token_hash, self.token_hash)

    def matches_cookie(self, cookie_hash: bytes) -> bool:
        """Whether this is the cookie's hash. Takes the same time either way."""
        return hmac.compare_digest(cookie_hash, self.cookie_hash)


def cookie_value(token: str) -> str:
    """Derive what the browser keeps in place of the token."""
    return hmac.new(token.encode(), b"plexd-server operator cookie", hashlib.sha256).hexdigest()


def new_operator_token() -> str:
    """Make a new login token."""
    return secrets.token_urlsafe(32)


def read_operator_token(path: Path) -> str:
    """Read the login token from a file. Raises `StartError` with what to do about it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text("ascii").strip()
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
