"""Numbers as the reasons of states and alerts write them. Pure."""

from __future__ import annotations

from typing import Final

_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEP: Final = 1024.0


def number(value: float) -> str:
    """Return about three digits, without an exponent."""
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    text = f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return text.rstrip("0").rstrip(".")


def percent(value: float) -> str:
    """Return a text such as ``3 %``."""
    return f"{number(value)} %"


def milliseconds(nanoseconds: int) -> str:
    """Return a text such as ``14.2 ms``; from ten seconds on, in seconds."""
    if nanoseconds >= 10_000_000_000:
        return seconds(nanoseconds / 1e9)
    return f"{number(nanoseconds / 1e6)} ms"


def size(count: float) -> str:
    """Return a text such as ``1.4 KiB``."""
    power = 0
    while count >= _STEP and power < len(_BINARY) - 1:
        count /= _STEP
        power += 1
    return f"{number(count)} {_BINARY[power]}"


def seconds(value: float) -> str:
    """Return a text such as ``43 s``, ``7 min`` or ``2 h 5 min``."""
    whole = max(0, round(value))
    if whole <= 180:
        return f"{whole} s"
    if whole < 3600:
        return f"{round(whole / 60)} min"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
