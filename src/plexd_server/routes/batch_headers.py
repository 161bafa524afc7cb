"""The headers of a report: which part of which batch it is, and how many points were lost before.

A report without a name is stored as often as it arrives, as no duplicate can be recognized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from litestar.openapi.spec import Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType

from plexd.api import BatchName, DecodeError, MetricBatch
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from litestar import Request


_BATCH: Final = "Plexd-Batch"
_DROPPED: Final = "Plexd-Dropped"
_MAX_DROPPED: Final = 2**53 - 1
BATCH_HEADERS: Final = (
    Parameter(
        _BATCH,
        "header",
        description="which part of which sealed batch the body is",
        schema=Schema(
            type=OpenAPIType.STRING,
            pattern="^[0-9a-f]{32};seq=[1-9][0-9]*;offset=(0|[1-9][0-9]*);of=[1-9][0-9]*$",
        ),
    ),
    Parameter(
        _DROPPED,
        "header",
        description="how many points the node lost since its last accepted batch",
        schema=Schema(type=OpenAPIType.STRING, pattern="^[0-9]{1,16}$"),
    ),
)
_TOO_LARGE: Final = 413
_FINAL: Final = frozenset({400, 415, 422})


class BatchHeaders(NamedTuple):
    """The two headers of a report."""

    name: BatchName | None = None
    dropped: int = 0

    def check(self, batch: MetricBatch) -> None:
        """Raise `Problem` 400 if the points do not fit the batch in the headers."""
        if self.name is None:
            return
        if not batch:
            raise _refusal(_BATCH, "a batch that has a name holds points")
        if self.name.offset + len(batch) > self.name.of:
            held = f"{len(batch)} points from {self.name.offset} on are more than {self.name.of}"
            raise _refusal(_BATCH, held)

    def points_given_up(self, refusal: Problem) -> int:
        """Count the points that the node gives up after this refusal; 0 if it tries again.

        A report that is too large comes again in pieces, unless it is a single point.
        """
        if self.name is None:
            return 0
        left = self.name.of - self.name.offset
        is_final = refusal.status in _FINAL or (refusal.status == _TOO_LARGE and left == 1)
        return left if is_final else 0


def parse_batch_headers(request: Request[Any, Any, Any]) -> BatchHeaders:
    """Read the two headers. Raises `Problem` 400 if one of them is malformed."""
    batch, dropped = _only(request, _BATCH), _only(request, _DROPPED)
    return BatchHeaders(
        None if batch is None else _name(batch), 0 if dropped is None else _count(dropped)
    )


def _only(request: Request[Any, Any, Any], header: str) -> str | None:
    values = request.headers.getall(header, [])
    if len(values) > 1:
        raise _refusal(header, "there is more than one")
    return values[0] if values else None


def _name(text: str) -> BatchName:
    try:
        return BatchName.parse(text)
    except DecodeError as err:
        raise _refusal(_BATCH, err.reason) from None


def _count(text: str) -> int:
    # The length first: very many digits would be slow to read.
    if not (len(text) <= len(str(_MAX_DROPPED)) and text.isascii() and text.isdigit()):
        raise _refusal(_DROPPED, "not a number of points")
    return min(int(text), _MAX_DROPPED)


def _refusal(header: str, reason: str) -> Problem:
    return Problem(400, f"{header}: {reason}", field=header)
