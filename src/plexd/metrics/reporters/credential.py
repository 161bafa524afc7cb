"""The local endpoint's bearer token: fetched sealed, opened here, kept for five minutes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from plexd.api import Secret, check_bearer
from plexd.metrics.errors import CredentialError
from plexd.nodeapi import decrypt_secret
from plexd.rates import TokenBucket
from plexd.text import bare

if TYPE_CHECKING:
    from plexd.clock import Clock
    from plexd.log_once import LogOnce
    from plexd.metrics.ports import SecretFetcher

_FRESH_SECONDS = 300.0
# Without a limit, a fetcher that never answers would be the last fetch.
_TIMEOUT_SECONDS = 60.0
# A fetch that failed, or whose token was refused, is repeated with the next report, as the
# specification says. But a backlog drains at ten reports a second, and a control plane that has
# just come back must not get so many requests.
_FETCHES_AT_ONCE = 10
_FETCHES_PER_SECOND = 1 / 15


class Credential:
    """One secret of one node, in the clear (seed, "Credential Resolution").

    Any number of concurrent `token` calls cause one fetch and share its outcome. A token past its
    five minutes stays in use, with a warning, until a new one can be fetched. A fetch that failed
    is repeated with the next call, but after ten of them at most every fifteen seconds; a call in
    between shares the latest outcome. A fetch that takes a minute has failed.
    """

    def __init__(
        self,
        fetcher: SecretFetcher,
        nsk: bytes,
        node_id: str,
        key: str,
        *,
        warnings: LogOnce,
        clock: Clock,
    ) -> None:
        self._fetcher = fetcher
        self._nsk = nsk
        self._node_id = node_id
        self._key = key
        self._warnings = warnings
        self._clock = clock
        self._refreshing = asyncio.Lock()
        self._fetches = TokenBucket(_FETCHES_AT_ONCE, clock)
        self._token: Secret | None = None
        self._fetched_at = 0.0
        self._attempts = 0
        self._failure: Exception | None = LookupError("not fetched yet")

    async def token(self) -> Secret:
        """The bearer token. Raises `CredentialError` when there is none, not even an old one."""
        if (token := self._fresh()) is not None:
            return token
        attempts = self._attempts
        async with self._refreshing:
            if self._fresh() is None and self._attempts == attempts and self._may_fetch():
                await self._refresh()
            return self._outcome()

    def expire(self, refused: Secret) -> None:
        """Fetch again at the next call, unless a newer token has replaced the ``refused`` one."""
        if self._token == refused:
            self._fetched_at = self._clock.monotonic() - _FRESH_SECONDS

    def _may_fetch(self) -> bool:
        return self._fetches.take(_FETCHES_PER_SECOND) <= 0

    def _fresh(self) -> Secret | None:
        age = self._clock.monotonic() - self._fetched_at
        return self._token if self._token and age < _FRESH_SECONDS else None

    async def _refresh(self) -> None:
        try:
            self._token = await self._fetch()
        except Exception as err:  # noqa: BLE001  # whatever it is, `_outcome` reports it
            self._failure = err
        else:
            self._failure = None
            self._fetched_at = self._clock.monotonic()
        self._attempts += 1

    async def _fetch(self) -> Secret:
        async with self._clock.timeout(_TIMEOUT_SECONDS):
            sealed = await self._fetcher.fetch_secret(self._node_id, self._key)
        token = Secret(bare(decrypt_secret(self._nsk, sealed.ciphertext, sealed.nonce)))
        if not token:
            raise ValueError("the secret is empty")
        check_bearer("the secret", token)
        return token

    def _outcome(self) -> Secret:
        """The token after the latest attempt: a new one, or an old one with a warning."""
        if self._token is not None and self._failure is None:
            return self._token
        reason = str(self._failure) or type(self._failure).__name__
        if self._token is None:
            raise CredentialError(f"metrics: local: credential: {reason}") from self._failure
        self._warnings.warn("using cached credential", self._key, error=reason)
        return self._token
