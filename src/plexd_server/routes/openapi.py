"""``GET /v1/openapi.json``: the routes as OpenAPI 3.1, and what the routes declare themselves with.

Each route declares its summary, callers, parameters, answers and refusals where it is defined.
Litestar makes the document from the routes; msgspec describes the structs, as it knows their
bounds.
"""

from __future__ import annotations

import asyncio
from copy import copy
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import Litestar, Response, get
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.spec import (
    Components,
    OpenAPI,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Parameter,
    RequestBody,
    Schema,
    SecurityRequirement,
    SecurityScheme,
)
from litestar.openapi.spec.enums import OpenAPIType
from litestar.plugins import OpenAPISchemaPlugin

from plexd import __version__
from plexd_server.routes.point_schemas import POINT_TYPES
from plexd_server.web.problems import PROBLEM_TYPE, ProblemDetails

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from litestar._openapi.schema_generation import SchemaCreator
    from litestar.handlers import HTTPRouteHandler
    from litestar.typing import FieldDefinition

NO_STORE: Final = {"Cache-Control": "no-store"}
JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"

NODE: Final[list[SecurityRequirement]] = [{"node": []}]
INGEST: Final[list[SecurityRequirement]] = [{"ingest": []}]
OPERATOR: Final[list[SecurityRequirement]] = [{"operator": []}, {"cookie": []}]
READER: Final = [*NODE, *OPERATOR]

# Which refusals routes have in common: those of every request, of a known caller, of a body.
_ANYBODY: Final = (421, 503)
CALLERS: Final = (401, 403, 429)
UPLOADS: Final = (400, 408, 413, 415, 422)

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
_SCHEMES: Final = {
    "node": SecurityScheme("http", scheme="bearer", description="the node's own token"),
    "ingest": SecurityScheme("http", scheme="bearer", description="a token for this path only"),
    "operator": SecurityScheme("http", scheme="bearer", description="the login token"),
    "cookie": SecurityScheme(
        "apiKey",
        security_scheme_in="cookie",
        name="plexd-operator-8080",
        description="set by /login, named after the port; for reads and logging out",
    ),
}
_COMPONENT: Final = "#/components/schemas/{name}"


class OpenAPIDocument(msgspec.Struct):
    """An OpenAPI document."""

    openapi: str
    info: dict[str, str]
    paths: dict[str, Any]
    components: dict[str, Any]


def described(
    tag: str,
    summary: str,
    *refusals: int,
    security: list[SecurityRequirement] | None = None,
    answers: Mapping[int, Any] = MappingProxyType({}),
    media_type: str = JSON,
) -> dict[str, Any]:
    """Return the options of a route's decorator that describe the route.

    ``refusals`` are the statuses besides those of every request. ``answers`` are types, None for
    an answer without a body; by default the handler's annotation says what it answers.
    """
    responses = {
        status: _response(content, media_type, HTTPStatus(status).phrase)
        for status, content in answers.items()
    }
    for status in sorted((*refusals, *_ANYBODY)):
        responses[status] = _response(ProblemDetails, PROBLEM_TYPE, _MEANINGS[status])
    return {"summary": summary, "tags": [tag], "security": security, "responses": responses}


def _response(content: Any, media_type: str, description: str) -> ResponseSpec:
    return ResponseSpec(
        content, media_type=media_type, description=description, generate_examples=False
    )


def operation(*parameters: Parameter, body: Any = None) -> type[Operation]:
    """Describe what a handler reads from the request itself; ``body`` is the type of its JSON."""

    @dataclass
    class DeclaredOperation(Operation):
        json_body = body

        def __post_init__(self) -> None:
            self.parameters = [*(self.parameters or ()), *parameters]
            if body is not None:
                (schema,), _ = _components([body])
                media_type = OpenAPIMediaType(schema=schema)
                self.request_body = RequestBody({JSON: media_type}, required=True)

    return DeclaredOperation


def openapi_routes(others: Iterable[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """Make the route of the document, which describes the others and itself."""

    @get("/v1/openapi.json", **described("server", "This document", answers={200: OpenAPIDocument}))
    async def openapi() -> Response[bytes]:
        return Response(await asyncio.to_thread(encoded), media_type=JSON)

    @cache
    def encoded() -> bytes:
        return msgspec.json.encode(document([*others, openapi]))

    return [openapi]


def document(handlers: Iterable[HTTPRouteHandler]) -> dict[str, Any]:
    """Describe the handlers.

    An application of its own reads them: Litestar would serve the document of ours at routes of
    its own, which answer every unknown path beside it with a page.
    """
    copies = [copy(handler) for handler in handlers]
    structs = _Structs()
    config = OpenAPIConfig(
        "plexd-server",
        __version__,
        components=Components(security_schemes={**_SCHEMES}),
        operation_id_creator=lambda handler, *_: handler.handler_name,
    )
    described = Litestar(
        copies, openapi_config=config, plugins=[structs], logging_config=None
    ).openapi_schema
    for each in _operations(described):
        _complete(each)
    bodies = [getattr(each.operation_class, "json_body", None) for each in copies]
    made = described.to_schema()
    _, made["components"]["schemas"] = _components([*structs.found, *bodies, *POINT_TYPES])
    return made


class _Structs(OpenAPISchemaPlugin):
    """Names structs where Litestar finds them, and leaves their schemas to msgspec."""

    def __init__(self) -> None:
        self.found: dict[type, None] = {}

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        return field_definition.is_subclass_of(msgspec.Struct)

    def to_openapi_schema(
        self, field_definition: FieldDefinition, schema_creator: SchemaCreator
    ) -> Schema:
        self.found[field_definition.annotation] = None
        return schema_creator.create_component_schema(
            field_definition, required=[], property_fields={}
        )


def _components(types: Iterable[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the schema of each type, and of the structs that those schemas refer to."""
    return msgspec.json.schema_components(types, ref_template=_COMPONENT)


def _operations(described: OpenAPI) -> Iterator[Operation]:
    for path in (described.paths or {}).values():
        yield from filter(None, (path.get, path.post))


def _complete(each: Operation) -> None:
    """Add what all operations have in common and what Litestar has no word for."""
    each.security = each.security or []
    responses = each.responses or {}
    # Litestar announces a 400 of its own for every parameter; text in a path cannot be wrong.
    if JSON in (getattr(responses.get("400"), "content", None) or ()):
        del responses["400"]
    for status, response in responses.items():
        if isinstance(response, OpenAPIResponse) and PROBLEM_TYPE in (response.content or ()):
            _complete_refusal(status, response, has_page=each.request_body is None)


def _complete_refusal(status: str, response: OpenAPIResponse, *, has_page: bool) -> None:
    if has_page and response.content is not None:  # a browser can send it from its address bar
        response.content[HTML] = OpenAPIMediaType()
    if status in {"429", "503"}:
        seconds = Schema(type=OpenAPIType.STRING, pattern="^[0-9]+$")
        response.headers = {"Retry-After": OpenAPIHeader(schema=seconds)}
