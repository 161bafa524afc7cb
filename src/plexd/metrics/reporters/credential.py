"""The local endpoint's bearer token: fetched sealed, opened here, kept for five minutes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from plexd.api import Secret
from plexd.metrics.errors import CredentialError
from plexd.nodeapi import decrypt_secret

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd.metrics.ports import SecretFetcher
    from plexd.metrics.warnings import Warnings

__all__ = ["Credential"]

_FRESH_SECONDS = 300.0


class Credential:
    """One secret of one node, in the clear (seed, "Credential Resolution").

    Any number of concurrent `token` calls cause one fetch. A token past its five minutes serves
    on, with a warning, for as long as no new one can be had.
    """

    def __init__(
        self,
        fetcher: SecretFetcher,
        nsk: bytes,
        node_id: str,
        key: str,
        *,
        warnings: Warnings,
        clock: Clock,
    ) -> None:
        self._fetcher = fetcher
        self._nsk = nsk
        self._node_id = node_id
        self._key = key
        self._warnings = warnings
        self._clock = clock
        self._refreshing = asyncio.Lock()
        self._token: Secret | None = None
        self._fetched_at = 0.0

    async def token(self) -> Secret:
        """The bearer token. Raises `CredentialError` when there is none, not even an old one."""
        if (token := self._fresh()) is not None:
            return token
        async with self._refreshing:
            if (token := self._fresh()) is not None:
                return token
            return await self._refresh()

    def expire(self) -> None:
        """The endpoint refused the token: fetch it anew next time."""
        self._fetched_at = self._clock.monotonic() - _FRESH_SECONDS

    def _fresh(self) -> Secret | None:
        age = self._clock.monotonic() - self._fetched_at
        return self._token if self._token and age < _FRESH_SECONDS else None

    async def _refresh(self) -> Secret:
        try:
            sealed = await self._fetcher.fetch_secret(self._node_id, self._key)
            token = Secret(decrypt_secret(self._nsk, sealed.ciphertext, sealed.nonce))
            _check(token)
        except Exception as err:
            reason = str(err) or type(err).__name__
            if self._token is None:
                raise CredentialError(f"metrics: local: credential: {reason}") from err
            self._warnings.warn("using cached credential", self._key, error=reason)
            return self._token
        self._token, self._fetched_at = token, self._clock.monotonic()
        return token


def _check(token: Secret) -> None:
    """A bearer token goes into a header; anything else there would be an injection."""
    text = token.reveal()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("the secret is not a bearer token: it must be printable ASCII")
