"""``POST /v1/register``: a machine with a bootstrap token becomes a node.

There is no bearer token, as the bootstrap token is in the body. So the body is small. A right token
passes whatever else comes from its address; wrong ones are counted. Members that are not known are
skipped, among them ``capabilities``: the machine may be newer than this server. What the server
assigns is refused, so that nobody believes to have chosen it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from litestar import Request, post
from msgspec.structs import asdict

from plexd.api import Registration
from plexd_server.auth import WrongTokens, address_of
from plexd_server.errors import RegistryError, TokenRefused
from plexd_server.registry import Applicant, Registry, hash_token, is_public_key, parse_address
from plexd_server.routes.openapi import NO_STORE, UPLOADS, described, operation
from plexd_server.routes.state import FEATURES
from plexd_server.web.body import read_small
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.handlers import HTTPRouteHandler

    from plexd.clock import Clock
    from plexd_server.routes.state import PeerCache

_LOG = logging.getLogger(__name__)
_MAX_BYTES: Final = 16 * 1024
_SHOWN: Final = 200
_AT_ONCE: Final = 2
_ASSIGNED: Final = frozenset({*Registration.__struct_fields__, "simulated"})

_Line = Annotated[str, msgspec.Meta(max_length=512)]


class Application(msgspec.Struct, frozen=True):
    """The body of a registration. ``metadata`` may hold the machine's ``mesh_ip``."""

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    public_key: str
    hostname: Annotated[str, msgspec.Meta(max_length=253)] = ""
    metadata: (
        Annotated[
            dict[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], _Line],
            msgspec.Meta(max_length=32),
        ]
        | None
    ) = None


class RegistrationAnswer(Registration, frozen=True, kw_only=True):
    """What a machine gets for its token; ``features`` as in the node's state."""

    features: tuple[str, ...]


def registration_routes(
    registry: Registry, peers: PeerCache, clock: Clock
) -> list[HTTPRouteHandler]:
    """Make the route of registration; a new node is in the state of all others at once."""
    registrar = _Registrar(registry, clock)

    @post(
        "/v1/register",
        **described("nodes", "Become a node with a bootstrap token", *UPLOADS, 401, 409, 429),
        response_headers=NO_STORE,
        status_code=200,
        request_max_body_size=None,
        operation_class=operation(body=Application),
    )
    async def register(request: Request[Any, Any, Any]) -> RegistrationAnswer:
        made = await registrar.register(request)
        peers.expire()
        return RegistrationAnswer(**asdict(made), features=FEATURES)

    return [register]


class _Registrar:
    """Registers machines, two at a time."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._wrong = WrongTokens(clock)
        # Writers wait for each other, on threads that token look-ups need as well.
        self._writers = asyncio.Semaphore(_AT_ONCE)

    async def register(self, request: Request[Any, Any, Any]) -> Registration:
        """Read the application and enrol the machine. Raises `Problem`."""
        address = address_of(request)
        applicant = _applicant(await read_small(request, _MAX_BYTES, clock=self._clock))
        made = await self._enrol(applicant, address)
        extra = {"node_id": made.node_id, "mesh_ip": made.mesh_ip, "address": address}
        _LOG.info("node enrolled", extra=extra)
        return made

    async def _enrol(self, applicant: Applicant, address: str) -> Registration:
        try:
            async with self._writers:
                return await asyncio.to_thread(self._registry.enrol, applicant)
        except TokenRefused as err:
            self._wrong.count(address, hash_token(applicant.token))
            _LOG.warning("registration refused", extra={"address": address, "reason": str(err)})
            raise Problem(401, str(err)) from None
        except RegistryError as err:
            _LOG.warning("registration refused", extra={"address": address, "reason": str(err)})
            raise Problem(409, str(err)) from None


def _applicant(body: bytes) -> Applicant:
    """Read an application from a body. Raises `Problem`: 400 no JSON, 422 no application."""
    try:
        application = msgspec.json.decode(body, type=Application)
        sent = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError as err:
        raise Problem(422, str(err)[:_SHOWN]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem(400, "the body is not JSON") from None
    for name in sorted(_ASSIGNED & sent.keys()):
        raise Problem(422, f"the server assigns `{name}`; leave it out", field=name)
    metadata = application.metadata or {}
    _check(application, metadata)
    return Applicant(
        application.token,
        application.public_key,
        application.hostname,
        metadata,
        metadata.get("mesh_ip", ""),
    )


def _check(application: Application, metadata: Mapping[str, str]) -> None:
    """Raise `Problem` 422 for text that a terminal would act on, and for a value that is no key."""
    if not is_public_key(application.public_key):
        detail = "not a WireGuard public key as `wg` prints it: base64 of 32 bytes"
        raise Problem(422, detail, field="public_key")
    texts = [application.hostname, *metadata, *metadata.values()]
    if not all(text.isprintable() for text in texts):
        raise Problem(422, "hostname and metadata must be printable text", field="metadata")
    try:
        parse_address(metadata.get("mesh_ip", ""))
    except ValueError:
        raise Problem(422, "not an IP address", field="metadata.mesh_ip") from None
