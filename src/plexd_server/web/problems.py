"""Errors as ``application/problem+json`` (RFC 9457), the one form of every refusal.

Two members are ours: ``index`` is the place of the wrong point in the batch, ``field`` the dotted
path inside the point.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec
from litestar import Response
from litestar.exceptions import HTTPException

from plexd_server.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.types import ExceptionHandlersMap, Send

PROBLEM_TYPE: Final = "application/problem+json"
RETRY_SOON: Final = {"Retry-After": "2"}

_LOG = logging.getLogger(__name__)


class Problem(Exception):  # noqa: N818 -- the RFC's word; it is an answer rather than a fault
    """An answer that is no success; raise it anywhere below a route."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        index: int | None = None,
        field: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.index = index
        self.field = field
        self.headers = dict(headers or {})


class ProblemDetails(msgspec.Struct):
    """A problem as JSON."""

    type: str
    title: str
    status: int
    detail: str
    index: int | msgspec.UnsetType = msgspec.UNSET
    field: str | msgspec.UnsetType = msgspec.UNSET


def encode_problem(problem: Problem) -> bytes:
    """Encode a problem as JSON; empty members are left out."""
    details = ProblemDetails(
        "about:blank",
        HTTPStatus(problem.status).phrase,
        problem.status,
        problem.detail,
        index=msgspec.UNSET if problem.index is None else problem.index,
        field=problem.field or msgspec.UNSET,
    )
    return msgspec.json.encode(details)


async def send_problem(problem: Problem, send: Send) -> None:
    """Answer an ASGI request with a problem, where no route is reached."""
    body = encode_problem(problem)
    fields = {
        "content-type": PROBLEM_TYPE,
        "content-length": str(len(body)),
        **problem.headers,
    }
    headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def problem_handlers() -> ExceptionHandlersMap:
    """Return handlers that turn every exception below a route into a problem; bugs are logged."""
    return {Exception: lambda request, err: _answer(problem_of(err, request.scope["path"]))}


def problem_of(err: Exception, path: str) -> Problem:
    """Return the problem that an exception below a route is answered with; bugs are logged."""
    match err:
        case Problem():
            return err
        case HTTPException():  # the router's own: no such path, a parameter of the wrong form
            phrase = HTTPStatus(err.status_code).phrase
            return Problem(err.status_code, phrase.lower(), headers=err.headers)
        case StoreError():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(err), headers=RETRY_SOON)
        case _:
            _LOG.error("request failed", exc_info=err, extra={"path": path})
            return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "an internal error; see the log")


def _answer(problem: Problem) -> Response[bytes]:
    return Response(
        encode_problem(problem),
        status_code=problem.status,
        media_type=PROBLEM_TYPE,
        headers=problem.headers,
    )
