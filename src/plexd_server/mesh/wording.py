"""Numbers as the reasons of states and alerts write them. Pure."""

from __future__ import annotations

from typing import Final

_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEP: Final = 1024.0


def number(value: float) -> str:
    """Return about three digits, without an exponent."""
    text = f"{value:.{_decimals(value)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _decimals(value: float) -> int:
    return 0 if value >= 100 else 1 if value >= 10 else 2


def percent(value: float) -> str:
    """Return a text such as ``3 %``."""
    return f"{number(value)} %"


def milliseconds(nanoseconds: int) -> str:
    """Return a text such as ``14.2 ms``; from ten seconds on, in seconds."""
    if nanoseconds >= 10_000_000_000:
        return seconds(nanoseconds / 1e9)
    return f"{number(nanoseconds / 1e6)} ms"


def size(count: float) -> str:
    """Return a text such as ``1.4 KiB``, in the largest unit of which it is one when rounded."""
    power = 0
    while round(count, _decimals(count)) >= _STEP and power < len(_BINARY) - 1:
        count /= _STEP
        power += 1
    return f"{number(count)} {_BINARY[power]}"


def seconds(value: float) -> str:
    """Return a text such as ``43 s``, ``7 min`` or ``2 h 5 min``."""
    whole, minutes, hours = (max(0, round(value / unit)) for unit in (1, 60, 3600))
    if whole <= 180:
        return f"{whole} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 1440:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
