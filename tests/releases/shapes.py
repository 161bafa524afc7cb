"""The keys and types of JSON values: what later versions of an answer must still have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["differences", "operations_of", "shape"]


def shape(value: Any) -> Any:
    """Return the keys and types of a JSON value; elements of a list have one shape together."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        merged: Any = None
        for inner in value:
            merged = _merged(merged, shape(inner))
        return [merged]
    if isinstance(value, bool):
        return "boolean"
    return None if value is None else "text" if isinstance(value, str) else "number"


def _merged(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = {**one, **other}
        return {key: _merged(one.get(key), other.get(key)) for key in keys}
    if isinstance(one, list) and isinstance(other, list):
        return [_merged(one[0], other[0])]
    return other if one is None else one


def differences(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Yield where a value of today lacks what an older one had, or has another type there.

    A null says nothing of a type, on either side.
    """
    if old is None or new is None:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            if key not in new:
                yield f"{place}.{key} is gone"
            else:
                yield from differences(old[key], new[key], f"{place}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        yield from differences(old[0], new[0], f"{place}[]")
    elif old != new:
        yield f"{place} was {_kind(old)}, and is {_kind(new)}"


def _kind(value: Any) -> str:
    return value if isinstance(value, str) else "object" if isinstance(value, dict) else "list"


def operations_of(document: Mapping[str, Any]) -> dict[str, dict[str, None]]:
    """Return the operations of an OpenAPI document."""
    return {path: dict.fromkeys(found) for path, found in document["paths"].items()}
