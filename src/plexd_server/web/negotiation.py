"""What a client accepts and already has: ``Accept-Encoding`` and ``If-None-Match`` (RFC 9110)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_CODING = re.compile(r"\s*([!#$%&'*+.^`|~\w-]+)\s*(?:;\s*q=([01](?:\.\d{0,3})?)\s*)?", re.ASCII)
_ETAG = re.compile(r'(?:W/)?("[^"]*")')
_GZIP_NAMES: Final = ("gzip", "x-gzip", "*")  # the second is the first (8.4.1.3)


def accepts_gzip(values: Iterable[str]) -> bool:
    """Whether the values of ``Accept-Encoding`` allow gzip and do not like it less than nothing.

    An element that cannot be read counts as absent (12.5.3).
    """
    weights = _weights(",".join(values).lower())
    gzip = next((weights[name] for name in _GZIP_NAMES if name in weights), 0.0)
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def is_known(etag: str, values: Iterable[str]) -> bool:
    """Whether the values of ``If-None-Match`` have this entity tag, compared weakly (13.1.2)."""
    listed = ",".join(values).strip()
    opaque = etag.removeprefix("W/")
    return listed == "*" or opaque in _ETAG.findall(listed)


def _weights(text: str) -> dict[str, float]:
    found = (_CODING.fullmatch(element) for element in text.split(","))
    return {each[1]: float(each[2] or 1) for each in found if each is not None}
