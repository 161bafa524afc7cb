"""``GET /v1/openapi.json``: every route, who may ask, and every status it answers with.

Written beside the routes rather than read off them: what a handler raises is in no signature. Tests
compare it with the routes there are, and with what they answer to whatever can be sent.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import Response, get
from msgspec import Struct

from plexd import __version__
from plexd.api import (
    AgentStats,
    LatencyResult,
    Peer,
    Registration,
    SecretResponse,
    SystemStats,
    TunnelStats,
)
from plexd_server.mesh.overview import FleetAnswer, MeshAnswer, PeersAnswer
from plexd_server.routes.nodes import LatestAnswer, LedgerAnswer, NodesAnswer, SeriesAnswer
from plexd_server.routes.register import Application
from plexd_server.routes.series_query import FIELDS
from plexd_server.store import Receipt

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

__all__ = ["document", "openapi_routes"]

_JSON: Final = "application/json"
_PAGE: Final = "text/html; charset=utf-8"
_MEANINGS: Final = {
    400: "what was sent cannot be read; `field` says what",
    401: "no token, or one that is not known",
    403: "the token of somebody else; the same for nodes there are and there are not",
    404: "there is no such thing",
    408: "the body did not arrive in time",
    409: "it cannot be done as things are; `detail` says why",
    413: "too large",
    415: "another Content-Type or Content-Encoding than is taken",
    421: "the Host is not one that is served",
    422: "JSON, but not what is expected; `index` and `field` say where",
    429: "too often; Retry-After says when to try again",
    503: "not now; Retry-After says when to try again",
}
_ANYBODY: Final = (421, 503)
_KNOWN: Final = (401, 403, 429, *_ANYBODY)
_TAKING: Final = (400, 408, 413, 415, 422)
_NODE: Final[list[dict[str, list[str]]]] = [{"node": []}]
_OPERATOR: Final[list[dict[str, list[str]]]] = [{"operator": []}, {"cookie": []}]
_READER: Final = [*_NODE, *_OPERATOR]


class _Told(Struct, frozen=True):
    """One operation: what it does, who may ask, what comes and goes, which refusals there are."""

    summary: str
    who: list[dict[str, list[str]]]
    refusals: tuple[int, ...]
    answer: type[Struct] | str = ""
    body: type[Struct] | str = ""
    query: tuple[dict[str, Any], ...] = ()
    media_type: str = _JSON
    statuses: tuple[int, ...] = (200,)


def _ask(
    name: str, about: str, schema: dict[str, Any], *, required: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "description": about,
        "required": required,
        "schema": schema,
    }


_TEXT: Final = {"type": "string"}
_SERIES: Final = (
    _ask("group", "by default `system`", {"enum": list(FIELDS)}),
    _ask(
        "field",
        "once or more",
        {"type": "array", "items": {"enum": sorted({f for of in FIELDS.values() for f in of})}},
        required=True,
    ),
    _ask("peer_id", "where the group has peers, and only there", _TEXT),
    _ask("since", "an RFC 3339 time, or a length of time ago such as `15m`", _TEXT),
    _ask("until", "the same; by default now", _TEXT),
    _ask("step", "seconds of a bucket", {"type": "string", "pattern": "^[1-9][0-9]{0,6}$"}),
)
_LOGIN: Final = (
    _ask("token", "the operator's login token", _TEXT),
    _ask("node", "the node whose page to go to", _TEXT),
)

_ROUTES: Final[dict[str, _Told]] = {
    "POST /v1/register": _Told(
        "Become a node with a bootstrap token",
        [],
        (*_TAKING, 401, 409, 429, *_ANYBODY),
        answer=Registration,
        body=Application,
    ),
    "GET /v1/nodes/{node_id}/state": _Told("The node's peers", _NODE, _KNOWN, answer="State"),
    "GET /v1/nodes/{node_id}/secrets/{key}": _Told(
        "A secret, sealed for the node", _NODE, (404, 409, *_KNOWN), answer=SecretResponse
    ),
    "POST /v1/nodes/{node_id}/metrics": _Told(
        "Deliver points", _NODE, (*_TAKING, *_KNOWN), answer=Receipt, body="Report"
    ),
    "POST /ingest/{node_id}": _Told(
        "Deliver points to a local endpoint",
        [{"ingest": []}],
        (*_TAKING, *_KNOWN),
        answer=Receipt,
        body="Report",
    ),
    "GET /v1/nodes": _Told("All nodes", _OPERATOR, _KNOWN, answer=NodesAnswer),
    "GET /v1/nodes/{node_id}/latest": _Told(
        "The newest points of a node", _READER, (404, *_KNOWN), answer=LatestAnswer
    ),
    "GET /v1/nodes/{node_id}/ledger": _Told(
        "What is missing of a node's points", _READER, (404, *_KNOWN), answer=LedgerAnswer
    ),
    "GET /v1/nodes/{node_id}/series": _Told(
        "Fields of a node over time",
        _READER,
        (400, 404, *_KNOWN),
        answer=SeriesAnswer,
        query=_SERIES,
    ),
    "GET /v1/nodes/{node_id}/peers": _Told(
        "A node's peers and their states", _READER, (404, *_KNOWN), answer=PeersAnswer
    ),
    "GET /v1/fleet": _Told("All nodes at a glance", _OPERATOR, _KNOWN, answer=FleetAnswer),
    "GET /v1/mesh": _Told("All links", _OPERATOR, _KNOWN, answer=MeshAnswer),
    "GET /v1/openapi.json": _Told("This document", [], _ANYBODY, answer="Document"),
    "GET /healthz": _Told("Whether the server is well", [], _ANYBODY, answer="Health"),
    "GET /": _Told("The fleet's page", _OPERATOR, (401, 429, *_ANYBODY), media_type=_PAGE),
    "GET /mesh": _Told("The mesh's page", _OPERATOR, (401, 429, *_ANYBODY), media_type=_PAGE),
    "GET /nodes/{node_id}": _Told(
        "A node's page", _OPERATOR, (401, 404, 429, *_ANYBODY), media_type=_PAGE
    ),
    "GET /login": _Told(
        "Trade the login token for a cookie",
        [],
        (401, 429, *_ANYBODY),
        query=_LOGIN,
        media_type=_PAGE,
        statuses=(200, 303),
    ),
    "POST /logout": _Told("Have the browser forget the cookie", _OPERATOR, _KNOWN, statuses=(303,)),
    "GET /static/{name}": _Told(
        "A script, a style sheet or an image",
        [],
        (404, *_ANYBODY),
        media_type="*/*",
        statuses=(200, 304),
    ),
}


def openapi_routes() -> list[HTTPRouteHandler]:
    """The document, for anybody: it holds nothing but this text."""
    encoded = msgspec.json.encode(document())

    @get("/v1/openapi.json")
    async def openapi() -> Response[bytes]:
        return Response(encoded, media_type=_JSON)

    return [openapi]


def document() -> dict[str, Any]:
    """The document (OpenAPI 3.1)."""
    paths: dict[str, dict[str, Any]] = {}
    for route, told in _ROUTES.items():
        method, path = route.split(" ")
        paths.setdefault(path, {})[method.lower()] = _operation(path, told)
    return {
        "openapi": "3.1.0",
        "info": {"title": "plexd-server", "version": __version__},
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _SCHEMES},
    }


def _operation(path: str, told: _Told) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": told.summary,
        "security": told.who,
        "parameters": [*_path_parameters(path), *told.query],
        "responses": {str(status): _success(status, told) for status in told.statuses}
        | {str(status): _refusal(status, told) for status in sorted(told.refusals)},
    }
    if told.body:
        operation["requestBody"] = {
            "required": True,
            "content": {_JSON: {"schema": _reference(told.body)}},
        }
    return operation


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]


def _success(status: int, told: _Told) -> dict[str, Any]:
    said: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if told.answer:
        said["content"] = {_JSON: {"schema": _reference(told.answer)}}
    elif status == HTTPStatus.OK:
        said["content"] = {told.media_type: {}}
    return said


def _refusal(status: int, told: _Told) -> dict[str, Any]:
    content: dict[str, Any] = {"application/problem+json": {"schema": _reference("Problem")}}
    if not told.body:  # what a browser can ask for in its address bar
        content[_PAGE] = {}
    said: dict[str, Any] = {"description": _MEANINGS[status], "content": content}
    if status in {429, 503}:
        said["headers"] = {"Retry-After": {"schema": {"type": "string", "pattern": "^[0-9]+$"}}}
    return said


def _reference(of: type[Struct] | str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{of if isinstance(of, str) else of.__name__}"}


def _schemas() -> dict[str, Any]:
    """The types: whole where every member has one meaning, else their members' names."""
    payloads = (SystemStats, TunnelStats, LatencyResult, AgentStats)
    whole = (*payloads, Application, Peer, Registration, SecretResponse, Receipt, SeriesAnswer)
    _, schemas = msgspec.json.schema_components(whole, ref_template="#/components/schemas/{name}")
    named = (FleetAnswer, LatestAnswer, LedgerAnswer, MeshAnswer, NodesAnswer, PeersAnswer)
    for kind in named:
        schemas[kind.__name__] = {"type": "object", "required": list(kind.__struct_fields__)}
    return {**schemas, **_by_hand([kind.__name__ for kind in payloads])}


def _by_hand(payloads: list[str]) -> dict[str, Any]:
    point = {
        "type": "object",
        "required": ["timestamp", "group", "data"],
        "additionalProperties": False,
        "properties": {
            "timestamp": {"type": "string", "format": "date-time"},
            "group": {"enum": list(FIELDS)},
            "peer_id": {"type": "string", "minLength": 1, "maxLength": 256},
            "data": {"anyOf": [_reference(name) for name in payloads]},
        },
    }
    problem = {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT}
    return {
        "Report": {"type": "array", "maxItems": 10_000, "items": point},
        "State": {
            "type": "object",
            "required": ["peers"],
            "properties": {"peers": {"type": "array", "items": _reference(Peer)}},
        },
        "Health": {"type": "object", "required": ["status"], "properties": {"status": _TEXT}},
        "Document": {"type": "object", "required": ["openapi", "info", "paths"]},
        "Problem": {
            "type": "object",
            "required": list(problem),
            "properties": {**problem, "index": {"type": "integer"}, "field": _TEXT},
        },
    }


_SCHEMES: Final = {
    "node": {"type": "http", "scheme": "bearer", "description": "the node's own token"},
    "ingest": {"type": "http", "scheme": "bearer", "description": "a token for this path only"},
    "operator": {"type": "http", "scheme": "bearer", "description": "the login token"},
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "plexd-operator-8080",
        "description": "set by /login, named after the port; for reads and logging out",
    },
}
