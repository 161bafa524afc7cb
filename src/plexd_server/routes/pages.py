"""The dashboard: pages for the operator, login and logout, and static files for anybody."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

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
    redirect_page,
)
from plexd_server.registry import is_node_id
from plexd_server.routes.openapi import CALLERS, HTML, NO_STORE, OPERATOR, described, operation

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler
    from litestar.params import FromPath

    from plexd_server.auth import Gate

_described: Final = partial(described, "pages", media_type=HTML)
_TEXT: Final = Schema(type=OpenAPIType.STRING)
_LOGIN_PARAMETERS: Final = (
    Parameter("token", "query", _TEXT, "the operator's login token"),
    Parameter("node", "query", _TEXT, "the node whose page to go to"),
)


def page_routes(gate: Gate) -> list[HTTPRouteHandler]:
    """Make the routes of the pages, of login and logout, and of ``/static/``."""
    assets = Assets()

    @get("/", **_described("The fleet's page", 401, 429, security=OPERATOR, answers={200: str}))
    async def show_fleet(request: Request[Any, Any, Any]) -> Response[str]:
        return _page(fleet_page()) if gate.is_operator(request) else _login_page()

    @get("/mesh", **_described("The mesh's page", 401, 429, security=OPERATOR, answers={200: str}))
    async def show_mesh(request: Request[Any, Any, Any]) -> Response[str]:
        return _page(mesh_page()) if gate.is_operator(request) else _login_page()

    @get(
        "/nodes/{node_id:str}",
        **_described("A node's page", 401, 404, 429, security=OPERATOR, answers={200: str}),
    )
    async def show_node(node_id: FromPath[str], request: Request[Any, Any, Any]) -> Response[str]:
        if not gate.is_operator(request):
            return _login_page()
        if not is_node_id(node_id):
            return _page(not_found_page(), 404)
        return _page(node_page(node_id))

    @get(
        "/login",
        **_described("Trade the login token for a cookie", 401, 429, answers={200: str, 303: None}),
        operation_class=operation(*_LOGIN_PARAMETERS),
    )
    async def login(request: Request[Any, Any, Any]) -> Response[str]:
        token = request.query_params.get("token", "")
        cookie = gate.login(request, token)
        if cookie is None:
            return _login_page(is_wrong=bool(token))
        return _logged_in(request, gate, cookie)

    @post(
        "/logout",
        **_described(
            "Have the browser forget the cookie", *CALLERS, security=OPERATOR, answers={303: None}
        ),
        status_code=303,
    )
    async def logout(request: Request[Any, Any, Any]) -> Response[str]:
        await gate.require_operator(request)
        response, cookie = _redirect("/"), _cookie(gate, "")
        cookie.max_age = 0  # it stays valid, as all browsers have the same one
        response.set_cookie(cookie)
        return response

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

    return [show_fleet, show_mesh, show_node, login, logout, static]


def _page(html: str, status: int = 200) -> Response[str]:
    return Response(html, status_code=status, media_type=MediaType.HTML, headers=NO_STORE)


def _login_page(*, is_wrong: bool = False) -> Response[str]:
    return _page(login_page(is_wrong=is_wrong), 401)


def _logged_in(request: Request[Any, Any, Any], gate: Gate, value: str) -> Response[str]:
    """Set the cookie and go to the fleet's page, or to the page of the node in the link.

    After a link from another site, a browser does not send a strict cookie along an HTTP redirect.
    It does after a page of ours that moves on by itself.
    """
    node_id = request.query_params.get("node", "")
    target = f"/nodes/{node_id}" if is_node_id(node_id) else "/"  # always a page of ours
    response = _page(redirect_page(target))
    if request.headers.get("sec-fetch-site") != "cross-site":
        response = _redirect(target)
    response.set_cookie(_cookie(gate, value))
    return response


def _redirect(target: str) -> Response[str]:
    headers = {**NO_STORE, "Location": target}
    return Response("", status_code=303, media_type=MediaType.HTML, headers=headers)


def _cookie(gate: Gate, value: str) -> Cookie:
    return Cookie(
        key=gate.cookie_name,
        value=value,
        httponly=True,
        samesite="strict",
        secure=gate.is_secure,
        path="/",
    )
