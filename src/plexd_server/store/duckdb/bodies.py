"""The points of a record's body, read without checks: they were checked when they came.

Each group has a type of plain fields, with times as text: of those many are alike, and are read
once. What says more than this version knows is read as strictly as when it came.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from plexd.api import decode_batch
from plexd_server.store.duckdb import schema
from plexd_server.store.payloads import PAYLOADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plexd.api import MetricPoint

_PLAIN_TYPES: Final[dict[str, type]] = {
    "VARCHAR": str,
    "TIMESTAMP": str,
    "BOOLEAN": bool,
    "DOUBLE": float,
    "BIGINT": int,
    "UBIGINT": int,
    "UINTEGER": int,
}


class OtherData(NamedTuple):
    """The row of a point of a group that this version does not know."""

    group: str
    peer_id: str
    data: str


class OtherRow(NamedTuple):
    """Such a point, in the form of the others."""

    timestamp: Any
    data: OtherData


def _plain(group: str) -> type[msgspec.Struct]:
    kinds = ((field, schema.column_type(field)) for field in schema.data_fields(group))
    fields = [(field, _PLAIN_TYPES[kind]) for field, kind in kinds]
    data = msgspec.defstruct(f"Plain{group.title()}", fields, gc=False)
    return msgspec.defstruct(
        f"Plain{group.title()}Point",
        [("timestamp", str), ("data", data)],
        tag_field="group",
        tag=group,
        gc=False,
    )


_GROUP_OF: Final = {_plain(group): group for group in PAYLOADS}
_UNION: Any = None
for _kind in _GROUP_OF:
    _UNION = _kind if _UNION is None else _UNION | _kind
_DECODER: Final = msgspec.json.Decoder(list[_UNION])


def read_body(body: bytes, omitted: Sequence[int]) -> Mapping[str, list[Any]]:
    """Return the points of each group, without those at the indexes ``omitted``.

    Each has a ``timestamp``, text or time, and ``data`` with the fields of its table.
    """
    try:
        found: list[Any] = _DECODER.decode(body)
    except msgspec.ValidationError:
        found = [*decode_batch(body)]
    if omitted:
        left_out = frozenset(omitted)
        found = [point for index, point in enumerate(found) if index not in left_out]
    return by_group(found)


def by_group(points: Sequence[Any]) -> Mapping[str, list[Any]]:
    """Return the points of each group in order."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for point in points:
        if group := _GROUP_OF.get(type(point)):
            groups[group].append(point)
        elif point.group in PAYLOADS:
            groups[point.group].append(point)
        else:
            groups[schema.OTHER].append(_other(point))
    return groups


def _other(point: MetricPoint) -> OtherRow:
    data = bytes(point.data).decode()  # type: ignore[arg-type]  # Raw
    return OtherRow(point.timestamp, OtherData(point.group, point.peer_id, data))
