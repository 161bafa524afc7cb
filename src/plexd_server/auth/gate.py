"""Which caller sent a request, and what that caller may do: a node, or the operator.

Only hashes are kept. A node is looked up by the hash of the token it sent, so the time that takes
says nothing about a real token, and a browser by that of its cookie; the operator's hash is
compared in constant time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from plexd.rates import TokenBuckets
from plexd_server.auth.origins import OwnOrigins
from plexd_server.auth.throttle import WrongTokens, address_of, retry_after
from plexd_server.registry import INGEST, NODE, Holder, Registry, Session, hash_token, is_node_id
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from litestar import Request

    from plexd.clock import Clock
    from plexd_server.auth.operator_token import OperatorKey

_LOG = logging.getLogger(__name__)
_MAX_TOKEN_LENGTH = 512
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="plexd-server"'}
_LOOKUP_SECONDS = 5.0
_LOOKUPS = 20_000
_NODE_BURST_SECONDS: Final = 10.0
_FOREIGN_LOGIN: Final = "another site led here; open the login link from the address bar"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OPERATOR: Final = Holder("", "operator")  # no node has the empty id
_SESSION: Final = Session("operator", "operator")


class Gate:
    """Authenticates callers and passes each to its own paths; raises `Problem` for all others.

    A right token passes whatever else comes from its address; wrong ones are counted. A node's
    token is looked up at most every few seconds, so revoking it takes that long. ``cookie_name``
    contains the port, as all ports of a host share their cookies; ``hosts`` are the names of this
    server. A node may make ``node_rate`` requests a second for long (0: any number), and ten
    seconds' worth at once.
    """

    def __init__(
        self,
        registry: Registry,
        operator: OperatorKey,
        *,
        cookie_name: str,
        clock: Clock,
        node_rate: float = 0.0,
        hosts: Iterable[str] = (),
    ) -> None:
        self._registry = registry
        self._operator = operator
        self._clock = clock
        self._origins = OwnOrigins(hosts)
        self._holders: dict[bytes, tuple[Holder, float]] = {}
        self._wrong = WrongTokens(clock)
        self._refusals = TokenBuckets(clock, rate=1 / 60, burst=3)
        burst = max(1.0, node_rate * _NODE_BURST_SECONDS)
        self._rates = TokenBuckets(clock, rate=node_rate, burst=burst) if node_rate else None
        self.cookie_name = cookie_name

    async def require_node(self, request: Request[Any, Any, Any], node_id: str) -> None:
        """Pass the node itself only. Another node's id and an unknown id are refused alike."""
        await self._require(request, Holder(node_id, NODE))

    async def require_ingest(self, request: Request[Any, Any, Any], node_id: str) -> None:
        """Pass only a token that was made for this node's ``/ingest`` path."""
        await self._require(request, Holder(node_id, INGEST))

    async def require_reader(self, request: Request[Any, Any, Any], node_id: str) -> None:
        """Pass the node itself and the operator; only the operator gets 404 for an unknown node."""
        if await self._is_from_operator(request):
            await self._require_known(node_id)
            return
        await self.require_node(request, node_id)

    async def require_operator(self, request: Request[Any, Any, Any]) -> None:
        """Pass the operator only."""
        if not await self._is_from_operator(request):
            raise self._forbidden(request, await self._holder(request))

    async def is_operator(self, request: Request[Any, Any, Any]) -> bool:
        """Whether the request carries the operator's token or the cookie of a session.

        The cookie alone changes nothing: a change needs the ``Origin`` of our own pages as well.
        Raises `Problem` 429 for an address that sent too many wrong ones.
        """
        if await self._is_from_operator(request):
            return True
        for value in (self._cookie(request), _bearer_token(request)):
            self._count_wrong(request, value)
        return False

    async def login(self, request: Request[Any, Any, Any], token: str) -> str | None:
        """Return the cookie of a new session for the right login token, None for any other.

        Raises `Problem` 403 if a page of another site made the browser ask: it could send wrong
        tokens in the name of the browser's address.
        """
        if token and self._origins.is_foreign(request):
            raise Problem(403, _FOREIGN_LOGIN)
        if not self._operator.matches_token(hash_token(token)):
            self._count_wrong(request, token if len(token) <= _MAX_TOKEN_LENGTH else "")
            return None
        return await asyncio.to_thread(self._registry.sessions.begin, _SESSION)

    async def log_out(self, request: Request[Any, Any, Any]) -> None:
        """End the session of the request's cookie for good. Passes the operator only."""
        await self.require_operator(request)
        ended = hash_token(self._cookie(request))
        await asyncio.to_thread(self._registry.sessions.end, ended)

    async def _is_from_operator(self, request: Request[Any, Any, Any]) -> bool:
        """Answer as `is_operator` without counting what is wrong: it may be a node's."""
        if self._operator.matches_token(hash_token(_bearer_token(request))):
            return True
        if not await self._has_session(self._cookie(request)):
            return False
        if request.method in _SAFE_METHODS or self._origins.is_own(request):
            return True
        raise Problem(403, "this page may not do that: it is of another origin")

    async def _has_session(self, cookie: str) -> bool:
        if not cookie:
            return False
        find = self._registry.sessions.find
        return await asyncio.to_thread(find, hash_token(cookie)) is not None

    def _cookie(self, request: Request[Any, Any, Any]) -> str:
        return request.cookies.get(self.cookie_name, "")

    def _count_wrong(self, request: Request[Any, Any, Any], value: str) -> None:
        if value:
            self._wrong.count(address_of(request), hash_token(value))

    async def _require(self, request: Request[Any, Any, Any], wanted: Holder) -> None:
        holder = await self._holder(request)
        if holder != wanted or not is_node_id(wanted.node_id):
            raise self._forbidden(request, holder)

    async def _holder(self, request: Request[Any, Any, Any]) -> Holder:
        """Find the holder of the token; the request counts for the holder's rate."""
        token = _bearer_token(request)
        if not token:
            self._count_wrong(request, self._cookie(request))
            raise Problem(401, "a bearer token is required", headers=_CHALLENGE)
        token_hash = hash_token(token)
        if self._operator.matches_token(token_hash):
            return _OPERATOR
        holder = await self._looked_up(token_hash)
        if holder is None:
            self._count_wrong(request, token)
            raise Problem(401, "the bearer token is not known", headers=_CHALLENGE)
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


def _bearer_token(request: Request[Any, Any, Any]) -> str:
    """Return the bearer token of the request; empty if there is none, or none looks like it."""
    values = request.headers.getall("authorization", [])
    scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
    token = token.lstrip(" ")  # one space or more (RFC 9110 11.4)
    if scheme.lower() != "bearer" or not 0 < len(token) <= _MAX_TOKEN_LENGTH:
        return ""
    return token if token.isascii() and token.isprintable() and " " not in token else ""
