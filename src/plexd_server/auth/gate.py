"""Which caller sent a request, and what that caller may do: a node, or the operator.

Only hashes are kept. A node is looked up by the hash of the token it sent, so the time that takes
says nothing about a real token; the operator's hash is compared in constant time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from plexd.rates import TokenBuckets
from plexd_server.auth.sessions import OperatorKey, cookie_value
from plexd_server.auth.throttle import WrongTokens, address_of, retry_after
from plexd_server.registry import INGEST, NODE, Holder, Registry, hash_token, is_node_id
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar import Request

    from plexd.clock import Clock

_LOG = logging.getLogger(__name__)
_MAX_TOKEN_LENGTH = 512
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="plexd-server"'}
_LOOKUP_SECONDS = 5.0
_LOOKUPS = 20_000
_NODE_BURST_SECONDS: Final = 10.0
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OPERATOR: Final = Holder("", "operator")  # no node has the empty id


class Gate:
    """Authenticates callers and passes each to its own paths; raises `Problem` for all others.

    A node's token is looked up at most every few seconds, so revoking it takes that long.
    ``cookie_name`` contains the port, as all ports of a host share their cookies. A node may make
    ``node_rate`` requests a second for long (0: any number), and ten seconds' worth at once.
    """

    def __init__(
        self,
        registry: Registry,
        operator: OperatorKey,
        *,
        cookie_name: str,
        clock: Clock,
        node_rate: float = 0.0,
        is_secure: bool = False,
    ) -> None:
        self._registry = registry
        self._operator = operator
        self._clock = clock
        self._holders: dict[bytes, tuple[Holder, float]] = {}
        self._wrong = WrongTokens(clock)
        self._refusals = TokenBuckets(clock, rate=1 / 60, burst=3)
        burst = max(1.0, node_rate * _NODE_BURST_SECONDS)
        self._rates = TokenBuckets(clock, rate=node_rate, burst=burst) if node_rate else None
        self.cookie_name = cookie_name
        self.is_secure = is_secure

    async def require_node(self, request: Request[Any, Any, Any], node_id: str) -> None:
        """Pass the node itself only. Another node's id and an unknown id are refused alike."""
        await self._require(request, Holder(node_id, NODE))

    async def require_ingest(self, request: Request[Any, Any, Any], node_id: str) -> None:
        """Pass only a token that was made for this node's ``/ingest`` path."""
        await self._require(request, Holder(node_id, INGEST))

    async def require_reader(self, request: Request[Any, Any, Any], node_id: str) -> None:
        """Pass the node itself and the operator; only the operator gets 404 for an unknown node."""
        if self._has_operator_key(request):
            await self._require_known(node_id)
            return
        await self.require_node(request, node_id)

    async def require_operator(self, request: Request[Any, Any, Any]) -> None:
        """Pass the operator only."""
        if not self._has_operator_key(request):
            raise self._forbidden(request, await self._holder(request))

    def is_operator(self, request: Request[Any, Any, Any]) -> bool:
        """Whether the request carries the operator's cookie or token.

        The cookie alone changes nothing: a change needs the ``Origin`` of our own pages as well.
        Raises `Problem` 429 for an address that sent too many wrong ones.
        """
        if self._has_operator_key(request):
            return True
        if token := _bearer_token(request):
            self._wrong.note_wrong(address_of(request), hash_token(token))
        return False

    def _has_operator_key(self, request: Request[Any, Any, Any]) -> bool:
        """Answer as `is_operator`, without counting another token: it may be a node's."""
        cookie = request.cookies.get(self.cookie_name, "")
        if cookie and self._is_right(request, cookie, self._operator.matches_cookie):
            if request.method in _SAFE_METHODS or _has_own_origin(request):
                return True
            raise Problem(403, "this page may not do that: it is of another origin")
        token = _bearer_token(request)
        if token is None:
            return False
        token_hash = hash_token(token)
        self._wrong.refuse_blocked(address_of(request), token_hash)
        if not self._operator.matches_token(token_hash):
            return False
        self._wrong.note_right(token_hash)
        return True

    def login(self, request: Request[Any, Any, Any], token: str) -> str | None:
        """Return the cookie for the right login token, None for any other."""
        is_possible = 0 < len(token) <= _MAX_TOKEN_LENGTH
        if is_possible and self._is_right(request, token, self._operator.matches_token):
            return cookie_value(token)
        return None

    def _is_right(
        self, request: Request[Any, Any, Any], value: str, matches: Callable[[bytes], bool]
    ) -> bool:
        """Whether the value is right; a wrong one is counted for the sender's address."""
        value_hash, address = hash_token(value), address_of(request)
        self._wrong.refuse_blocked(address, value_hash)
        if matches(value_hash):
            self._wrong.note_right(value_hash)
            return True
        self._wrong.note_wrong(address, value_hash)
        return False

    async def _require(self, request: Request[Any, Any, Any], wanted: Holder) -> None:
        holder = await self._holder(request)
        if holder != wanted or not is_node_id(wanted.node_id):
            raise self._forbidden(request, holder)

    async def _holder(self, request: Request[Any, Any, Any]) -> Holder:
        """Find the holder of the token; the request counts for the holder's rate."""
        token = _bearer_token(request)
        if token is None:
            raise Problem(401, "a bearer token is required", headers=_CHALLENGE)
        token_hash, address = hash_token(token), address_of(request)
        self._wrong.refuse_blocked(address, token_hash)
        if self._operator.matches_token(token_hash):
            return _OPERATOR
        holder = await self._looked_up(token_hash)
        if holder is None:
            self._wrong.note_wrong(address, token_hash)
            raise Problem(401, "the bearer token is not known", headers=_CHALLENGE)
        self._wrong.note_right(token_hash)
        self._limit_rate(holder)
        return holder

    def _limit_rate(self, holder: Holder) -> None:
        if self._rates is not None and (wait := self._rates.take(holder)):
            raise Problem(429, "too many requests of this node", headers=retry_after(wait))

    async def _looked_up(self, token_hash: bytes) -> Holder | None:
        now = self._clock.monotonic()
        known = self._holders.get(token_hash)
        if known is not None and now < known[1]:
            return known[0]
        holder = await asyncio.to_thread(self._registry.holder_of_token, token_hash)
        self._holders.pop(token_hash, None)
        if holder is not None:
            if len(self._holders) >= _LOOKUPS:
                self._holders.clear()
            self._holders[token_hash] = (holder, now + _LOOKUP_SECONDS)
        return holder

    async def _require_known(self, node_id: str) -> None:
        if await asyncio.to_thread(self._registry.node, node_id) is None:
            raise Problem(404, "no such node")

    def _forbidden(self, request: Request[Any, Any, Any], holder: Holder) -> Problem:
        """Make the refusal of a known caller; a few a minute of each caller are logged."""
        if not self._refusals.take(holder):
            who = {"by": holder.node_id or holder.purpose, "address": address_of(request)}
            path = {"method": request.method, "path": request.scope["path"][:200]}
            _LOG.warning("access refused", extra={**who, **path})
        return Problem(403, "this token does not open this path")


def _bearer_token(request: Request[Any, Any, Any]) -> str | None:
    """Return the bearer token of the request; None if there is none, or no token looks like it."""
    values = request.headers.getall("authorization", [])
    scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= _MAX_TOKEN_LENGTH:
        return None
    return token if token.isascii() and token.isprintable() and " " not in token else None


def _has_own_origin(request: Request[Any, Any, Any]) -> bool:
    """Whether the calling page came from exactly the name and port that it calls."""
    origins = request.headers.getall("origin", [])
    try:
        parts = urlsplit(origins[0]) if len(origins) == 1 else None
    except ValueError:
        return False
    # A proxy may end TLS in front of us, so the scheme cannot be compared.
    return parts is not None and parts.netloc == request.headers.get("host", "")
