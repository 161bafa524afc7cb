"""The dashboard: pages for the operator, login and logout, and static files for anybody."""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from litestar import MediaType, Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.openapi.spec import Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType

from plexd_server.dashboard.assets import Assets
from plexd_server.dashboard.pages import (
    fleet_page,
    login_page,
    mesh_page,
    node_page,
    not_found_page,
)
from plexd_server.registry import SESSION_LASTS, is_node_id
from plexd_server.routes.openapi import CALLERS, HTML, NO_STORE, OPERATOR, described, operation

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler
    from litestar.params import FromPath

    from plexd_server.auth import Gate

_described: Final = partial(described, "pages", media_type=HTML)
_OWN_PATH: Final = re.compile(r"/(?![/\\]|login\b|logout\b)[!-\[\]-~]{0,1000}")
_RETURN_SECONDS: Final = 600
_TEXT: Final = Schema(type=OpenAPIType.STRING)
_LOGIN_PARAMETERS: Final = (
    Parameter("token", "query", _TEXT, "the operator's login token"),
    Parameter("node", "query", _TEXT, "the node whose page to go to"),
    Parameter("next", "query", _TEXT, "the path of this server to go to"),
)


def page_routes(gate: Gate) -> list[HTTPRouteHandler]:
    """Make the routes of the pages, of login and logout, and of ``/static/``."""
    return [*_operator_pages(gate), *_session_routes(gate), _static_files(Assets())]


def _operator_pages(gate: Gate) -> list[HTTPRouteHandler]:

    @get("/", **_described("The fleet's page", 401, 429, security=OPERATOR, answers={200: str}))
    async def show_fleet(request: Request[Any, Any, Any]) -> Response[str]:
        return await _shown(gate, request, fleet_page())

    @get("/mesh", **_described("The mesh's page", 401, 429, security=OPERATOR, answers={200: str}))
    async def show_mesh(request: Request[Any, Any, Any]) -> Response[str]:
        return await _shown(gate, request, mesh_page())

    @get(
        "/nodes/{node_id:str}",
        **_described("A node's page", 401, 404, 429, security=OPERATOR, answers={200: str}),
    )
    async def show_node(node_id: FromPath[str], request: Request[Any, Any, Any]) -> Response[str]:
        if not is_node_id(node_id):
            return await _shown(gate, request, not_found_page(), 404)
        return await _shown(gate, request, node_page(node_id))

    return [show_fleet, show_mesh, show_node]


def _session_routes(gate: Gate) -> list[HTTPRouteHandler]:
    @get(
        "/login",
        **_described("Trade the login token for a cookie", 401, 403, 429, answers={303: None}),
        status_code=303,
        operation_class=operation(*_LOGIN_PARAMETERS),
    )
    async def login(request: Request[Any, Any, Any]) -> Response[str]:
        token = request.query_params.get("token", "")
        cookie = await gate.login(request, token)
        if cookie is None:
            return _login_page(is_wrong=bool(token))
        return _logged_in(request, gate, cookie)

    @post(
        "/logout",
        **_described(
            "End the session of the cookie", *CALLERS, security=OPERATOR, answers={303: None}
        ),
        status_code=303,
    )
    async def logout(request: Request[Any, Any, Any]) -> Response[str]:
        await gate.log_out(request)
        response = _redirect("/")
        response.set_cookie(_cookie(request, gate.cookie_name, "", seconds=0))
        return response

    return [login, logout]


def _static_files(assets: Assets) -> HTTPRouteHandler:
    @get(
        "/static/{name:str}",
        **_described(
            "A script, a style sheet or an image",
            404,
            answers={200: bytes, 304: None},
            media_type="*/*",
        ),
    )
    async def static(name: FromPath[str], request: Request[Any, Any, Any]) -> Response[bytes]:
        return await assets.answer(name, request.headers)

    return static


async def _shown(
    gate: Gate, request: Request[Any, Any, Any], page: str, status: int = 200
) -> Response[str]:
    """Return the page to the operator, and to others the login page, which leads back to it."""
    if await gate.is_operator(request):
        return _page(page, status)
    response = _login_page()
    if status == HTTPStatus.OK:
        _remember(response, request, _return_name(gate))
    return response


def _page(html: str, status: int = 200) -> Response[str]:
    return Response(html, status_code=status, media_type=MediaType.HTML, headers=NO_STORE)


def _login_page(*, is_wrong: bool = False) -> Response[str]:
    return _page(login_page(is_wrong=is_wrong), 401)


def _logged_in(request: Request[Any, Any, Any], gate: Gate, value: str) -> Response[str]:
    """Set the cookie and go to the page in the link, else to the one that asked to log in."""
    response = _redirect(_target(request, gate))
    seconds = int(SESSION_LASTS.total_seconds())
    response.set_cookie(_cookie(request, gate.cookie_name, value, seconds=seconds))
    response.set_cookie(_cookie(request, _return_name(gate), "", seconds=0))
    return response


def _target(request: Request[Any, Any, Any], gate: Gate) -> str:
    """Return a path of this server: a browser must not be led to another one."""
    node_id = request.query_params.get("node", "")
    wanted = (
        request.query_params.get("next", ""),
        f"/nodes/{node_id}" if is_node_id(node_id) else "",
        request.cookies.get(_return_name(gate), ""),  # Litestar undoes the quoting
    )
    return next((path for path in wanted if _OWN_PATH.fullmatch(path)), "/")


def _remember(response: Response[str], request: Request[Any, Any, Any], name: str) -> None:
    """Have the browser keep in a cookie which page to go to after logging in; none for ``/``."""
    scope = request.scope
    path = scope["raw_path"].partition(b"?")[0] + b"?" + scope["query_string"]
    text = path.decode("latin-1").removesuffix("?")
    if text != "/" and _OWN_PATH.fullmatch(text):
        value = quote(text, safe="")
        response.set_cookie(_cookie(request, name, value, seconds=_RETURN_SECONDS))
    elif name in request.cookies:
        response.set_cookie(_cookie(request, name, "", seconds=0))


def _return_name(gate: Gate) -> str:
    return f"{gate.cookie_name}-return"


def _redirect(target: str) -> Response[str]:
    headers = {**NO_STORE, "Location": target}
    return Response("", status_code=303, media_type=MediaType.HTML, headers=headers)


def _cookie(request: Request[Any, Any, Any], name: str, value: str, *, seconds: int) -> Cookie:
    """Make a cookie; ``Secure`` where the browser speaks HTTPS, to us or to a trusted proxy."""
    return Cookie(
        key=name,
        value=value,
        max_age=seconds,
        httponly=True,
        samesite="strict",
        secure=request.scope["scheme"] == "https",
        path="/",
    )
