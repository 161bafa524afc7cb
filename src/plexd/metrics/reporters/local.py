"""Delivery to the site-local endpoint (seed, "LocalReporter")."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from plexd import __version__
from plexd.api import (
    APIError,
    HTTPTransport,
    LocalEndpointConfig,
    MetricBatch,
    Secret,
    Trust,
    parse_reason,
)
from plexd.clock import Clock, SystemClock
from plexd.closing import AsyncClosing
from plexd.log_once import LogOnce
from plexd.metrics.reporters.credential import Credential

if TYPE_CHECKING:
    import logging

    from plexd.metrics.ports import MetricReporter, SecretFetcher

_TIMEOUT = timedelta(seconds=10)
_CAP = 64 * 1024
_KEPT = "!$%&'()*+,/:;=?@[]~"  # in a path or query (RFC 3986); escapes are there already
_TOKEN_REFUSED = {401, 403}


class LocalReporter(AsyncClosing):
    """POSTs batches as plain JSON to one HTTPS endpoint, with a bearer token of its own.

    Shares nothing with the control plane's client: own connections, TLS settings and credential.
    One exchange takes at most ``timeout``, connecting included. An async context manager, closed
    by its maker; safe for concurrent reports of one event loop. ``config`` is not checked here:
    `Config.validate` has made sure that its URL is HTTPS.
    """

    def __init__(
        self,
        config: LocalEndpointConfig,
        fetcher: SecretFetcher,
        nsk: bytes,
        node_id: str,
        logger: logging.Logger | None = None,
        *,
        clock: Clock | None = None,
        timeout: timedelta = _TIMEOUT,
    ) -> None:
        clock = clock or SystemClock()
        key = Secret(config.secret_key).reveal()
        warnings = LogOnce(logger, "metrics", clock=clock)
        self._url = _escaped(config.url)
        self._credential = Credential(fetcher, nsk, node_id, key, warnings=warnings, clock=clock)
        self._transport = HTTPTransport(
            user_agent=f"plexd/{__version__}",
            trust=Trust(skip_verify=config.tls_insecure_skip_verify),
            connect_timeout=timeout,
            request_timeout=timeout,
        )

    async def report_metrics(self, node_id: str, batch: MetricBatch) -> None:  # noqa: ARG002  # the endpoint knows one node: the token's
        """Send once, without retry. Raises `APIError` for an answer that is no 2xx.

        Raises `CredentialError`, having sent nothing, when there is no token, and
        `TransportError` or `TLSError` when there was no answer. Redirects are not followed, so
        the token never reaches another host.
        """
        token = await self._credential.token()
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {token.reveal()}",
        }
        answer = await self._transport.request(
            "POST", self._url, headers=headers, body=batch.to_json(), cap=_CAP
        )
        if answer.status in _TOKEN_REFUSED:
            self._credential.expire(token)
        if not 200 <= answer.status < 300:
            raise APIError(answer.status, parse_reason(answer.status, answer.body, hide=token))

    async def aclose(self) -> None:
        """Close the connection; idempotent."""
        await self._transport.aclose()


def _escaped(url: str) -> str:
    """Return ``url`` as it is sent: names in their ASCII form, the rest percent-escaped."""
    parts = urlsplit(url)
    host = parts.netloc
    if not host.isascii():
        with suppress(UnicodeError):  # no such name is ever found
            host = host.encode("idna").decode()
    return urlunsplit((parts.scheme, host, *(quote(part, _KEPT) for part in parts[2:4]), ""))


if TYPE_CHECKING:
    _: type[MetricReporter] = LocalReporter
