"""The node's side of the control plane's HTTP interface."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Raw, Struct

from plexd import __version__
from plexd.api.answers import parse_reason, parse_retry_after, without_half_characters
from plexd.api.bearer import Bearer
from plexd.api.diagnosis import refuse_if_https
from plexd.api.errors import APIError, DecodeError, TransportError
from plexd.api.peer_entries import decode_peers
from plexd.api.proxy import parse_proxy
from plexd.api.secret import Secret
from plexd.api.transport import HTTPTransport
from plexd.api.trust import Trust
from plexd.api.wire import Receipt, Registration, SecretResponse
from plexd.api.zones import check_zone
from plexd.clock import Clock, SystemClock
from plexd.closing import AsyncClosing
from plexd.log_once import LogOnce
from plexd.text import with_scheme

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from plexd.api.batch import MetricBatch
    from plexd.api.config import Config
    from plexd.api.connection import Answer
    from plexd.api.wire import Peer

_T = TypeVar("_T")

# An acknowledgement or a reason is short; a mesh of 10,000 peers is some megabytes.
_SHORT = 64 * 1024
_LONG = 16 * 1024 * 1024
_MOST_VALUES = 1_000_000
# ISA-L's level 1 is as dense as zlib's on these bodies at a third of its time (docs/adr/0004).
_GZIP_LEVEL = 1
_GZIP_WINDOW = 31

_TOKEN_REFUSED = {401, 403}
_PROXY_REFUSED = 407

_NOT_IN_A_URL = re.compile(r"[^\x21-\x7e]")


# Lists are read entry by entry (see `decode_peers`), and null is an empty one.


class _State(Struct, frozen=True):
    peers: list[Raw] | None = None


class _Enrolled(Struct, frozen=True):
    node_id: str
    mesh_ip: str
    node_secret_key: str
    auth_token: str
    peers: list[Raw] | None = None


class ControlPlane(AsyncClosing):
    """A client of one control plane: `MetricReporter`, `SecretFetcher` and `ReconnectCounter`.

    Opens its connection with the first request and keeps it; an async context manager, closed
    by its maker. Safe for concurrent calls within one event loop. Every call raises
    `APIError` for an answer that is no 2xx (redirects are not followed), `TransportError` or
    `TLSError` when there was none, and `DecodeError` for a 2xx whose body is needed and is not
    what the contract says. Raises `ValueError` at once for a ``base_url`` that is no HTTP URL
    or holds more than scheme, host, port and path, and for a token that no header can carry.

    After a 401 or 403, ``read_token`` (which may block) is called once for all calls of that
    moment; if it returns another token, each call is repeated once with it.
    """

    def __init__(
        self,
        config: Config,
        *,
        version: str = __version__,
        logger: logging.Logger | None = None,
        clock: Clock | None = None,
        read_token: Callable[[], str] | None = None,
    ) -> None:
        self._base_url = _checked_base_url(config.base_url)
        self._bearer = Bearer(Secret(config.auth_token), read_token, logger)
        self._logger = logger
        self._clock = clock or SystemClock()
        self._warnings = LogOnce(logger, "api", clock=self._clock)
        self._proxy = parse_proxy(config.proxy)
        self._transport = HTTPTransport(
            user_agent=f"plexd/{version}",
            trust=Trust(config.ca_file, config.tls_insecure_skip_verify),
            connect_timeout=config.connect_timeout,
            request_timeout=config.request_timeout,
            proxy=self._proxy,
        )

    async def report_metrics(self, node_id: str, batch: MetricBatch) -> Receipt | None:
        """Deliver one batch, gzip-compressed; on return the control plane has it.

        Any 2xx is an acknowledgement; None stands for one that says no more. The headers of a
        named batch follow the delivery contract: ``Plexd-Batch``, ``Plexd-After`` and
        ``Plexd-Dropped``.
        """
        from isal import isal_zlib  # noqa: PLC0415  # loaded with the first report

        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        if batch.name is not None:
            headers["Plexd-Batch"] = str(batch.name)
        if batch.after is not None:
            headers["Plexd-After"] = str(batch.after)
        if batch.name is not None or batch.dropped:
            headers["Plexd-Dropped"] = str(batch.dropped)
        body = isal_zlib.compress(batch.to_json(), _GZIP_LEVEL, wbits=_GZIP_WINDOW)
        path = f"/v1/nodes/{_segment(node_id)}/metrics"
        answer = await self._request("POST", path, headers, body, cap=_SHORT)
        with suppress(DecodeError):
            return _decode(answer, Receipt)
        return None

    async def fetch_secret(self, node_id: str, key: str) -> SecretResponse:
        """Return the secret called ``key``, sealed for this node (see `plexd.nodeapi`)."""
        path = f"/v1/nodes/{_segment(node_id)}/secrets/{_segment(key)}"
        answer = await self._request("GET", path, {}, cap=_SHORT)
        return _decode(answer, SecretResponse)

    async def fetch_peers(self, node_id: str) -> list[Peer]:
        """Return the node's peers in the mesh, as the control plane knows them now.

        An entry that is no `Peer` is left out, and a warning says so. Whether the others can be
        used (their keys and addresses, and that no two are the same) is for the caller to see.
        """
        path = f"/v1/nodes/{_segment(node_id)}/state"
        answer = await self._request("GET", path, {}, cap=_LONG)
        return await self._peers(_decode(answer, _State).peers)

    async def register(
        self, token: str, public_key: str, hostname: str, metadata: Mapping[str, str]
    ) -> Registration:
        """Enrol this machine with a bootstrap token; return its identity in the mesh.

        Its peers are read as by `fetch_peers`. The call is not repeated after a lost answer: a
        one-time token may be used up by then.
        """
        secret = Secret(token)
        fields = {
            "token": secret.reveal(),
            "public_key": public_key,
            "hostname": hostname,
            "metadata": dict(metadata),
        }
        headers = {"Content-Type": "application/json"}
        body = msgspec.json.encode(fields)
        answer = await self._exchange(
            "POST", "/v1/register", headers, body, cap=_LONG, repeatable=False
        )
        made = _decode(self._accepted(answer, secret), _Enrolled)
        peers = await self._peers(made.peers)
        return Registration(
            made.node_id, made.mesh_ip, made.node_secret_key, made.auth_token, peers
        )

    async def _peers(self, entries: list[Raw] | None) -> list[Peer]:
        found = await decode_peers(entries or ())
        if found.left_out:
            self._warnings.warn("peers left out", "", count=found.left_out, error=found.error)
        return found.peers

    def reconnect_count(self) -> int:
        """Return how many connections to the control plane followed the first one."""
        return max(0, self._transport.connections - 1)

    async def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        cap: int,
    ) -> Answer:
        """Send with the token, and again with the newer one if the token is refused."""
        token = self._bearer.token
        answer = await self._exchange(method, path, _with(token, headers), body, cap=cap)
        if answer.status in _TOKEN_REFUSED:
            token, refused = await self._bearer.renewed(token), token
            if token != refused:
                answer = await self._exchange(method, path, _with(token, headers), body, cap=cap)
        return self._accepted(answer, token)

    async def _exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        cap: int,
        repeatable: bool = True,
    ) -> Answer:
        answer = await self._transport.request(
            method,
            self._base_url + path,
            headers=headers,
            body=body,
            cap=cap,
            repeatable=repeatable,
        )
        if self._logger is not None:
            extra = {"component": "api", "method": method, "status": answer.status}
            self._logger.debug("api answered", extra=extra)
        if answer.status == _PROXY_REFUSED and self._proxy is not None:
            # Without a tunnel, a proxy's refusal looks like an answer of the control plane.
            reason = f"the proxy {self._proxy.url}: {parse_reason(answer.status, b'')} (HTTP 407)"
            raise TransportError(reason, was_connected=False)
        return answer

    def _accepted(self, answer: Answer, hide: Secret) -> Answer:
        if 200 <= answer.status < 300:
            return answer
        if answer.status == 400 and self._base_url.startswith("http:"):
            refuse_if_https(answer.body)
        reason = parse_reason(answer.status, answer.body, hide=hide)
        if 300 <= answer.status < 400:
            reason = "redirects are not followed: correct the base URL"
        wait = parse_retry_after(answer.headers.get("Retry-After"), self._clock.now())
        raise APIError(answer.status, reason, wait)

    async def aclose(self) -> None:
        """Close the connection; idempotent."""
        await self._bearer.aclose()
        await self._transport.aclose()


def _checked_base_url(text: str) -> str:
    """Return ``text`` without the slashes at its end, ready to have a path put after it."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        hint = with_scheme(text)
        raise ValueError(f"base_url must be an http or https URL, got {text!r}{hint}") from None
    if "@" in parts.netloc:
        raise ValueError("base_url must not hold a user name or a password")
    known = parts.scheme in {"http", "https"} and parts.hostname
    if not known or _NOT_IN_A_URL.search(text):
        hint = with_scheme(text)
        raise ValueError(f"base_url must be an http or https URL, got {text!r}{hint}")
    if "?" in text or "#" in text:
        raise ValueError(f"base_url must end with its path, got {text!r}")
    check_zone(text)
    return text.rstrip("/")


def _with(token: Secret, headers: Mapping[str, str]) -> dict[str, str]:
    if not token:
        return dict(headers)
    return {**headers, "Authorization": f"Bearer {token.reveal()}"}


def _segment(text: str) -> str:
    """Return ``text`` as one path segment (RFC 3986, 3.3), whatever it holds."""
    if text in {"", ".", ".."}:
        # No escape exists for these: "%2E%2E" is a dot segment as well.
        raise ValueError(f"{text!r} cannot be part of a path")
    return quote(text, safe="")


def _decode(answer: Answer, kind: type[_T]) -> _T:
    if answer.cut:
        raise DecodeError(f"the answer is longer than {len(answer.body)} bytes")
    if answer.body.count(b",") >= _MOST_VALUES:
        # Each becomes an object: sixteen megabytes of [0,0,...] would be half a gigabyte.
        raise DecodeError(f"the answer has more than {_MOST_VALUES} values")
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        body = without_half_characters(answer.body)
        if body != answer.body:
            return _decode(msgspec.structs.replace(answer, body=body), kind)
        raise DecodeError(f"not an answer this client understands: {err}") from err
