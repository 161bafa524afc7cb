"""Who is asking: a node by its bearer token, or the operator by the login token.

Only hashes are kept. Nodes are looked up by the hash of what was presented, so how long that
takes tells nothing about a real token; the operator's hash is compared in constant time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from plexd_server.problems import Problem
from plexd_server.registry import hash_token, is_node_id

if TYPE_CHECKING:
    from litestar import Request

    from plexd.clock import Clock
    from plexd_server.registry import Registry

__all__ = ["OPERATOR", "Gate", "OperatorKey"]

_MAX_TOKEN_LENGTH = 512
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="plexd-server"'}
_CACHE_SECONDS = 5.0
_CACHE_SIZE = 20_000

OPERATOR: Final = ""  # no node has the empty id


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

    def opens(self, token: str) -> bool:
        """Whether this is the token. Takes the same time either way."""
        return hmac.compare_digest(hash_token(token), self.token_hash)

    def knows(self, cookie: str) -> bool:
        """Whether this is the cookie. Takes the same time either way."""
        return hmac.compare_digest(hash_token(cookie), self.cookie_hash)


def cookie_value(token: str) -> str:
    """What the browser keeps in place of the token."""
    return hmac.new(token.encode(), b"plexd-server operator cookie", hashlib.sha256).hexdigest()


def new_operator_token() -> str:
    """A fresh login token."""
    return secrets.token_urlsafe(32)


class Gate:
    """Tells callers apart and lets each to what is theirs; raises `Problem` for all others.

    A node's token is looked up at most every few seconds, so revoking one takes that long.
    ``cookie_name`` carries the port: cookies of one host are shared by all of its ports.
    """

    def __init__(
        self, registry: Registry, operator: OperatorKey, *, cookie_name: str, clock: Clock
    ) -> None:
        self._registry = registry
        self._operator = operator
        self._clock = clock
        self._known: dict[bytes, tuple[str, float]] = {}
        self.cookie_name = cookie_name

    async def require_node(self, request: Request[Any, Any, Any], node_id: str) -> None:
        """Pass the node itself only. A foreign and an unknown node id are refused alike."""
        if await self._bearer(request) != node_id or not is_node_id(node_id):
            raise _forbidden()

    async def require_reader(self, request: Request[Any, Any, Any], node_id: str) -> None:
        """Pass the node itself and the operator; 404 only for an operator's unknown node."""
        if self.is_operator(request):
            await self._require_known(node_id)
            return
        await self.require_node(request, node_id)

    async def require_operator(self, request: Request[Any, Any, Any]) -> None:
        """Pass the operator only."""
        if not self.is_operator(request):
            await self._bearer(request)
            raise _forbidden()

    def is_operator(self, request: Request[Any, Any, Any]) -> bool:
        """Whether the request carries the operator's cookie or token."""
        cookie = request.cookies.get(self.cookie_name, "")
        if cookie and self._operator.knows(cookie):
            return True
        token = _presented(request)
        return token is not None and self._operator.opens(token)

    def login(self, token: str) -> str | None:
        """The cookie for a right login token."""
        if len(token) > _MAX_TOKEN_LENGTH or not self._operator.opens(token):
            return None
        return cookie_value(token)

    async def _bearer(self, request: Request[Any, Any, Any]) -> str:
        """The node whose token was presented, `OPERATOR` for the operator's."""
        token = _presented(request)
        if token is None:
            raise Problem(401, "a bearer token is required", headers=_CHALLENGE)
        if self._operator.opens(token):
            return OPERATOR
        node_id = await self._node_of(hash_token(token))
        if node_id is None:
            raise Problem(401, "the bearer token is not known", headers=_CHALLENGE)
        return node_id

    async def _node_of(self, token_hash: bytes) -> str | None:
        now = self._clock.monotonic()
        known = self._known.get(token_hash)
        if known is not None and now < known[1]:
            return known[0]
        node_id = await asyncio.to_thread(self._registry.node_of_token, token_hash)
        self._known.pop(token_hash, None)
        if node_id is not None:
            if len(self._known) >= _CACHE_SIZE:
                self._known.clear()
            self._known[token_hash] = (node_id, now + _CACHE_SECONDS)
        return node_id

    async def _require_known(self, node_id: str) -> None:
        if not await asyncio.to_thread(self._registry.has_node, node_id):
            raise Problem(404, "no such node")


def _presented(request: Request[Any, Any, Any]) -> str | None:
    """The bearer token of the request; None if there is none or it cannot be one."""
    values = request.headers.getall("authorization", [])
    scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= _MAX_TOKEN_LENGTH:
        return None
    return token if token.isascii() and token.isprintable() and " " not in token else None


def _forbidden() -> Problem:
    return Problem(403, "this token does not open this path")
