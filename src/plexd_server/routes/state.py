"""A node's own affairs: ``GET .../state`` has its peers, ``GET .../secrets/{key}`` a secret.

The state also has ``features``: what only a newer server can do has a name there, and a node does
not use it without that name.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import Request, Response, get

from plexd.api import Peer, SecretResponse  # noqa: TC001 -- Litestar reads the annotations
from plexd_server.errors import NoNodeKey, UnknownSecret
from plexd_server.routes.openapi import CALLERS, NO_STORE, NODE, described
from plexd_server.web.negotiation import is_known
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler
    from litestar.params import FromPath

    from plexd.clock import Clock
    from plexd_server.auth import Gate
    from plexd_server.registry import Registry

_FRESH_SECONDS: Final = 5.0

# Names of 1 to 32 of a-z, 0-9 and _, at most 32 of them. What release 0.1.0 can do has no name.
FEATURES: Final[tuple[str, ...]] = ()
_FEATURES_JSON: Final = msgspec.json.encode(FEATURES)


class StateAnswer(msgspec.Struct):
    """What a node has to know; ``features`` names what this server can do beyond release 0.1.0."""

    peers: list[Peer]
    features: tuple[str, ...]


class PeerCache:
    """Answers a node with all nodes but itself, as they were at most five seconds ago.

    Each node is encoded once for all others: in a mesh of thousands an answer has some hundred
    kilobytes, which are only put together.
    """

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._reading = asyncio.Lock()
        self._fresh_until = -math.inf
        self._encoded: dict[str, bytes] = {}

    async def state_of(self, node_id: str) -> bytes:
        """Return the JSON of the node's state: `StateAnswer`."""
        async with self._reading:
            if self._clock.monotonic() >= self._fresh_until:
                self._fresh_until = self._clock.monotonic() + _FRESH_SECONDS
                try:
                    self._encoded = await asyncio.to_thread(self._read)
                except BaseException:
                    self.expire()
                    raise
            encoded = self._encoded
        others = (peer for peer_id, peer in encoded.items() if peer_id != node_id)
        return b'{"peers":[' + b",".join(others) + b'],"features":' + _FEATURES_JSON + b"}"

    def expire(self) -> None:
        """Read the registry again for the next answer."""
        self._fresh_until = -math.inf

    def _read(self) -> dict[str, bytes]:
        return {peer.id: msgspec.json.encode(peer) for peer in self._registry.peers_of("")}


def state_routes(gate: Gate, registry: Registry, peers: PeerCache) -> list[HTTPRouteHandler]:
    """Make the routes that only the node itself may call."""

    @get(
        "/v1/nodes/{node_id:str}/state",
        **described(
            "nodes",
            "The node's peers",
            *CALLERS,
            security=NODE,
            answers={200: StateAnswer, 304: None},
        ),
        response_headers=NO_STORE,
    )
    async def state(node_id: FromPath[str], request: Request[Any, Any, Any]) -> Response[bytes]:
        await gate.require_node(request, node_id)
        body = await peers.state_of(node_id)
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if is_known(etag, request.headers.getall("if-none-match", [])):
            return Response(b"", status_code=304, headers={"etag": etag})
        return Response(body, media_type="application/json", headers={"etag": etag})

    @get(
        "/v1/nodes/{node_id:str}/secrets/{key:str}",
        **described("nodes", "A secret, sealed for the node", 404, 409, *CALLERS, security=NODE),
        response_headers=NO_STORE,
    )
    async def secret(
        node_id: FromPath[str], key: FromPath[str], request: Request[Any, Any, Any]
    ) -> SecretResponse:
        await gate.require_node(request, node_id)
        try:
            return await asyncio.to_thread(registry.secrets.envelope, node_id, key)
        except UnknownSecret as err:
            raise Problem(404, str(err)) from None
        except NoNodeKey as err:
            raise Problem(409, str(err)) from None

    return [state, secret]
