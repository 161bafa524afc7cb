"""Who is asking: a node by its bearer token, or the operator by the login token.

Only hashes are kept. Nodes are looked up by the hash of what was presented, so how long that
takes tells nothing about a real token; the operator's hash is compared in constant time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from plexd.rates import TokenBuckets
from plexd_server.auth.throttle import WrongTokens, address_of, retry_after
from plexd_server.registry import INGEST, NODE, Holder, hash_token, is_node_id
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar import Request

    from plexd.clock import Clock
    from plexd_server.registry import Registry

__all__ = ["Gate", "OperatorKey"]

_LOG = logging.getLogger(__name__)
_MAX_TOKEN_LENGTH = 512
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="plexd-server"'}
_CACHE_SECONDS = 5.0
_CACHE_SIZE = 20_000
_NODE_BURST_SECONDS: Final = 10.0
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OPERATOR: Final = Holder("", "operator")  # no node has the empty id


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """What is kept of the operator's token: its hash, and that of the cookie it is traded for.

    The cookie is derived from the token, so it outlives a restart with the same token and yet
    does not hold it.
    """

    token_hash: bytes
    cookie_hash: bytes

    @classmethod
    def of(cls, token: str) -> OperatorKey:
        """The hashes of a token and of its cookie."""
        return cls(hash_token(token), hash_token(cookie_value(token)))

    def opens(self, token_hash: bytes) -> bool:
        """Whether this is the token's hash. Takes the same time either way."""
        return hmac.compare_digest(token_hash, self.token_hash)

    def knows(self, cookie_hash: bytes) -> bool:
        """Whether this is the cookie's hash. Takes the same time either way."""
        return hmac.compare_digest(cookie_hash, self.cookie_hash)


def cookie_value(token: str) -> str:
    """What the browser keeps in place of the token."""
    return hmac.new(token.encode(), b"plexd-server operator cookie", hashlib.sha256).hexdigest()


def new_operator_token() -> str:
    """A fresh login token."""
    return secrets.token_urlsafe(32)


class Gate:
    """Tells callers apart and lets each to what is theirs; raises `Problem` for all others.

    A node's token is looked up at most every few seconds, so revoking one takes that long.
    ``cookie_name`` carries the port: cookies of one host are shared by all of its ports. A node
    may make ``node_rate`` requests a second for long (0: any number), ten seconds' worth at once.
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
        self._known: dict[bytes, tuple[Holder, float]] = {}
        self._wrong = WrongTokens(clock)
        self._audit = TokenBuckets(clock, rate=1 / 60, burst=3)
        burst = max(1.0, node_rate * _NODE_BURST_SECONDS)
        self._pace = TokenBuckets(clock, rate=node_rate, burst=burst) if node_rate else None
        self.cookie_name = cookie_name
        self.is_secure = is_secure

    async def require_node(self, request: Request[Any, Any, Any], node_id: str) -> None:
        """Pass the node itself only. A foreign and an unknown node id are refused alike."""
        await self._require(request, Holder(node_id, NODE))

    async def require_ingest(self, request: Request[Any, Any, Any], node_id: str) -> None:
        """Pass a token that was made for this node's ``/ingest`` path only."""
        await self._require(request, Holder(node_id, INGEST))

    async def require_reader(self, request: Request[Any, Any, Any], node_id: str) -> None:
        """Pass the node itself and the operator; 404 only for an operator's unknown node."""
        if self._shows_operator(request):
            await self._require_known(node_id)
            return
        await self.require_node(request, node_id)

    async def require_operator(self, request: Request[Any, Any, Any]) -> None:
        """Pass the operator only."""
        if not self._shows_operator(request):
            raise self._forbidden(request, await self._holder(request))

    def is_operator(self, request: Request[Any, Any, Any]) -> bool:
        """Whether the request carries the operator's cookie or token.

        The cookie alone does not change anything: that takes the ``Origin`` of our own pages as
        well. Raises `Problem` 429 for an address that presented too many wrong ones.
        """
        if self._shows_operator(request):
            return True
        if token := _presented(request):
            self._wrong.note_wrong(address_of(request), hash_token(token))
        return False

    def _shows_operator(self, request: Request[Any, Any, Any]) -> bool:
        """The same, but a token that is not the operator's may be a node's and is not counted."""
        cookie = request.cookies.get(self.cookie_name, "")
        if cookie and self._checked(request, cookie, self._operator.knows):
            if request.method in _SAFE_METHODS or _has_own_origin(request):
                return True
            raise Problem(403, "this page may not do that: it is of another origin")
        token = _presented(request)
        if token is None:
            return False
        token_hash = hash_token(token)
        self._wrong.refuse_blocked(address_of(request), token_hash)
        if not self._operator.opens(token_hash):
            return False
        self._wrong.note_right(token_hash)
        return True

    def login(self, request: Request[Any, Any, Any], token: str) -> str | None:
        """The cookie for a right login token."""
        if not token or len(token) > _MAX_TOKEN_LENGTH:
            return None
        return cookie_value(token) if self._checked(request, token, self._operator.opens) else None

    def _checked(
        self, request: Request[Any, Any, Any], value: str, is_right: Callable[[bytes], bool]
    ) -> bool:
        """Whether it is right; if not, it counts against the sender's address."""
        value_hash, address = hash_token(value), address_of(request)
        self._wrong.refuse_blocked(address, value_hash)
        if is_right(value_hash):
            self._wrong.note_right(value_hash)
            return True
        self._wrong.note_wrong(address, value_hash)
        return False

    async def _require(self, request: Request[Any, Any, Any], wanted: Holder) -> None:
        holder = await self._holder(request)
        if holder != wanted or not is_node_id(wanted.node_id):
            raise self._forbidden(request, holder)

    async def _holder(self, request: Request[Any, Any, Any]) -> Holder:
        """Whose token was presented; it counts as a request of theirs."""
        token = _presented(request)
        if token is None:
            raise Problem(401, "a bearer token is required", headers=_CHALLENGE)
        token_hash, address = hash_token(token), address_of(request)
        self._wrong.refuse_blocked(address, token_hash)
        if self._operator.opens(token_hash):
            return _OPERATOR
        holder = await self._looked_up(token_hash)
        if holder is None:
            self._wrong.note_wrong(address, token_hash)
            raise Problem(401, "the bearer token is not known", headers=_CHALLENGE)
        self._wrong.note_right(token_hash)
        self._refuse_hasty(holder)
        return holder

    def _refuse_hasty(self, holder: Holder) -> None:
        if self._pace is not None and (wait := self._pace.take(holder)):
            raise Problem(429, "too many requests of this node", headers=retry_after(wait))

    async def _looked_up(self, token_hash: bytes) -> Holder | None:
        now = self._clock.monotonic()
        known = self._known.get(token_hash)
        if known is not None and now < known[1]:
            return known[0]
        holder = await asyncio.to_thread(self._registry.holder_of_token, token_hash)
        self._known.pop(token_hash, None)
        if holder is not None:
            if len(self._known) >= _CACHE_SIZE:
                self._known.clear()
            self._known[token_hash] = (holder, now + _CACHE_SECONDS)
        return holder

    async def _require_known(self, node_id: str) -> None:
        if await asyncio.to_thread(self._registry.node, node_id) is None:
            raise Problem(404, "no such node")

    def _forbidden(self, request: Request[Any, Any, Any], holder: Holder) -> Problem:
        """The one refusal of whoever is known and may not; a few a minute of each are logged."""
        if not self._audit.take(holder):
            who = {"by": holder.node_id or holder.purpose, "address": address_of(request)}
            path = {"method": request.method, "path": request.scope["path"][:200]}
            _LOG.warning("access refused", extra={**who, **path})
        return Problem(403, "this token does not open this path")


def _presented(request: Request[Any, Any, Any]) -> str | None:
    """The bearer token of the request; None if there is none or it cannot be one."""
    values = request.headers.getall("authorization", [])
    scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= _MAX_TOKEN_LENGTH:
        return None
    return token if token.isascii() and token.isprintable() and " " not in token else None


def _has_own_origin(request: Request[Any, Any, Any]) -> bool:
    """Whether the page that asks was served under the very name and port that is asked."""
    origins = request.headers.getall("origin", [])
    try:
        parts = urlsplit(origins[0]) if len(origins) == 1 else None
    except ValueError:
        return False
    # A proxy may speak TLS in our place, so the scheme is not ours to compare.
    return parts is not None and parts.netloc == request.headers.get("host", "")
