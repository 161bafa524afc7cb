"""The dashboard's routes: pages for the operator, login, and static files for anyone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from litestar import MediaType, Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.types import ASGIApp  # noqa: TC002 -- Litestar reads the annotations

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

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler
    from litestar.params import FromPath

    from plexd_server.auth.gate import Gate

__all__ = ["dashboard_routes"]

_NO_STORE: Final = {"Cache-Control": "no-store"}


def dashboard_routes(gate: Gate) -> list[HTTPRouteHandler]:
    """Pages at ``/``, ``/mesh`` and ``/nodes/{node_id}``, login and logout, and ``/static/``."""
    assets = Assets()

    @get("/")
    async def fleet(request: Request[Any, Any, Any]) -> Response[str]:
        return _page(fleet_page()) if gate.is_operator(request) else _ask_to_log_in()

    @get("/mesh")
    async def mesh(request: Request[Any, Any, Any]) -> Response[str]:
        return _page(mesh_page()) if gate.is_operator(request) else _ask_to_log_in()

    @get("/nodes/{node_id:str}")
    async def node(node_id: FromPath[str], request: Request[Any, Any, Any]) -> Response[str]:
        if not gate.is_operator(request):
            return _ask_to_log_in()
        if not is_node_id(node_id):
            return _page(not_found_page(), 404)
        return _page(node_page(node_id))

    @get("/login")
    async def login(request: Request[Any, Any, Any]) -> Response[str]:
        token = request.query_params.get("token", "")
        cookie = gate.login(request, token)
        if cookie is None:
            return _ask_to_log_in(is_wrong=bool(token))
        return _let_in(request, gate, cookie)

    @post("/logout")
    async def logout(request: Request[Any, Any, Any]) -> Response[str]:
        await gate.require_operator(request)
        return _let_out(gate)

    @get("/static/{name:str}")
    async def static(name: FromPath[str], request: Request[Any, Any, Any]) -> ASGIApp:
        return await assets.answer(name, request.headers)

    return [fleet, mesh, node, login, logout, static]


def _page(html: str, status: int = 200) -> Response[str]:
    return Response(html, status_code=status, media_type=MediaType.HTML, headers=_NO_STORE)


def _ask_to_log_in(*, is_wrong: bool = False) -> Response[str]:
    return _page(login_page(is_wrong=is_wrong), 401)


def _let_in(request: Request[Any, Any, Any], gate: Gate, value: str) -> Response[str]:
    """Set the cookie and go to the start page, or to that of the node the link names.

    A browser that followed a link from elsewhere would not send a strict cookie along an HTTP
    redirect, as the journey began on another site; a page of ours that moves on by itself begins
    a new one.
    """
    target = _target(request.query_params.get("node", ""))
    response = _page(redirect_page(target))
    if request.headers.get("sec-fetch-site") != "cross-site":
        response = _see(target)
    response.set_cookie(_cookie(gate, value))
    return response


def _let_out(gate: Gate) -> Response[str]:
    """Have the browser forget the cookie, which stays right: it is the same for everybody."""
    response = _see("/")
    cookie = _cookie(gate, "")
    cookie.max_age = 0
    response.set_cookie(cookie)
    return response


def _see(target: str) -> Response[str]:
    headers = {**_NO_STORE, "Location": target}
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


def _target(node_id: str) -> str:
    """Where a login leads: never anywhere but to a page of ours."""
    return f"/nodes/{node_id}" if is_node_id(node_id) else "/"
