"""Envelopes of AES-256-GCM (NIST SP 800-38D) under a node's secret key.

    key         32 bytes, the node secret key
    nonce       base64 of 12 random bytes, fresh for every envelope
    ciphertext  base64 of the encrypted UTF-8 text followed by the 16-byte tag

There is no additional authenticated data. Base64 is RFC 4648's standard alphabet with padding;
one sequence of bytes has exactly one accepted spelling.
"""

from __future__ import annotations

import base64
import os
from typing import Final

from plexd.nodeapi.errors import DecryptError

_KEY_BYTES: Final = 32
# Random nonces of 96 bits are safe for 2^32 envelopes under one key (SP 800-38D, 8.3).
_NONCE_BYTES: Final = 12


def seal_secret(nsk: bytes, plaintext: str) -> tuple[str, str]:
    """Put ``plaintext`` into an envelope that only ``nsk`` opens: ``(ciphertext, nonce)``.

    Two envelopes of one text have only their length in common. Raises `ValueError`
    when ``nsk`` is not exactly 32 bytes or the text has no UTF-8 form (lone surrogates).
    """
    if not _is_key(nsk):
        raise ValueError(f"nodeapi: the node secret key must be {_KEY_BYTES} bytes")
    # Imported here and below: 10 MB resident, which a node without a secret never needs.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # see above

    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(nsk).encrypt(nonce, plaintext.encode(), None)
    return base64.b64encode(sealed).decode(), base64.b64encode(nonce).decode()


def decrypt_secret(nsk: bytes, ciphertext: str, nonce: str) -> str:
    """Return the text inside an envelope of `seal_secret`.

    Raises `DecryptError` for every failure alike: other key, altered or cut bytes, sloppy base64,
    wrong types, text that is no UTF-8. It has neither cause nor context, so that a log
    never shows which of them it was.
    """
    plaintext = _open(nsk, _from_base64(ciphertext), _from_base64(nonce))
    if plaintext is None:
        # Raised outside any handler: `from None` would hide the context, not remove it.
        raise DecryptError
    return plaintext


def _open(nsk: bytes, sealed: bytes | None, nonce: bytes | None) -> str | None:
    if sealed is None or nonce is None or len(nonce) != _NONCE_BYTES or not _is_key(nsk):
        return None
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # as in seal_secret
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # the same

    try:
        return AESGCM(nsk).decrypt(nonce, sealed, None).decode()
    except (InvalidTag, ValueError, OverflowError):
        return None


def _is_key(nsk: object) -> bool:
    return isinstance(nsk, bytes) and len(nsk) == _KEY_BYTES


def _from_base64(text: object) -> bytes | None:
    """Return the bytes, None unless ``text`` is exactly what an encoder makes of them.

    Line breaks in it are skipped, as encoders of MIME and PEM write them and Go's decoder reads
    them (RFC 4648, 3.1 and 3.3).
    """
    if not isinstance(text, str):
        return None
    text = text.replace("\r", "").replace("\n", "")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    # Decoders ignore stray bits in the last character and, sometimes, excess padding.
    return data if base64.b64encode(data) == text.encode() else None
