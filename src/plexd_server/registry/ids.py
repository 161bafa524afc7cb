"""Names, tokens and keys: what they look like, and how new ones are made."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import string
from typing import TYPE_CHECKING, Final

from plexd_server.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Container

_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_NODE_ID: Final = 63
_KEY_ALPHABET: Final = string.ascii_letters + string.digits
_KEY_LENGTH: Final = 32
_PUBLIC_KEY_BYTES: Final = 32


def hash_token(token: str) -> bytes:
    """Return the SHA-256 of a token, the only form in which it is kept.

    Tokens are 256 random bits, so a slow hash would only slow the server down.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def is_node_id(text: str) -> bool:
    """Whether ``text`` may name a node: ASCII letters, digits, ``._-``, at most 63 of them."""
    return _NODE_ID.fullmatch(text) is not None


def check_node_id(node_id: str) -> None:
    """Raise `RegistryError` for what cannot name a node."""
    if not is_node_id(node_id):
        raise RegistryError(
            f"{node_id!r} cannot name a node: use at most 63 letters, digits, '.', '_' and "
            "'-', the first a letter or digit"
        )


def is_public_key(text: str) -> bool:
    """Whether ``text`` is a WireGuard key in the one spelling that ``wg`` prints."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return len(raw) == _PUBLIC_KEY_BYTES and base64.b64encode(raw).decode() == text


def new_token() -> str:
    """Return 256 random bits, fit for a header and a URL."""
    return secrets.token_urlsafe(32)


def new_node_secret_key() -> str:
    """Return 32 printable characters whose bytes are an AES-256 key."""
    return "".join(secrets.choice(_KEY_ALPHABET) for _ in range(_KEY_LENGTH))


def free_node_id(hostname: str, taken: Container[str]) -> str:
    """Return ``hostname`` as a node id, followed by the first number that makes it free."""
    name = _NOT_ALLOWED.sub("-", hostname).strip("-._")[:_MAX_NODE_ID] or "node"
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        end = f"-{number}"
        candidate = name[: _MAX_NODE_ID - len(end)] + end
    return candidate
